"""What an ONNX graph tells about the inputs worth a comparison: kinks, table sizes, pixels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from torchfgsm.converters.annotation import Array
from torchfgsm.converters.onnx_side import graph as onnx_graph

_SWITCHES = {
    "Clip", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min",
}  # fmt: skip
_VIEWS = {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
# Keras 3 lets negative indices count from the end of the table.
_INDEX_STEPS = _VIEWS | {"Add", "Clip", "Max", "Min", "Where"}
_PIXEL_SCALE = 50.0
_PIXEL_OFFSET = 16.0
_MOST_KINKS = 16
_LARGEST_KINK = 1e4


@dataclass(frozen=True)
class Hints:
    """What is known of good inputs.

    Attributes:
        kinks: values at which an operation of the graph has a kink.
        limits: for inputs that are indices, by ONNX value, the size of the smallest table.
        pixels: ONNX values of the inputs that expect numbers of 0 to 255.
    """

    kinks: tuple[float, ...] = ()
    limits: Mapping[str, int] = field(default_factory=dict)
    pixels: frozenset[str] = frozenset()


def hints_of(graph: Any) -> Hints:
    """Reads an ONNX model; weights may be initializers, constants must be."""
    constants = onnx_graph.constants(graph)
    inputs = [value.name for value in graph.graph.input]
    kinks = sorted({k for k in _kinks(graph, constants) if abs(k) <= _LARGEST_KINK})
    limits = {name: _limits(graph, name, constants) for name in inputs}
    return Hints(
        tuple(kinks[:_MOST_KINKS]),
        {name: min(found) for name, found in limits.items() if found},
        frozenset(name for name in inputs if _takes_pixels(graph, name, constants)),
    )


def _kinks(graph: Any, constants: Mapping[str, Array]) -> Iterator[float]:
    for node in graph.graph.node:
        attributes = {a.name: a.f for a in node.attribute}
        if node.op_type in _SWITCHES:
            found = [constants[name] for name in node.input if name in constants]
            yield from (float(a.item()) for a in found if a.size == 1 and a.dtype.kind == "f")
        if node.op_type == "Clip":
            yield from (attributes[key] for key in ("min", "max") if key in attributes)
        if node.op_type == "ThresholdedRelu":
            yield attributes.get("alpha", 1.0)
        if node.op_type == "Shrink":
            yield from (side * attributes.get("lambd", 0.5) for side in (-1, 1))
        if node.op_type == "HardSigmoid":
            slope, offset = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
            yield from (-offset / slope, (1 - offset) / slope)


def _limits(graph: Any, name: str, constants: Mapping[str, Array]) -> list[int]:
    """Returns the sizes of the tables that an input is an index of."""
    indices, found = {name}, []
    for node in graph.graph.node:
        names = list(node.input)
        if node.op_type == "Gather" and names[1] in indices and names[0] in constants:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            found.append(constants[names[0]].shape[axis])
        elif node.op_type == "OneHot" and names[0] in indices and names[1] in constants:
            found.append(int(constants[names[1]].item()))
        elif node.op_type in _INDEX_STEPS and indices.intersection(names):
            indices.update(node.output)
    return found


def _takes_pixels(graph: Any, name: str, constants: Mapping[str, Array]) -> bool:
    """Whether the first thing that happens to an input is to be divided by about 255."""
    values = {name}
    for node in graph.graph.node:
        if not values.intersection(node.input):
            continue
        if node.op_type in _VIEWS:
            values.update(node.output)
        known = [constants[n] for n in node.input if n in constants]
        sizes = [np.abs(array).max() for array in known if array.size and array.dtype.kind == "f"]
        if not sizes:
            continue
        scaled = node.op_type == "Mul" and sizes[0] <= 1 / _PIXEL_SCALE
        divided = node.op_type == "Div" and sizes[0] >= _PIXEL_SCALE
        shifted = node.op_type in ("Add", "Sub") and sizes[0] >= _PIXEL_OFFSET
        if scaled or divided or shifted:
            return True
    return False
