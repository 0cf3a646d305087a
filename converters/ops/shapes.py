"""Operations on shapes and layouts, whose sizes are Python numbers: no copy to the host."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchfgsm.converters.ops.operation import Host, argument, numbers, operation
from torchfgsm.converters.ops.registry import Build

Built = tuple[nn.Module, tuple[str, ...]]


class Filled(nn.Module):
    """A tensor of one value; float32 follows the module's own dtype."""

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value.reshape(()).clone(), persistent=False)

    def forward(self, shape: Sequence[int]) -> Tensor:
        """Returns the value in ``shape``."""
        return self.value.expand(list(shape))


class Arange(nn.Module):
    """The numbers from start to limit in steps, on the module's device."""

    like: Tensor

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("like", torch.zeros((), dtype=dtype), persistent=False)

    def forward(self, start: int, limit: int, step: int) -> Tensor:
        """Returns a tensor of rank 1."""
        return torch.arange(start, limit, step, dtype=self.like.dtype, device=self.like.device)


class Float(nn.Module):
    """Casts to float32, or to what the module itself was cast to."""

    like: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``x`` in the dtype."""
        return x.to(self.like.dtype)


def _reshape(keep: bool, x: Tensor, shape: Sequence[int]) -> Tensor:
    # 0 keeps a dimension; a symbolic size is never one, and comparing would fix it.
    kept = [x.shape[i] if keep and type(n) is int and n == 0 else n for i, n in enumerate(shape)]
    return x.reshape(kept)


def _expand(x: Tensor, shape: Sequence[int]) -> Tensor:
    rank = max(x.dim(), len(shape))
    sizes = [1] * (rank - x.dim()) + list(x.shape)
    wanted = [1] * (rank - len(shape)) + list(shape)
    return x.expand([n if size == 1 else size for size, n in zip(sizes, wanted, strict=True)])


def _tile(x: Tensor, repeats: Sequence[int]) -> Tensor:
    return x.repeat(list(repeats))


def _slice(x: Tensor, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Tensor:
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step > 0:
            x = x[(slice(None),) * (axis % x.dim()) + (slice(start, end, step),)]
        else:
            x = _backwards(x, axis, slice(start, end, step))
    return x


def _backwards(x: Tensor, axis: int, part: slice) -> Tensor:
    places = range(x.shape[axis])[part]
    if not places:
        return x.narrow(axis, 0, 0)
    kept = x.narrow(axis, places[-1], places[0] - places[-1] + 1).flip(axis)
    return kept[(slice(None),) * (axis % x.dim()) + (slice(None, None, -places.step),)]


def _select(axis: int, x: Tensor, index: int) -> Tensor:
    return x.select(axis, index)


def _gather(axis: int, x: Tensor, indices: Tensor) -> Tensor:
    axis, indices = axis % x.dim(), indices.long()
    # Negative ones count from the end.
    flat = torch.where(indices < 0, indices + x.shape[axis], indices).reshape(-1)
    taken = x.index_select(axis, flat)
    return taken.reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


def _concat(axis: int, *tensors: Tensor) -> Tensor:
    return torch.cat(tensors, axis)


def _squeeze(x: Tensor, axes: Sequence[int] | None) -> Tensor:
    return torch.squeeze(x) if axes is None else torch.squeeze(x, tuple(axes))


def _unsqueeze(x: Tensor, axes: Sequence[int]) -> Tensor:
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _split(count: int, axis: int, x: Tensor, sizes: Sequence[int] | None) -> Any:
    length = -(-x.shape[axis] // count)
    parts = torch.split(x, length if sizes is None else list(sizes), axis)
    return parts if count > 1 else parts[0]


def _flatten(axis: int, x: Tensor) -> Tensor:
    axis = axis + x.dim() if axis < 0 else axis
    return x.reshape([math.prod(x.shape[:axis]), math.prod(x.shape[axis:])])


def _transpose(permutation: Sequence[int] | None, x: Tensor) -> Tensor:
    return x.permute(list(permutation or reversed(range(x.dim()))))


def _reverse(time: int, x: Tensor, length: Any) -> Tensor:
    count = length[0] if isinstance(length, list) else length
    turned = x.narrow(time, 0, count).flip(time)
    rest = x.narrow(time, count, x.shape[time] - count)
    return torch.cat([turned, rest], time)


def _reverse_each(time: int, batch: int, x: Tensor, lengths: Tensor) -> Tensor:
    places = torch.arange(x.shape[time], device=x.device)
    ends = lengths.to(places.dtype)[:, None]
    places = torch.where(places < ends, ends - 1 - places, places)
    order = places if batch < time else places.T
    shape = [n if d in (batch, time) else 1 for d, n in enumerate(x.shape)]
    return torch.gather(x, time, order.reshape(shape).expand(x.shape))


def _build_reshape(node: Any, graph: Any) -> Built:
    function = functools.partial(_reshape, not node.attributes.get("allowzero"))
    return operation(function, node.input_values[0], numbers(node, graph, 1, "shape"))


def _build_slice(node: Any, graph: Any) -> Built:
    names = ("starts", "ends", "axes", "steps")
    parts = [numbers(node, graph, i + 1, name) for i, name in enumerate(names)]
    return operation(_slice, node.input_values[0], *parts)


def _build_gather(node: Any, graph: Any) -> Built:
    x, indices = node.input_values
    axis = node.attributes.get("axis", 0)
    index = Host(indices) if indices in graph.hosts else argument(node, graph, 1)
    single = isinstance(index, int) or (
        isinstance(index, Host) and not isinstance(graph.hosts[index], list)
    )
    if single:
        return operation(functools.partial(_select, axis), x, index)
    return operation(functools.partial(_gather, axis), x, indices)


def _build_split(node: Any, graph: Any) -> Built:
    count = len(node.output_values)
    function = functools.partial(_split, count, node.attributes.get("axis", 0))
    return operation(function, node.input_values[0], numbers(node, graph, 1, "split"))


def _build_constant_of_shape(node: Any, graph: Any) -> Built:
    given = node.attributes.get("value")
    module = Filled(given.to_torch() if given is not None else torch.zeros(()))
    return operation(module, numbers(node, graph, 0))


def _build_range(node: Any, graph: Any) -> Built:
    info = graph.value_info.get(node.output_values[0])
    parts = [numbers(node, graph, i) for i in range(3)]
    if any(isinstance(part, float) for part in parts):
        dtype = torch.float32
    else:
        dtype = _dtype(info.type.tensor_type.elem_type) if info is not None else torch.int64
    return operation(Arange(dtype), *parts)


def _build_cast(node: Any, graph: Any) -> Built:
    dtype = _dtype(node.attributes["to"])
    if dtype == torch.float32:
        return Float(), node.input_values
    return operation(functools.partial(Tensor.to, dtype=dtype), *node.input_values)


def _build_reverse_sequence(node: Any, graph: Any) -> Built:
    x, lengths = node.input_values
    time, batch = node.attributes.get("time_axis", 0), node.attributes.get("batch_axis", 1)
    # TensorFlow's reverse is exported with the same length for every example.
    made = graph.nodes_by_output.get(lengths)
    if made is not None and made.operation_type == "Expand":
        length = made.input_values[0]
        if length in graph.hosts:
            return operation(functools.partial(_reverse, time), x, Host(length))
        known = argument(made, graph, 0)
        if isinstance(known, int) or (isinstance(known, list) and len(known) == 1):
            return operation(functools.partial(_reverse, time), x, known)
    return operation(functools.partial(_reverse_each, time, batch), x, lengths)


def _dtype(elem_type: int) -> torch.dtype:
    from onnx import helper

    return torch.from_numpy(np.zeros((), helper.tensor_dtype_to_np_dtype(elem_type))).dtype


BUILDERS: dict[str, Build] = {
    "Cast": _build_cast,
    "Concat": lambda node, graph: operation(
        functools.partial(_concat, node.attributes["axis"]), *node.input_values
    ),
    "ConstantOfShape": _build_constant_of_shape,
    "Expand": lambda node, graph: operation(_expand, node.input_values[0], numbers(node, graph, 1)),
    "Flatten": lambda node, graph: operation(
        functools.partial(_flatten, node.attributes.get("axis", 1)), *node.input_values
    ),
    "Gather": _build_gather,
    "Range": _build_range,
    "Reshape": _build_reshape,
    "ReverseSequence": _build_reverse_sequence,
    "Slice": _build_slice,
    "Split": _build_split,
    "Squeeze": lambda node, graph: operation(
        _squeeze, node.input_values[0], numbers(node, graph, 1, "axes")
    ),
    "Tile": lambda node, graph: operation(_tile, node.input_values[0], numbers(node, graph, 1)),
    "Transpose": lambda node, graph: operation(
        functools.partial(_transpose, node.attributes.get("perm")), *node.input_values
    ),
    "Unsqueeze": lambda node, graph: operation(
        _unsqueeze, node.input_values[0], numbers(node, graph, 1, "axes")
    ),
}
