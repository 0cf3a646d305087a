"""Finds the weights of an ONNX model that came without an annotation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torchfgsm.converters.annotation import Annotation, Port, Weight
from torchfgsm.converters.onnx_side import graph as onnx_graph
from torchfgsm.converters.onnx_side import subgraphs as onnx_subgraphs

# The inputs of an operation at which a constant is a weight.
_PLACES = {
    "BatchNormalization": (1, 2),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "GRU": (1, 2, 3),
    "Gather": (0,),
    "Gemm": (0, 1, 2),
    "LSTM": (1, 2, 3, 7),
    "LayerNormalization": (1, 2),
    "MatMul": (0, 1),
    "PRelu": (1,),
    "RNN": (1, 2, 3),
}
_STATISTICS = (3, 4)
# A weight is followed through these.
_LAYOUTS = ("Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")


def infer(model: Any, source: str) -> Annotation:
    """Returns an annotation that takes the constants of Conv, Gemm and their like as weights."""
    values = {n: v for n, v in onnx_graph.constants(model).items() if v.dtype.kind == "f"}
    statistics: set[str] = set()
    trainable: set[str] = set()
    settings: dict[str, dict[str, Any]] = {}
    for node, inputs, is_bias in _nodes(model.graph, {}, set()):
        places = range(len(inputs)) if is_bias else _PLACES.get(node.op_type, ())
        found = [inputs[i] for i in places if i < len(inputs)]
        # What is added and has more dimensions is a mask rather than a bias.
        trainable.update(n for n in found if not is_bias or (n in values and values[n].ndim <= 2))
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
    ports = [value for value in model.graph.input if value.name not in initializers]
    return Annotation(
        source=source,
        inputs=tuple(
            Port(v.name, v.name, *onnx_graph.type_of(v), scalar=onnx_graph.is_scalar(v))
            for v in ports
        ),
        outputs=tuple(Port(v.name, v.name, *onnx_graph.type_of(v)) for v in model.graph.output),
        structure="single" if len(model.graph.output) == 1 else "list",
        weights=tuple(weights),
    )


def _nodes(
    graph: Any, outer: Mapping[str, str], products: set[str]
) -> Iterator[tuple[Any, list[str], bool]]:
    """Yields each node, also of inner graphs, its inputs, and whether it adds to a product.

    An input that is a part of a constant, a constant in another layout or one that a loop hands to
    its body is given by the constant's name.

    Args:
        graph: the GraphProto.
        outer: what its values are called around it.
        products: the matrix products around it.
    """
    names, products = dict(outer), set(products)
    for node in graph.node:
        inputs = [names.get(name, name) for name in node.input]
        is_bias = node.op_type == "Add" and not products.isdisjoint(node.input)
        if is_bias or node.op_type == "MatMul":
            products.update(node.output)
        yield node, inputs, is_bias
        if node.op_type in _LAYOUTS:
            names.update(dict.fromkeys(node.output, inputs[0]))
        for body in onnx_subgraphs.bodies(node):
            handed = zip(body.input[2:], inputs[2:], strict=False) if node.op_type == "Loop" else ()
            inner = {**names, **{value.name: name for value, name in handed}}
            yield from _nodes(body, inner, products)
