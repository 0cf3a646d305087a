"""The same ONNX model in float64, to tell rounding from a fault."""

from __future__ import annotations

import copy
from typing import Any

from torchfgsm.converters import onnx_graph, onnx_subgraphs

# The attributes that name the type of a result.
_TYPES = ("to", "dtype")


def in_float64(model: Any) -> Any:
    """Returns a model with numbers of float64 in the place of those of float32.

    Its constants are those of float32. Not every runtime has every operation in float64.
    """
    wide = copy.deepcopy(model)
    onnx_graph.lift_constant_nodes(wide)
    for graph in onnx_subgraphs.graphs(wide.graph):
        for value in [*graph.input, *graph.output, *graph.value_info]:
            kind = value.type.tensor_type
            kind.elem_type = _widened(kind.elem_type)
        for tensor in graph.initializer:
            _widen(tensor)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    _widen(attribute.t)
                if attribute.name in _TYPES:
                    attribute.i = _widened(attribute.i)
    return wide


def _widened(kind: int) -> int:
    from onnx import TensorProto

    return int(TensorProto.DOUBLE if kind == TensorProto.FLOAT else kind)


def _widen(tensor: Any) -> None:
    from onnx import TensorProto, numpy_helper

    if tensor.data_type == TensorProto.FLOAT:
        array = numpy_helper.to_array(tensor).astype("float64")
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
