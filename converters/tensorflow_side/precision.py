"""The same TensorFlow graph in float64, to tell rounding from a fault."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import tensorflow as tf

_FLOAT, _DOUBLE = tf.float32.as_datatype_enum, tf.float64.as_datatype_enum


def in_float64(graph: Any) -> Any:
    """Returns a graph definition with numbers of float64 in the place of those of float32.

    Its constants are those of float32. TensorFlow refuses to import or to run it where an operation
    knows no float64.
    """
    wide = tf.compat.v1.GraphDef()
    wide.CopyFrom(graph)
    del wide.node[:]
    for node in graph.node:
        wide.node.extend(_batch_norm(node) if _can_be_plain(node) else [node])
    inside = [node for function in wide.library.function for node in function.node_def]
    for node in [*wide.node, *inside]:
        for attribute in node.attr.values():
            _widen(attribute)
    for function in wide.library.function:
        for argument in [*function.signature.input_arg, *function.signature.output_arg]:
            argument.type = _widened(argument.type)
    return wide


def _can_be_plain(node: Any) -> bool:
    """Whether a node is a batch normalization in inference whose channels are last."""
    if not re.fullmatch(r"FusedBatchNorm(V2|V3)?", node.op):
        return False
    return node.attr["data_format"].s.endswith(b"C") and not node.attr["is_training"].b


def _batch_norm(node: Any) -> list[Any]:
    """Returns a batch normalization as operations that know float64."""
    x, scale, offset, mean, variance = node.input[:5]
    made = []

    def add(operation: str, name: str, *inputs: str) -> str:
        made.append(tf.compat.v1.NodeDef(op=operation, name=name, input=inputs))
        made[-1].attr["T"].type = _DOUBLE
        return name

    epsilon = tf.compat.v1.NodeDef(op="Const", name=f"{node.name}/float64/epsilon")
    epsilon.attr["dtype"].type = _DOUBLE
    value = np.float64(node.attr["epsilon"].f)
    epsilon.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    spread = add("AddV2", f"{node.name}/float64/spread", variance, epsilon.name)
    inverse = add("Rsqrt", f"{node.name}/float64/inverse", spread)
    factor = add("Mul", f"{node.name}/float64/factor", inverse, scale)
    scaled = add("Mul", f"{node.name}/float64/scaled", x, factor)
    center = add("Mul", f"{node.name}/float64/center", mean, factor)
    shift = add("Sub", f"{node.name}/float64/shift", offset, center)
    add("AddV2", node.name, scaled, shift)
    return [epsilon, *made]


def _widen(attribute: Any) -> None:
    kind = attribute.WhichOneof("value")
    if kind == "type":
        attribute.type = _widened(attribute.type)
    elif kind == "list" and attribute.list.type:
        attribute.list.type[:] = [_widened(each) for each in attribute.list.type]
    elif kind == "tensor" and attribute.tensor.dtype == _FLOAT:
        array = tf.make_ndarray(attribute.tensor).astype(np.float64)
        attribute.tensor.CopyFrom(tf.make_tensor_proto(array))


def _widened(kind: int) -> int:
    return int(_DOUBLE if kind == _FLOAT else kind)
