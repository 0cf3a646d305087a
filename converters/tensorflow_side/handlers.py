"""The handlers of the worker, one for each thing that a conversion asks of TensorFlow.

look(path) -> values keras_version: of an .h5 file.
export(path, format) -> values describing the model, arrays "onnx" (bytes) and "weight/<name>".
    format is "keras" (.keras, .h5, a SavedModel of Keras 2) or "saved_model" (any other).
evaluate(objectives, precision; input/<name>, label/<i>) -> arrays output/<i>, logits/<i> and
    gradient/<name> of the exported model, precision "float32" or "float64".
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import tensorflow as tf

from . import keras_model, sources
from .sources import Arrays, Values

_source: Any = None


def look(params: Values, arrays: Arrays) -> tuple[Values, Arrays]:
    """Returns which Keras wrote an .h5 file."""
    return {"keras_version": keras_model.keras_version_of_h5(params["path"])}, {}


def export(params: Values, arrays: Arrays) -> tuple[Values, Arrays]:
    """Loads a model, keeps it for ``evaluate`` and returns it as ONNX."""
    global _source
    _source = None
    tf.keras.backend.clear_session()
    kinds: dict[str, Any] = {"keras": sources.KerasSource, "saved_model": sources.SavedModelSource}
    source = kinds[params["format"]](params["path"])
    values, model, weights = source.export()
    _source = source
    versions = {"tensorflow": tf.__version__, "keras": keras_model.KERAS_VERSION}
    data = np.frombuffer(model.SerializeToString(), np.uint8)
    return {**values, "versions": versions}, {"onnx": data, **weights}


def evaluate(params: Values, arrays: Arrays) -> tuple[Values, Arrays]:
    """Returns outputs, logits and the gradient of the summed objectives of the exported model."""
    precision, objectives = params["precision"], params["objectives"]
    names, dtypes = _source.description["inputs"], _source.description["dtypes"]
    inputs = [
        tf.constant(arrays[f"input/{name}"], precision if dtype == "float32" else dtype)
        for name, dtype in zip(names, dtypes, strict=True)
    ]
    labels = [tf.constant(arrays.get(f"label/{i}", 0)) for i in range(len(objectives))]
    key = json.dumps([precision, objectives])
    if key not in _source.functions:
        run = _evaluation(_source.caller(precision), objectives)
        # One trace for all batch sizes.
        signature = [[_of_any_length(t) for t in tensors] for tensors in (inputs, labels)]
        _source.functions[key] = tf.function(run, input_signature=signature, autograph=False)
    outputs, logits, gradients = _source.functions[key](inputs, labels)
    result = {f"output/{i}": y.numpy() for i, y in enumerate(outputs)}
    result |= {f"logits/{i}": z.numpy() for i, z in enumerate(logits)}
    floats = [name for name, x in zip(names, inputs, strict=True) if x.dtype.is_floating]
    for name, gradient in zip(floats, gradients, strict=True):
        if gradient is not None:
            result[f"gradient/{name}"] = gradient.numpy()
    return {}, result


def _evaluation(call: Any, objectives: list[Values]) -> Any:
    def run(inputs: list[Any], labels: list[Any]) -> Any:
        outputs = call(inputs)
        logits = [
            _before_head(y, objective["head"])
            for y, objective in zip(outputs, objectives, strict=True)
        ]
        total = sum(
            _objective(z, objective["kind"], label)
            for z, objective, label in zip(logits, objectives, labels, strict=True)
        )
        floats = [x for x in inputs if x.dtype.is_floating]
        gradients = tf.gradients(total, floats)
        return outputs, logits, [None if g is None else tf.convert_to_tensor(g) for g in gradients]

    return run


def _of_any_length(tensor: Any) -> Any:
    shape = [None, *tensor.shape[1:]] if tensor.shape.rank else []
    return tf.TensorSpec(shape, tensor.dtype)


def _before_head(output: Any, head: str | None) -> Any:
    """Returns the tensor that went into the head's softmax or sigmoid."""
    if head is None:
        return output
    operation = output.op
    while operation.type == "Identity":
        operation = operation.inputs[0].op
    if operation.type != head:
        raise keras_model.UnsupportedModelError(
            f"expected the output to come from {head}, it comes from {operation.type}"
        )
    return operation.inputs[0]


def _objective(logits: Any, kind: str, label: Any) -> Any:
    if kind == "cross_entropy":
        return tf.reduce_sum(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=label, logits=logits)
        )
    if kind == "binary":
        target = tf.cast(label, logits.dtype)
        return tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(labels=target, logits=logits))
    return tf.reduce_sum(logits * logits) / 2


HANDLERS = {"look": look, "export": export, "evaluate": evaluate}
