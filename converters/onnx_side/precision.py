"""The same ONNX model in float64, to tell rounding from a fault."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torchfgsm.converters.onnx_side import graph as onnx_graph
from torchfgsm.converters.onnx_side import subgraphs as onnx_subgraphs

# The attributes that name the type of a result, or in which a normalisation computes.
_TYPES = ("to", "dtype", "output_datatype", "stash_type")
_SMALL_TYPES = {"tensor(float)", "tensor(float16)", "tensor(bfloat16)"}
# What gives float32, or computes in it, where nothing else is said: by which attribute, and the
# opset from which that is so.
_SILENT = {
    "BlackmanWindow": ("output_datatype", 17),
    "GroupNormalization": ("stash_type", 21),
    "HammingWindow": ("output_datatype", 17),
    "HannWindow": ("output_datatype", 17),
    "MelWeightMatrix": ("output_datatype", 17),
    "RMSNormalization": ("stash_type", 23),
}
# Their type of computing stays: the first computes in float64 all the same.
_KEPT = (("LayerNormalization", "stash_type"), ("Range", "stash_type"))


def in_float64(model: Any) -> Any:
    """Returns a model with numbers of float64 in the place of those of float32.

    Its constants are those of float32. Not every runtime has every operation in float64.
    """
    wide = copy.deepcopy(model)
    onnx_graph.lift_constant_nodes(wide)
    opsets = {opset.domain: opset.version for opset in wide.opset_import}
    for graph in onnx_subgraphs.graphs(wide.graph):
        for value in [*graph.input, *graph.output, *graph.value_info]:
            kind = value.type.tensor_type
            kind.elem_type = _widened(kind.elem_type)
        for tensor in graph.initializer:
            _widen(tensor)
        for node in graph.node:
            _widen_attributes(node, opsets.get(node.domain, 0))
        onnx_graph.replace_nodes(graph, [n for node in graph.node for n in _cast(node, opsets)])
    return wide


def _widen_attributes(node: Any, opset: int) -> None:
    from onnx import helper

    for attribute in node.attribute:
        if attribute.HasField("t"):
            _widen(attribute.t)
        if attribute.name in _TYPES and (node.op_type, attribute.name) not in _KEPT:
            attribute.i = _widened(attribute.i)
    given = {attribute.name for attribute in node.attribute}
    name, first = _SILENT.get(node.op_type, ("", 0))
    if name and opset >= first and name not in given:
        node.attribute.append(helper.make_attribute(name, _widened(1)))
    if node.op_type == "ConstantOfShape" and not given:
        zero = helper.make_tensor("value", _widened(1), [1], [0.0])
        node.attribute.append(helper.make_attribute("value", zero))


def _cast(node: Any, opsets: Mapping[str, int]) -> list[Any]:
    """Returns a node with casts around it where it takes or gives float32 alone."""
    from onnx import TensorProto, defs, helper

    version = opsets.get(node.domain, 0)
    schema = defs.get_schema(node.op_type, version, node.domain)
    before: list[Any] = []
    behind: list[Any] = []
    if _is_single(schema.inputs[0]) and _is_single(schema.outputs[0]):
        # Its numbers are what the model computes with: the evaluator takes them in float64 too.
        return [node]
    for i, (name, formal) in enumerate(zip(node.input, schema.inputs, strict=False)):
        if name and _is_single(formal):
            node.input[i] = f"{name}/{node.output[0]}/single"
            before.append(helper.make_node("Cast", [name], [node.input[i]], to=TensorProto.FLOAT))
    for i, (name, formal) in enumerate(zip(node.output, schema.outputs, strict=False)):
        if name and _is_single(formal):
            node.output[i] = f"{name}/single"
            cast = helper.make_node("Cast", [node.output[i]], [name], to=TensorProto.DOUBLE)
            behind.append(cast)
    return [*before, node, *behind]


def _is_single(formal: Any) -> bool:
    """Whether an operation's input or output is float32, or a smaller type, and no other."""
    types = set(formal.types)
    return "tensor(float)" in types and types <= _SMALL_TYPES


def _widened(kind: int) -> int:
    from onnx import TensorProto

    return int(TensorProto.DOUBLE if kind == TensorProto.FLOAT else kind)


def _widen(tensor: Any) -> None:
    from onnx import TensorProto, numpy_helper

    if tensor.data_type == TensorProto.FLOAT:
        array = numpy_helper.to_array(tensor).astype("float64")
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
