"""Reading and writing at places that the graph computes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchfgsm.converters.ops.registry import Build, Built, Function, constant, refuse


def gather_elements(x: Tensor, places: Tensor, *, axis: int) -> Tensor:
    """Returns the entries of ``x`` along an axis; negative places count from the end."""
    return torch.gather(x, axis, _positive(places, x.shape[axis]))


def gather_slices(x: Tensor, places: Tensor, *, batch_axes: int) -> Tensor:
    """Returns the slices of ``x`` at the places (..., K), each of K indices."""
    inside = [axis.reshape(places.shape[:-1]) for axis in places.unbind(-1)]
    for axis in reversed(range(batch_axes)):
        shape = [1] * (places.dim() - 1)
        shape[axis] = x.shape[axis]
        inside.insert(0, torch.arange(x.shape[axis], device=x.device).reshape(shape))
    return x[tuple(inside)]


def scatter_slices(x: Tensor, places: Tensor, updates: Tensor, *, add: bool) -> Tensor:
    """Returns ``x`` with the slices at the places (..., K) replaced by the updates, or added to."""
    return x.index_put(tuple(places.unbind(-1)), updates, accumulate=add)


def scatter_elements(x: Tensor, places: Tensor, updates: Tensor, *, axis: int, add: bool) -> Tensor:
    """Returns ``x`` with the entries along an axis replaced by the updates, or added to."""
    places = _positive(places, x.shape[axis])
    return (torch.scatter_add if add else torch.scatter)(x, axis, places, updates)


def one_hot(places: Tensor, values: Tensor, *, depth: int, axis: int) -> Tensor:
    """Returns values[1] at each place along a new axis, values[0] elsewhere."""
    rank = places.dim() + 1
    shape = [1] * rank
    shape[axis] = depth
    line = torch.arange(depth, device=places.device).reshape(shape)
    places = torch.where(places < 0, places + depth, places).unsqueeze(axis)
    return torch.where(line == places, values[1], values[0])


def _positive(places: Tensor, size: int) -> Tensor:
    return torch.where(places < 0, places + size, places).long()


def _axis(node: Any, default: int = 0) -> int:
    return int(node.attributes.get("axis", default))


def _adds(node: Any) -> bool:
    reduction = node.attributes.get("reduction", "none")
    if reduction not in ("none", "add"):
        refuse(node, f"expected the reduction 'none' or 'add', got {reduction!r}")
    return bool(reduction == "add")


def _gather_elements(node: Any, graph: Any) -> Built:
    return Function(gather_elements, axis=_axis(node)), node.input_values


def _gather_slices(node: Any, graph: Any) -> Built:
    batch_axes = node.attributes.get("batch_dims", 0)
    return Function(gather_slices, batch_axes=batch_axes), node.input_values


def _scatter_slices(node: Any, graph: Any) -> Built:
    return Function(scatter_slices, add=_adds(node)), node.input_values


def _scatter_elements(node: Any, graph: Any) -> Built:
    return Function(scatter_elements, axis=_axis(node), add=_adds(node)), node.input_values


def _one_hot(node: Any, graph: Any) -> Built:
    if node.input_values[1] not in graph.initializers:
        refuse(node, "expected a constant depth; fix it in the model")
    depth = constant(node, graph, 1)
    depth = int(depth[0] if isinstance(depth, list) else depth)
    places, _, values = node.input_values
    return Function(one_hot, depth=depth, axis=_axis(node, -1)), (places, values)


BUILDERS: dict[str, Build] = {
    "GatherElements": _gather_elements,
    "GatherND": _gather_slices,
    "OneHot": _one_hot,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_slices,
}
