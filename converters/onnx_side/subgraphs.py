"""Graphs inside a graph: the bodies of loops and branches, which use the values around them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def bodies(node: Any) -> list[Any]:
    """Returns the graphs that a node holds."""
    from onnx import AttributeProto

    single = [a.g for a in node.attribute if a.type == AttributeProto.GRAPH]
    several = [g for a in node.attribute if a.type == AttributeProto.GRAPHS for g in a.graphs]
    return single + several


def graphs(graph: Any) -> Iterator[Any]:
    """Yields a graph and all graphs inside it."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from graphs(body)


def free(graph: Any) -> list[str]:
    """Returns the values that a graph takes from the one around it, in the order of their use."""
    defined = {value.name for value in [*graph.input, *graph.initializer]}
    used: dict[str, None] = {}
    for node in graph.node:
        for name in uses(node):
            if name not in defined:
                used[name] = None
        defined.update(node.output)
    used.update(dict.fromkeys(o.name for o in graph.output if o.name not in defined))
    return [name for name in used if name]


def uses(node: Any) -> list[str]:
    """Returns the values that a node depends on: its inputs and what its graphs capture."""
    return [*node.input, *(name for body in bodies(node) for name in free(body))]
