"""Small ONNX models for the tests of verification."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from torchfgsm.converters import ConvertedModel
from torchfgsm.converters.onnx_side.inference import infer
from torchfgsm.converters.torch_side.building import build

Value = tuple[str, Any, list[int]]
FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64


def single(values: Any) -> np.ndarray:
    return np.asarray(values, np.float32)


def graph_of(
    nodes: list[Any], constants: dict[str, Any], inputs: list[Value], outputs: list[Value]
) -> Any:
    def values(ports: list[Value]) -> list[Any]:
        return [helper.make_tensor_value_info(n, kind, ["n", *shape]) for n, kind, shape in ports]

    initializers = [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()]
    graph = helper.make_graph(nodes, "graph", values(inputs), values(outputs), initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)


def module_of(graph: Any) -> ConvertedModel:
    return build(graph, infer(graph, "test"))


def dense(weight: Any, bias: Any, tail: list[Any], outputs: list[Value]) -> Any:
    """x @ weight + bias = z, and what follows."""
    weight, bias = single(weight), single(bias)
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["m"]),
        helper.make_node("Add", ["m", "bias"], ["z"]),
        *tail,
    ]
    constants = {"weight": weight, "bias": bias}
    return graph_of(nodes, constants, [("x", FLOAT, [len(weight)])], outputs)
