"""The handlers of the worker, one for each thing that a conversion asks of TensorFlow.

look(path) -> values keras_version: of an .h5 file.
export(format, path, precision, custom_objects, allow_unsafe, input_names, output_names) -> values
    describing the model, arrays "onnx" (bytes) and "weight/<name>".
    format is "keras" (.keras, .h5, a SavedModel of Keras 2), "saved_model" (any other),
    "frozen_graph" or "tflite". custom_objects is a Python file; it is run. Unless allow_unsafe is
    true, what could do more than compute is refused before Keras or TensorFlow sees it.
evaluate(objectives, precision; input/<name>, label/<i>) -> arrays output/<i>, logits/<i> and
    gradient/<name> of the exported model, precision "float32" or "float64".
train(rate, steps, objectives, precision; input/<name>, label/<i>) -> arrays <step>/loss,
    gradient/<weight> and <step>/<weight> of steps of gradient descent; see ``step``.
outputs(; input/<name>) -> arrays output/<i> of the exported model, for sources without gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from . import evaluation, keras_model, step
from .custom_objects import custom_objects_of
from .frozen_source import FrozenGraphSource
from .graph_sources import SavedModelSource, refuse_text
from .keras_source import Arrays, KerasSource, Values
from .tflite_source import TFLiteSource

Handler = Callable[[Values, Arrays], tuple[Values, Arrays]]


class Session:
    """One model at a time: exported first, then asked what it computes."""

    def __init__(self) -> None:
        self._source: Any = None

    def look(self, params: Values, arrays: Arrays) -> tuple[Values, Arrays]:
        """Returns which Keras wrote an .h5 file."""
        return {"keras_version": keras_model.keras_version_of_h5(params["path"])}, {}

    def export(self, params: Values, arrays: Arrays) -> tuple[Values, Arrays]:
        """Loads a model, keeps it for the other handlers and returns it as ONNX."""
        self._source = None
        tf.keras.backend.clear_session()
        return self.export_source(_source(params), params.get("precision", "float32"))

    def export_source(self, source: Any, precision: str) -> tuple[Values, Arrays]:
        """Returns a source as ONNX and keeps it for the other handlers."""
        refuse_text(source.description)
        values, model, weights = source.export(precision)
        self._source = source
        versions = {"tensorflow": tf.__version__, "keras": keras_model.KERAS_VERSION}
        data = np.frombuffer(model.SerializeToString(), np.uint8)
        return {**values, "versions": versions}, {"onnx": data, **weights}

    def evaluate(self, params: Values, arrays: Arrays) -> tuple[Values, Arrays]:
        """Returns what the exported model computes; see ``evaluation``."""
        return evaluation.evaluate(self._source, params, arrays)

    def train(self, params: Values, arrays: Arrays) -> tuple[Values, Arrays]:
        """Returns what steps of gradient descent make of the exported model; see ``step``."""
        return step.train(self._source, params, arrays)

    def outputs(self, params: Values, arrays: Arrays) -> tuple[Values, Arrays]:
        """Returns the outputs of the exported model, where there are no gradients to ask for."""
        inputs = [arrays[f"input/{name}"] for name in self._source.description["inputs"]]
        return {}, {f"output/{i}": y for i, y in enumerate(self._source.outputs(inputs))}

    def handlers(self) -> dict[str, Handler]:
        """Returns the handlers by the names under which they are called."""
        return {
            "look": self.look,
            "export": self.export,
            "evaluate": self.evaluate,
            "train": self.train,
            "outputs": self.outputs,
        }


def _source(params: Values) -> Any:
    path, kind = params["path"], params["format"]
    unsafe = bool(params.get("allow_unsafe"))
    if kind == "saved_model":
        return SavedModelSource(path, allow_unsafe=unsafe)
    if kind == "frozen_graph":
        names = params.get("input_names"), params.get("output_names")
        return FrozenGraphSource(path, *names, allow_unsafe=unsafe)
    if kind == "tflite":
        return TFLiteSource(path, allow_unsafe=unsafe)
    file = params.get("custom_objects")
    return KerasSource(
        path,
        custom_objects=custom_objects_of(file) if file else None,
        allow_unsafe=unsafe,
    )


HANDLERS = Session().handlers()
