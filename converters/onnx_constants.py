"""Computes at once what whole constants determine, such as the bounds of a slice."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torchfgsm.converters.onnx_graph import constants, replace_nodes, set_constant

_FOLDED = frozenset(
    ("Add", "Cast", "Concat", "Gather", "Mul", "Reshape", "Slice", "Squeeze", "Sub", "Unsqueeze")
)


def fold_whole_numbers(model: Any, weights: Collection[str]) -> None:
    """Replaces operations on constants of whole numbers by their results.

    Args:
        model: the ONNX model; changed in place.
        weights: initializers that stay what they are.
    """
    known = {
        name: array
        for name, array in constants(model).items()
        if array.dtype.kind == "i" and name not in weights
    }
    for node in model.graph.node:
        names = [name for name in node.input if name]
        if node.op_type not in _FOLDED or not names or any(n not in known for n in names):
            continue
        (result,) = _run(node, {n: known[n] for n in names}, model.opset_import)
        if result.dtype.kind == "i":
            known[node.output[0]] = result
            set_constant(model, node.output[0], result)
    made = {tensor.name for tensor in model.graph.initializer}
    kept = [node for node in model.graph.node if not made.intersection(node.output)]
    replace_nodes(model.graph, kept)


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
