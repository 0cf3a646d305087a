"""Keras models that live in this process, and their TensorFlow side, which runs here too."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torchfgsm.converters.annotation import Array
from torchfgsm.converters.errors import ConversionError, told_as
from torchfgsm.converters.exporting import Exporter, exporter
from torchfgsm.converters.options import Options
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


_KERAS = ("keras", "tf_keras")
_OLDEST_TENSORFLOW = (2, 15)


def is_keras_model(value: Any) -> bool:
    """Whether a value is a model of the Keras, Keras 3 or tf_keras that is imported here."""
    for cls in type(value).__mro__:
        package = cls.__module__.split(".")[0]
        if package in _KERAS and cls.__name__ == "Model":
            return True
    return False


@contextlib.contextmanager
def exporter_of(model: Any, options: Options) -> Iterator[Exporter]:
    """Opens what exports a model of this process; the model and the process stay as they are.

    It is exported here where this TensorFlow's own Keras made it and tf2onnx is at hand; otherwise
    it is saved to a temporary file, which a TensorFlow process of its own reads.

    Raises:
        ConversionError: the model cannot be saved.
        EnvironmentUnavailable: the TensorFlow environment cannot be had.
    """
    if options.worker is None and _can_export_here(model):
        options.report("tracing the model in this process")
        here = TensorFlowHere(model, options.custom_objects)
        yield Exporter(here, Path(model.name), "keras", options)
        return
    with tempfile.TemporaryDirectory(prefix="torchfgsm-model-") as folder:
        file = Path(folder) / f"{model.name}.keras"
        try:
            model.save(file)
        except Exception as error:  # whatever a layer's get_config raises
            text = " ".join(str(error).split())[:300]
            raise ConversionError(
                f"model {model.name!r} could not be saved to a .keras file: {text}; with tf2onnx "
                "installed beside TensorFlow it is converted without one"
            ) from error
        with (
            told_as(file, f"model {model.name!r}"),
            exporter(file, options.worker, options) as source,
        ):
            yield source


def _can_export_here(model: Any) -> bool:
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None or importlib.util.find_spec("tf2onnx") is None:
        return False
    version = tuple(int(part) for part in tensorflow.__version__.split(".")[:2])
    # Keras 3 over another backend, and tf_keras beside Keras 3, are no models of tf.keras.
    if version < _OLDEST_TENSORFLOW or not isinstance(model, tensorflow.keras.Model):
        return False
    keras = sys.modules.get("keras")
    backend = getattr(getattr(keras, "backend", None), "backend", None)
    return backend is None or backend() == "tensorflow"
