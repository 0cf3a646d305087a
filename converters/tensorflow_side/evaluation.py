"""What TensorFlow says a model computes: outputs, logits and input gradients."""

from __future__ import annotations

import json
import math
from typing import Any

import tensorflow as tf

from .keras_model import UnsupportedModelError
from .keras_source import Arrays, Values
from .messages import cause

# Operations that only move or rename numbers, and how to repeat each on another tensor.
_REPEATED = {
    "Cast": lambda op, x: tf.cast(x, op.outputs[0].dtype),
    "ExpandDims": lambda op, x: tf.expand_dims(x, op.inputs[1]),
    "Identity": lambda op, x: x,
    "Reshape": lambda op, x: tf.reshape(x, op.inputs[1]),
    "Squeeze": lambda op, x: tf.squeeze(x, op.get_attr("squeeze_dims")),
    "Transpose": lambda op, x: tf.transpose(x, op.inputs[1]),
}


def evaluate(source: Any, params: Values, arrays: Arrays) -> tuple[Values, Arrays]:
    """Returns outputs, logits and the gradient of the summed objectives of the exported model.

    Where the model does not compute in float64, the reply's value "unavailable" says why.
    """
    precision, objectives = params["precision"], params["objectives"]
    inputs, labels = inputs_and_labels(source, precision, objectives, arrays)
    try:
        outputs, logits, gradients = _computed(source, precision, objectives, inputs, labels)
    except (TypeError, ValueError, NotImplementedError, tf.errors.OpError) as error:
        if precision == "float64":
            return {"unavailable": reason(error)}, {}
        raise
    result = {f"output/{i}": y.numpy() for i, y in enumerate(outputs)}
    result |= {f"logits/{i}": z.numpy() for i, z in enumerate(logits)}
    names = source.description["inputs"]
    floats = [name for name, x in zip(names, inputs, strict=True) if x.dtype.is_floating]
    pairs = zip(floats, gradients, strict=True)
    return {}, result | {f"gradient/{name}": gradient.numpy() for name, gradient in pairs}


def inputs_and_labels(
    source: Any, precision: str, objectives: list[Values], arrays: Arrays
) -> tuple[list[Any], list[Any]]:
    """Returns the tensors of a batch, the floating-point inputs in the precision."""
    names, dtypes = source.description["inputs"], source.description["dtypes"]
    inputs = [
        tf.constant(
            arrays[f"input/{name}"], precision if dtype in ("float32", "float64") else dtype
        )
        for name, dtype in zip(names, dtypes, strict=True)
    ]
    return inputs, [tf.constant(arrays.get(f"label/{i}", 0)) for i in range(len(objectives))]


def signature_of(*groups: list[Any]) -> list[list[Any]]:
    """Returns the input signature of tensors with any batch size."""
    return [[_of_any_length(tensor) for tensor in tensors] for tensors in groups]


def before_heads(outputs: list[Any], objectives: list[Values]) -> list[Any]:
    """Returns each output as it is without its softmax or sigmoid, inside a graph."""
    pairs = zip(outputs, objectives, strict=True)
    return [_before_head(output, objective["head"]) for output, objective in pairs]


def objective_values(logits: list[Any], objectives: list[Values], labels: list[Any]) -> list[Any]:
    """Returns the objective at every place of each output that takes part."""
    return [
        _values(z, objective["kind"], objective["axis"], label)
        for z, objective, label in zip(logits, objectives, labels, strict=True)
        if objective["kind"] != "none"
    ]


def _computed(
    source: Any, precision: str, objectives: list[Values], inputs: list[Any], labels: list[Any]
) -> Any:
    """Calls one traced function for all batch sizes.

    Where TensorFlow has no kernel for a CPU, as for the gradient of a grouped convolution, XLA
    compiles the function; Keras compiles such layers, too, but a graph does not say so.
    """
    key = json.dumps([precision, objectives])
    if key not in source.functions:
        source.functions[key] = _function(source, precision, objectives, inputs, labels)
    try:
        return source.functions[key](inputs, labels)
    except tf.errors.OpError as error:
        if not _lacks_kernel(error):
            raise
        compiled = _function(source, precision, objectives, inputs, labels, compiled=True)
        try:
            result = compiled(inputs, labels)
        except tf.errors.OpError:
            raise error from None
    source.functions[key] = compiled
    return result


def _lacks_kernel(error: Any) -> bool:
    """Whether a kernel does not know a form of its operation; a wrong index is another matter."""
    # The gradient of a grouped convolution says so as an invalid argument.
    return isinstance(error, tf.errors.UnimplementedError) or "not supported on CPU" in str(error)


def _function(
    source: Any,
    precision: str,
    objectives: list[Values],
    inputs: list[Any],
    labels: list[Any],
    *,
    compiled: bool = False,
) -> Any:
    function = tf.function(
        _evaluation(source.caller(precision), objectives),
        input_signature=signature_of(inputs, labels),
        autograph=False,
        jit_compile=compiled or None,
    )
    function.get_concrete_function()
    return function


def _evaluation(call: Any, objectives: list[Values]) -> Any:
    def run(inputs: list[Any], labels: list[Any]) -> Any:
        outputs = call(inputs)
        logits = before_heads(outputs, objectives)
        totals = [tf.reduce_sum(v) for v in objective_values(logits, objectives, labels)]
        floats = [x for x in inputs if x.dtype.is_floating]
        found = tf.gradients(totals, floats) if totals else [None] * len(floats)
        pairs = zip(floats, found, strict=True)
        gradients = [tf.zeros_like(x) if g is None else tf.convert_to_tensor(g) for x, g in pairs]
        return outputs, logits, gradients

    return run


def _of_any_length(tensor: Any) -> Any:
    shape = [None, *tensor.shape[1:]] if tensor.shape.rank else []
    return tf.TensorSpec(shape, tensor.dtype)


def _before_head(output: Any, head: str | None) -> Any:
    """Repeats on the head's input what happens to the head's output."""
    if head is None:
        return output
    operation, behind = output.op, []
    while operation.type in _REPEATED:
        behind.append(operation)
        operation = operation.inputs[0].op
    if operation.type != head:
        raise UnsupportedModelError(
            f"expected the output to come from {head}, it comes from {operation.type}"
        )
    value = operation.inputs[0]
    for step in reversed(behind):
        value = _REPEATED[step.type](step, value)
    return value


def _values(logits: Any, kind: str, axis: int, label: Any) -> Any:
    if kind == "cross_entropy":
        rank = logits.shape.rank
        order = [i for i in range(rank) if i != axis % rank] + [axis % rank]
        classes = logits if axis == -1 else tf.transpose(logits, order)
        chosen = tf.one_hot(label, tf.shape(classes)[-1], on_value=True, off_value=False)
        nothing = tf.zeros_like(classes)
        others = tf.reduce_logsumexp(tf.where(chosen, nothing - math.inf, classes), axis=-1)
        # TensorFlow's own cross-entropies lose their digits where a classifier is sure.
        return tf.nn.softplus(others - tf.reduce_sum(tf.where(chosen, classes, nothing), axis=-1))
    if kind == "binary":
        return tf.nn.softplus(tf.where(tf.cast(label, tf.bool), -logits, logits))
    return logits * logits / 2


def reason(error: Exception) -> str:
    """Returns an error of TensorFlow as one line."""
    return cause(str(error))[:300]
