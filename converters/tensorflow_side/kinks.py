"""Handlers for tf2onnx of operations whose gradient or precision its own would lose.

ONNX has one Clip for operations of TensorFlow that differentiate differently. Its node's
doc_string then holds JSON that names the one: {"kink": "ClipByValue"}.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import tf2onnx


def _on_clip_by_value(context: Any, node: Any, name: str, _: Any) -> None:
    """Its gradient at the bounds is 1, that of relu6, which becomes a Clip, too, is 0."""
    node.type = "Clip"
    node.op.doc_string = json.dumps({"kink": "ClipByValue"})


def _on_stop_gradient(context: Any, node: Any, name: str, _: Any) -> None:
    """A Clip without bounds is an identity that no optimiser removes."""
    node.type = "Identity"
    if tf2onnx.utils.map_onnx_to_numpy_type(context.get_dtype(node.output[0])) in _FLOATS:
        node.type = "Clip"
        node.op.doc_string = json.dumps({"kink": "StopGradient"})


def _on_div_no_nan(context: Any, node: Any, name: str, _: Any) -> None:
    """Divides by 1 where the divisor is 0, so that the gradient there is 0, too, and not NaN."""
    x, y = node.input
    zero, one = _number(context, node, 0), _number(context, node, 1)
    shape, dtype = [context.get_shape(y)], [context.get_dtype(y)]
    is_zero = context.make_node("Equal", [y, zero]).output[0]
    safe = context.make_node("Where", [is_zero, one, y], shapes=shape, dtypes=dtype).output[0]
    quotient = context.make_node("Div", [x, safe], dtypes=dtype).output[0]
    _become(context, node, "Where", [is_zero, zero, quotient])


def _on_expm1(context: Any, node: Any, name: str, _: Any) -> None:
    output = node.output[0]
    shape, dtype = [context.get_shape(output)], [context.get_dtype(output)]
    power = context.make_node("Exp", list(node.input), shapes=shape, dtypes=dtype).output[0]
    _become(context, node, "Sub", [power, _number(context, node, 1)])


def _on_log1p(context: Any, node: Any, name: str, _: Any) -> None:
    output = node.output[0]
    shape, dtype = [context.get_shape(output)], [context.get_dtype(output)]
    one = _number(context, node, 1)
    more = context.make_node("Add", [node.input[0], one], shapes=shape, dtypes=dtype).output[0]
    _become(context, node, "Log", [more])


def _on_log(context: Any, node: Any, name: str, _: Any) -> None:
    """Stays as it is: tf2onnx would compute the logarithm of a float64 in float32."""


_FLOATS = (np.float16, np.float32, np.float64)

HANDLERS: dict[str, tuple[Any, list[Any]]] = {
    "ClipByValue": (_on_clip_by_value, []),
    "DivNoNan": (_on_div_no_nan, []),
    "Expm1": (_on_expm1, []),
    "Log": (_on_log, []),
    "Log1p": (_on_log1p, []),
    "StopGradient": (_on_stop_gradient, []),
}


def _number(context: Any, node: Any, value: float) -> Any:
    dtype = tf2onnx.utils.map_onnx_to_numpy_type(context.get_dtype(node.output[0]))
    name = tf2onnx.utils.make_name(f"{node.name}_{value}")
    return context.make_const(name, np.array(value, dtype)).output[0]


def _become(context: Any, node: Any, kind: str, inputs: list[str]) -> None:
    """Puts an ONNX node in the place of one of TensorFlow's."""
    outputs, name = list(node.output), node.name
    shapes, dtypes = [context.get_shape(outputs[0])], [context.get_dtype(outputs[0])]
    context.remove_node(name)
    context.make_node(kind, inputs, outputs=outputs, name=name, shapes=shapes, dtypes=dtypes)
