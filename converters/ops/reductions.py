"""Sums, extrema and their like over axes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torchfgsm.converters.ops.operation import numbers, operation
from torchfgsm.converters.ops.registry import Build, Built, Function, constant, given, refuse

Reduce = Callable[[Tensor, list[int], bool], Tensor]


class Reduction(nn.Module):
    """A reduction over fixed axes; none means all of them.

    The largest and the least of equal numbers share their gradient equally, as in TensorFlow.
    """

    def __init__(self, operation: str, axes: Sequence[int], keep: bool) -> None:
        super().__init__()
        self.operation, self.axes, self.keep = operation, list(axes), keep

    def forward(self, x: Tensor) -> Tensor:
        """Reduces ``x``."""
        return _REDUCTIONS[self.operation](x, self.axes or list(range(x.dim())), self.keep)

    def extra_repr(self) -> str:
        """Shows the operation and its axes."""
        return f"{self.operation}, axes={self.axes}, keep={self.keep}"


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in axes:
        x = torch.prod(x, axis, keepdim=True)
    return x if keep or not axes else torch.squeeze(x, axes)


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.sum(x, axes, keepdim=keep, dtype=x.dtype)


_REDUCTIONS: dict[str, Reduce] = {
    "ReduceL1": lambda x, axes, keep: _sum(torch.abs(x), axes, keep),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep),
    "ReduceLogSum": lambda x, axes, keep: torch.log(_sum(x, axes, keep)),
    "ReduceLogSumExp": torch.logsumexp,
    "ReduceMax": torch.amax,
    "ReduceMean": lambda x, axes, keep: torch.mean(x, axes, keepdim=keep),
    "ReduceMin": torch.amin,
    "ReduceProd": _product,
    "ReduceSum": _sum,
    "ReduceSumSquare": lambda x, axes, keep: _sum(x * x, axes, keep),
}


def top_k(axis: int, largest: bool, x: Tensor, k: int | Sequence[int]) -> tuple[Tensor, Tensor]:
    """Returns the k largest or least numbers along an axis, and where they are.

    Of equal numbers the first ones are taken, as in TensorFlow, which torch.topk does not promise.
    """
    count = k[0] if isinstance(k, Sequence) else k
    values, places = torch.sort(x, dim=axis, descending=largest, stable=True)
    return values.narrow(axis, 0, count), places.narrow(axis, 0, count)


def place_of_extremum(x: Tensor, *, axis: int, keep: bool, largest: bool, last: bool) -> Tensor:
    """Returns the index of the largest or least number, of equal ones the first or the last."""
    find = torch.argmax if largest else torch.argmin
    if not last:
        return find(x, dim=axis, keepdim=keep)
    return x.shape[axis] - 1 - find(torch.flip(x, [axis]), dim=axis, keepdim=keep)


def cumulative_sum(x: Tensor, *, axis: int, exclusive: bool, reverse: bool) -> Tensor:
    """Returns the sums of all before each entry, from the end on if ``reverse``."""
    x = torch.flip(x, [axis]) if reverse else x
    sums = torch.cumsum(x, axis, dtype=x.dtype)
    sums = sums - x if exclusive else sums
    return torch.flip(sums, [axis]) if reverse else sums


def _reduction(node: Any, graph: Any) -> Built:
    axes = node.attributes.get("axes", [])
    if given(node, 1):
        if node.input_values[1] not in graph.initializers:
            refuse(node, "expected constant axes; fix them in the model")
        axes = constant(node, graph, 1)
    if not axes and node.attributes.get("noop_with_empty_axes"):
        return nn.Identity(), node.input_values[:1]
    keep = bool(node.attributes.get("keepdims", 1))
    return Reduction(node.operation_type, axes, keep), node.input_values[:1]


def _place(node: Any, graph: Any) -> Built:
    a = node.attributes
    settings = {
        "axis": a.get("axis", 0),
        "keep": bool(a.get("keepdims", 1)),
        "largest": node.operation_type == "ArgMax",
        "last": bool(a.get("select_last_index", 0)),
    }
    return Function(place_of_extremum, **settings), node.input_values


def _cumulative_sum(node: Any, graph: Any) -> Built:
    axis = constant(node, graph, 1)
    settings = {name: bool(node.attributes.get(name)) for name in ("exclusive", "reverse")}
    axis = axis[0] if isinstance(axis, list) else axis
    return Function(cumulative_sum, axis=axis, **settings), node.input_values[:1]


def _top_k(node: Any, graph: Any) -> Built:
    a = node.attributes
    function = functools.partial(top_k, a.get("axis", -1), bool(a.get("largest", 1)))
    return operation(function, node.input_values[0], numbers(node, graph, 1, "k"))


BUILDERS: dict[str, Build] = {
    **dict.fromkeys(_REDUCTIONS, _reduction),
    "ArgMax": _place,
    "ArgMin": _place,
    "CumSum": _cumulative_sum,
    "TopK": _top_k,
}
