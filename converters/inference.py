"""Finds the weights of an ONNX model that came without an annotation."""

from __future__ import annotations

from typing import Any

from torchfgsm.converters import onnx_graph
from torchfgsm.converters.annotation import Annotation, Port, Weight

# The inputs of an operation at which a constant is a weight.
_PLACES = {
    "BatchNormalization": (1, 2),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (0, 1, 2),
    "MatMul": (0, 1),
    "PRelu": (1,),
}
_STATISTICS = (3, 4)


def infer(model: Any, source: str) -> Annotation:
    """Returns an annotation that takes the constants of Conv, Gemm and their like as weights."""
    values = {n: v for n, v in onnx_graph.constants(model).items() if v.dtype.kind == "f"}
    made_by = onnx_graph.producers(model)
    statistics: set[str] = set()
    trainable: set[str] = set()
    settings: dict[str, dict[str, Any]] = {}
    for node in model.graph.node:
        inputs = list(node.input)
        trainable.update(inputs[i] for i in _PLACES.get(node.op_type, ()) if i < len(inputs))
        if node.op_type == "Add":  # the bias of a dense layer
            before = [made_by[name].op_type for name in inputs if name in made_by]
            trainable.update(inputs if "MatMul" in before else [])
        if node.op_type == "BatchNormalization":
            statistics.update(inputs[i] for i in _STATISTICS)
            momentum = next((a.f for a in node.attribute if a.name == "momentum"), 0.9)
            settings[inputs[3]] = {"momentum": momentum, "unbiased": False, "frozen": False}
    weights = [
        Weight(
            name=name,
            tensor=name,
            shape=value.shape,
            trainable=name not in statistics,
            statistic=name in statistics,
            batch_norm=settings.get(name),
        )
        for name, value in values.items()
        if name in trainable | statistics and value.ndim
    ]
    initializers = onnx_graph.constants(model)
    inputs = [value for value in model.graph.input if value.name not in initializers]
    return Annotation(
        source=source,
        inputs=tuple(Port(v.name, v.name, *onnx_graph.type_of(v)) for v in inputs),
        outputs=tuple(Port(v.name, v.name, *onnx_graph.type_of(v)) for v in model.graph.output),
        structure="single" if len(model.graph.output) == 1 else "list",
        weights=tuple(weights),
    )
