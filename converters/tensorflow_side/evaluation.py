"""What TensorFlow says a model computes: outputs, logits and input gradients."""

from __future__ import annotations

import json
from typing import Any

import tensorflow as tf

from .keras_model import UnsupportedModelError
from .keras_source import Arrays, Values


def evaluate(source: Any, params: Values, arrays: Arrays) -> tuple[Values, Arrays]:
    """Returns outputs, logits and the gradient of the summed objectives of the exported model."""
    precision, objectives = params["precision"], params["objectives"]
    names, dtypes = source.description["inputs"], source.description["dtypes"]
    inputs = [
        tf.constant(arrays[f"input/{name}"], precision if dtype == "float32" else dtype)
        for name, dtype in zip(names, dtypes, strict=True)
    ]
    labels = [tf.constant(arrays.get(f"label/{i}", 0)) for i in range(len(objectives))]
    key = json.dumps([precision, objectives])
    if key not in source.functions:
        run = _evaluation(source.caller(precision), objectives)
        # One trace for all batch sizes.
        signature = [[_of_any_length(t) for t in tensors] for tensors in (inputs, labels)]
        source.functions[key] = tf.function(run, input_signature=signature, autograph=False)
    outputs, logits, gradients = source.functions[key](inputs, labels)
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
        raise UnsupportedModelError(
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
