"""Computes at once what whole constants determine, such as the bounds of a slice."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torchfgsm.converters.annotation import Array
from torchfgsm.converters.onnx_side import subgraphs as onnx_subgraphs
from torchfgsm.converters.onnx_side.graph import replace_nodes

_FOLDED = frozenset(
    ("Add", "Cast", "Concat", "ConstantOfShape", "Gather", "Mul", "Reshape", "Shape", "Slice",
     "Squeeze", "Sub", "Transpose", "Unsqueeze")
)  # fmt: skip


def fold_whole_numbers(model: Any, weights: Collection[str]) -> None:
    """Replaces operations on constants of whole numbers by their results, in every graph.

    Args:
        model: the ONNX model; changed in place.
        weights: initializers that stay what they are.
    """
    _fold(model.graph, {}, weights, model.opset_import)


def _fold(graph: Any, outer: Mapping[str, Array], weights: Collection[str], opsets: Any) -> None:
    from onnx import numpy_helper

    # A body's own names hide those of the graph around it.
    own = {value.name for value in graph.input} | {n for x in graph.node for n in x.output}
    known = {name: array for name, array in outer.items() if name not in own}
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        known.pop(tensor.name, None)
        if array.dtype.kind == "i" and tensor.name not in weights:
            known[tensor.name] = array
    kept = []
    for node in graph.node:
        for body in onnx_subgraphs.bodies(node):
            _fold(body, known, weights, opsets)
        names = [name for name in node.input if name]
        if node.op_type in _FOLDED and names and all(name in known for name in names):
            (result,) = _run(node, {n: known[n] for n in names}, opsets)
            if result.dtype.kind == "i":
                known[node.output[0]] = result
                graph.initializer.append(numpy_helper.from_array(result, node.output[0]))
                continue
        kept.append(node)
    replace_nodes(graph, kept)


def _run(node: Any, feed: dict[str, Any], opsets: Any) -> Any:
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in feed.items()
    ]
    output = helper.make_empty_tensor_value_info(node.output[0])
    graph = helper.make_graph([node], "constants", inputs, [output])
    return ReferenceEvaluator(helper.make_model(graph, opset_imports=opsets)).run(None, feed)
