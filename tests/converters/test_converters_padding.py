"""Padding by amounts that the graph computes, as PyTorch exports it, against ONNX's evaluator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("onnx")
pytest.importorskip("onnx2torch")

from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_models import FLOAT, INT, graph_of, module_of

node = helper.make_node
SIDES = [
    node("ConstantOfShape", ["rest"], ["none"], value=numpy_helper.from_array(np.zeros(1, int))),
    node("Concat", ["last", "none"], ["four"], axis=0),
    node("Reshape", ["four", "pairs"], ["rows"]),
    node("Slice", ["rows", "minus", "begin", "first", "minus"], ["reversed"]),
    node("Transpose", ["reversed"], ["columns"], perm=[1, 0]),
    node("Reshape", ["columns", "minus"], ["flat"]),
    node("Cast", ["flat"], ["pads"], to=INT),
]
"""The amounts of the last axis, such as (1, 2), become those of all axes in ONNX's order."""
CONSTANTS = {
    "rest": np.array([2]), "pairs": np.array([-1, 2]), "minus": np.array([-1]),
    "begin": np.array([-(2**63) + 1]), "first": np.array([0]),
}  # fmt: skip
MODES = ["constant", "reflect", "edge"]


def agrees(graph: Any, **inputs: np.ndarray) -> torch.nn.Module:
    module = module_of(graph)
    (expected,) = ReferenceEvaluator(graph).run(None, inputs)
    actual = module(*(torch.from_numpy(array) for array in inputs.values()))
    np.testing.assert_array_equal(actual.numpy(), expected)
    return module


@pytest.mark.parametrize("mode", MODES)
def test_amounts_made_of_constants_are_known_at_conversion(mode: str) -> None:
    """Those in a branch, too: nothing is waited for, and torch.compile sees one graph."""
    x = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    pad = node("Pad", ["x", "pads"], ["padded"], mode=mode)
    constants = {**CONSTANTS, "last": np.array([1, 2]), "yes": np.array(True)}
    ends = [helper.make_tensor_value_info(name, FLOAT, None) for name in ("padded", "x2")]
    branches = {
        "then_branch": helper.make_graph([*SIDES, pad], "then", [], ends[:1]),
        "else_branch": helper.make_graph([node("Identity", ["x"], ["x2"])], "else", [], ends[1:]),
    }
    graphs = [
        graph_of([*SIDES, pad], constants, [("x", FLOAT, [5])], [("padded", FLOAT, [8])]),
        graph_of([node("If", ["yes"], ["y"], **branches)], constants, [("x", FLOAT, [5])],
                 [("y", FLOAT, [8])]),
    ]  # fmt: skip
    straight, branched = [agrees(graph, x=x) for graph in graphs]
    compiled: Any = torch.compile(straight, fullgraph=True, backend="eager")
    assert torch.equal(compiled(torch.from_numpy(x)), branched(torch.from_numpy(x)))


@pytest.mark.parametrize("mode", MODES)
def test_amounts_computed_from_an_input_are_read_at_each_call(mode: str) -> None:
    pad = node("Pad", ["x", "pads"], ["y"], mode=mode)
    sums = [node("ReduceMax", ["k"], ["last"], axes=[0], keepdims=0)]
    inputs = [("x", FLOAT, [5]), ("k", INT, [2])]
    graph = graph_of([*sums, *SIDES, pad], CONSTANTS, inputs, [("y", FLOAT, [8])])
    x = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    for k in ([[0, 0], [1, 2]], [[3, 0], [1, 0]]):
        agrees(graph, x=x, k=np.array(k))
