"""The handlers of the worker, one for each thing that a conversion asks of TensorFlow.

look(path) -> values keras_version: of an .h5 file.
export(path, format) -> values describing the model, arrays "onnx" (bytes) and "weight/<name>".
    format is "keras" (.keras, .h5, a SavedModel of Keras 2) or "saved_model" (any other).
evaluate(objectives, precision; input/<name>, label/<i>) -> arrays output/<i>, logits/<i> and
    gradient/<name> of the exported model, precision "float32" or "float64".
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from . import evaluation, keras_model
from .graph_sources import SavedModelSource
from .keras_source import Arrays, KerasSource, Values

_source: Any = None


def look(params: Values, arrays: Arrays) -> tuple[Values, Arrays]:
    """Returns which Keras wrote an .h5 file."""
    return {"keras_version": keras_model.keras_version_of_h5(params["path"])}, {}


def export(params: Values, arrays: Arrays) -> tuple[Values, Arrays]:
    """Loads a model, keeps it for ``evaluate`` and returns it as ONNX."""
    global _source
    _source = None
    tf.keras.backend.clear_session()
    kinds: dict[str, Any] = {"keras": KerasSource, "saved_model": SavedModelSource}
    source = kinds[params["format"]](params["path"])
    values, model, weights = source.export()
    _source = source
    versions = {"tensorflow": tf.__version__, "keras": keras_model.KERAS_VERSION}
    data = np.frombuffer(model.SerializeToString(), np.uint8)
    return {**values, "versions": versions}, {"onnx": data, **weights}


def evaluate(params: Values, arrays: Arrays) -> tuple[Values, Arrays]:
    """Returns what the exported model computes; see ``evaluation``."""
    return evaluation.evaluate(_source, params, arrays)


HANDLERS = {"look": look, "export": export, "evaluate": evaluate}
