"""Padding with a value, the reflection or the edge, by amounts that are Python numbers.

Amounts that are computed on the device become such numbers at each call, which waits for them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfgsm.converters.ops.convolution import torch_padding
from torchfgsm.converters.ops.operation import argument, numbers, operation
from torchfgsm.converters.ops.registry import Build, NotHere

Numbers = Sequence[int] | Tensor


def _pad(x: Tensor, pads: Numbers, value: Any, axes: Numbers | None) -> Tensor:
    # A tensor of one number fills what stays open of the zeros.
    if isinstance(value, Tensor):
        inside = F.pad(torch.ones_like(x, dtype=torch.bool), _padding(x, pads, axes))
        return torch.where(inside, _pad(x, pads, 0.0, axes), value.reshape(()))
    return F.pad(x, _padding(x, pads, axes), value=value)


def _padding(x: Tensor, pads: Numbers, axes: Numbers | None) -> list[int]:
    begins, ends = [0] * x.dim(), [0] * x.dim()
    for axis, before, after in _sides(x, pads, axes):
        begins[axis], ends[axis] = before, after
    return torch_padding(begins + ends)


def _mirror(edge: bool, x: Tensor, pads: Numbers, axes: Numbers | None) -> Tensor:
    """Pads with the reflection or with the edge, in any number of dimensions."""
    for axis, before, after in _sides(x, pads, axes):
        size = x.shape[axis]
        cut = x.narrow(axis, max(-before, 0), size - max(-before, 0) - max(-after, 0))
        parts = [cut]
        if before > 0:
            parts.insert(0, _border(edge, cut, axis, 0 if edge else 1, before))
        if after > 0:
            last = cut.shape[axis] - 1
            parts.append(_border(edge, cut, axis, last if edge else last - after, after))
        x = torch.cat(parts, axis) if len(parts) > 1 else cut
    return x


def _border(edge: bool, x: Tensor, axis: int, start: int, count: int) -> Tensor:
    if not edge:
        return x.narrow(axis, start, count).flip(axis)
    sizes = list(x.shape)
    sizes[axis] = count
    return x.narrow(axis, start, 1).expand(sizes)


def _sides(x: Tensor, pads: Numbers, axes: Numbers | None) -> list[tuple[int, int, int]]:
    sizes = _numbers(pads)
    places = range(x.dim()) if axes is None else [axis % x.dim() for axis in _numbers(axes)]
    half = len(sizes) // 2
    return list(zip(places, sizes[:half], sizes[half:], strict=True))


def _numbers(values: Numbers) -> Sequence[int]:
    return values.tolist() if isinstance(values, Tensor) else values


def _build_pad(node: Any, graph: Any) -> tuple[nn.Module, tuple[str, ...]]:
    names, mode = node.input_values, node.attributes.get("mode", "constant")
    pads, axes = _amounts(node, graph, 1, "pads"), _amounts(node, graph, 3)
    if mode in ("reflect", "edge"):
        return operation(functools.partial(_mirror, mode == "edge"), names[0], pads, axes)
    if mode != "constant":
        raise NotHere
    value = argument(node, graph, 2)
    if value is None:
        value = names[2] if len(names) > 2 and names[2] else node.attributes.get("value", 0.0)
    value = value[0] if isinstance(value, list) else value
    return operation(_pad, names[0], pads, value, axes)


def _amounts(node: Any, graph: Any, index: int, attribute: str = "") -> Any:
    try:
        return numbers(node, graph, index, attribute)
    except NotHere:
        return node.input_values[index]


BUILDERS: dict[str, Build] = {"Pad": _build_pad}
