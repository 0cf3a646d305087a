"""The TensorFlow side of a conversion in this process, for a model that lives here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torchfgsm.converters.annotation import Array
from torchfgsm.originals.process import Reply, WorkerError


class TensorFlowHere:
    """Answers the calls of a conversion as a worker does, about one model of this process.

    Unlike a worker it leaves the session alone: layers, names and random state stay as they are.
    """

    def __init__(self, model: Any, custom_objects: str | os.PathLike[str] | None) -> None:
        from torchfgsm.converters.tensorflow_side import custom_objects as custom
        from torchfgsm.converters.tensorflow_side import handlers, keras_source

        self._model = model
        self._custom = custom_objects and custom.custom_objects_of(os.fspath(custom_objects))
        self._session = handlers.Session()
        self._handlers = self._session.handlers()
        self._source_of = keras_source.KerasSource

    def call(self, method: str, arrays: Mapping[str, Array], /, **params: Any) -> Reply:
        """Returns a handler's reply.

        Raises:
            WorkerError: the handler raised.
        """
        try:
            if method == "export":
                source = self._source_of(self._model, custom_objects=self._custom or None)
                return Reply(*self._session.export_source(source, params["precision"]))
            return Reply(*self._handlers[method](params, dict(arrays)))
        except Exception as error:  # as a worker reports it
            raise WorkerError(type(error).__name__, str(error)) from error
