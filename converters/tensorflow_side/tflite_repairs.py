"""What tf2onnx gets wrong in TFLite models, put right for the time of one conversion."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import tf2onnx
from tf2onnx import optimizer, tfonnx
from tf2onnx.handler import tf_op
from tf2onnx.tflite_handlers import tfl_math, tfl_nn

from .keras_model import UnsupportedModelError, one_line

_DENSE = "TFL_FULLY_CONNECTED"
_MERGE = "merge_duplication"
# TFLite's own: the least length by which a vector is divided.
_LEAST_LENGTH = 1e-6


@contextlib.contextmanager
def applied() -> Iterator[None]:
    """Converts TFLite models with all that is put right here."""
    with _weights_apart(), _own_handlers(), _clipping_activations(), _failures_raised():
        yield


@contextlib.contextmanager
def _weights_apart() -> Iterator[None]:
    """Keeps tf2onnx from making one weight of two that are equal now."""
    steps = optimizer._optimizers
    order = list(steps)
    merge = steps.pop(_MERGE)
    try:
        yield
    finally:
        steps[_MERGE] = merge
        for name in order:
            steps.move_to_end(name)


@contextlib.contextmanager
def _own_handlers() -> Iterator[None]:
    """Adds handlers of operations that tf2onnx does not know, or not in each of their forms."""
    handlers = tf_op.get_opsets()["com.google.tensorflow"][0]
    before = dict(handlers)
    handlers[_DENSE] = (_flattening(before[_DENSE][0]), before[_DENSE][1])
    handlers["TFL_BROADCAST_ARGS"] = (_on_broadcast_args, {})
    handlers["TFL_GELU"] = (_on_gelu, {})
    handlers["TFL_L2_NORMALIZATION"] = (_on_l2_normalization, {})
    try:
        yield
    finally:
        handlers.clear()
        handlers.update(before)


@contextlib.contextmanager
def _clipping_activations() -> Iterator[None]:
    """Converts layers whose activation, a part of their operation, clips to -1 and 1."""
    before = tfl_math.separate_fused_activation_function

    def separate(context: Any, node: Any) -> None:
        if node.get_attr_value("fused_activation_function") != b"RELU_N1_TO_1":
            before(context, node)
            return
        del node.attr["fused_activation_function"]
        output = node.output[0]
        bounds = [_constant(context, -1.0), _constant(context, 1.0)]
        context.insert_node_on_output(_like(context, output, "Clip", output, *bounds), output)

    for module in (tfl_math, tfl_nn):
        module.separate_fused_activation_function = separate
    try:
        yield
    finally:
        for module in (tfl_math, tfl_nn):
            module.separate_fused_activation_function = before


@contextlib.contextmanager
def _failures_raised() -> Iterator[None]:
    """Raises what goes wrong in a handler: tf2onnx goes on with a graph that is not the model's.

    Raises:
        UnsupportedModelError: naming the operation's fault.
    """
    before = tfonnx.tensorflow_onnx_mapping

    def mapping(*arguments: Any, **settings: Any) -> Any:
        result = before(*arguments, **settings)
        for error in result[2]:
            raise UnsupportedModelError(
                f"an operation of the TFLite model could not be converted: {one_line(error)}"
            ) from error
        return result

    tfonnx.tensorflow_onnx_mapping = mapping
    try:
        yield
    finally:
        tfonnx.tensorflow_onnx_mapping = before


def _flattening(convert: Any) -> Any:
    """Keeps the bias of a dense layer whose input is an image: tf2onnx flattens it and drops it."""

    def flatten_first(context: Any, node: Any, **keywords: Any) -> None:
        image, weight = node.input[:2]
        if node.attr["keep_num_dims"].i == 0 and context.get_rank(image) != 2:
            shape = np.array([-1, context.get_shape(weight)[1]], np.int64)
            target = context.make_const(tf2onnx.utils.make_name("flat"), shape).output[0]
            flat = context.make_node("Reshape", [image, target], shapes=[shape.tolist()])
            flat.skip_conversion = True
            context.replace_inputs(node, [flat.output[0], *node.input[1:]])
        convert(context, node, **keywords)

    return flatten_first


def _on_broadcast_args(context: Any, node: Any, **_: Any) -> None:
    """The shape to which two shapes broadcast."""
    ranks = [context.get_shape(name)[0] for name in node.input]
    dtype = tf2onnx.utils.map_onnx_to_numpy_type(context.get_dtype(node.output[0]))
    shapes = []
    for name, rank in zip(node.input, ranks, strict=True):
        if rank < max(ranks):
            ones = _constant(context, np.ones(max(ranks) - rank, dtype))
            name = context.make_node("Concat", [ones, name], {"axis": 0}).output[0]
        shapes.append(name)
    is_one = context.make_node("Equal", [shapes[0], _constant(context, dtype(1))]).output[0]
    _become(context, node, "Where", is_one, shapes[1], shapes[0])


def _on_gelu(context: Any, node: Any, **_: Any) -> None:
    """Half of x (1 + erf(x / sqrt(2))), or of x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""
    x = node.input[0]

    def made(kind: str, *inputs: Any) -> str:
        return str(_like(context, x, kind, *inputs).output[0])

    if node.get_attr_value("approximate"):
        cube = made("Mul", made("Mul", x, x), made("Mul", x, 0.044715))
        step = made("Tanh", made("Mul", made("Add", x, cube), math.sqrt(2 / math.pi)))
    else:
        step = made("Erf", made("Mul", x, math.sqrt(0.5)))
    half = made("Mul", x, 0.5)
    _become(context, node, "Mul", half, made("Add", step, 1.0))


def _on_l2_normalization(context: Any, node: Any, **_: Any) -> None:
    """Divides x by its length, or by the least length that TFLite knows: ONNX's has no such."""
    x = node.input[0]
    square = _like(context, x, "Mul", x, x).output[0]
    last = _constant(context, np.array([-1], np.int64))
    total = context.make_node("ReduceSum", [square, last], {"keepdims": 1}).output[0]
    # A maximum of squares: the derivative of the square root at 0 is not finite.
    bounded = context.make_node("Max", [total, _constant(context, _LEAST_LENGTH**2)]).output[0]
    _become(context, node, "Div", x, context.make_node("Sqrt", [bounded]).output[0])


def _constant(context: Any, value: Any) -> str:
    array = np.array(value, np.float32) if isinstance(value, float) else np.asarray(value)
    return str(context.make_const(tf2onnx.utils.make_name("constant"), array).output[0])


def _like(context: Any, name: str, kind: str, *inputs: Any) -> Any:
    """Adds an ONNX node whose result is of a value's shape and type; inputs may be numbers."""
    names = [_constant(context, x) if isinstance(x, float) else x for x in inputs]
    shapes, dtypes = [context.get_shape(name)], [context.get_dtype(name)]
    return context.make_node(kind, names, shapes=shapes, dtypes=dtypes)


def _become(context: Any, node: Any, kind: str, *inputs: str) -> None:
    """Puts an ONNX node in the place of one of TFLite's."""
    output, name = node.output[0], node.name
    shapes, dtypes = [context.get_shape(output)], [context.get_dtype(output)]
    context.remove_node(name)
    context.make_node(kind, list(inputs), outputs=[output], name=name, shapes=shapes, dtypes=dtypes)
