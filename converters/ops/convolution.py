"""Convolutions and pools."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfgsm.converters.ops.registry import Build, Built, Function, refuse

Pads = Sequence[int] | str
"""ONNX padding (all begins, all ends), or SAME_UPPER or SAME_LOWER."""

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_MAXIMUM = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


class Convolution(nn.Module):
    """ONNX Conv with explicit or SAME padding, in one to three dimensions.

    Args:
        strides: one for each dimension; None for 1.
        dilations: the same.
        groups: groups of channels.
        pads: the padding; empty for none.
    """

    def __init__(
        self,
        strides: Sequence[int] | None,
        dilations: Sequence[int] | None,
        groups: int,
        pads: Pads,
    ) -> None:
        super().__init__()
        self.strides, self.dilations, self.groups, self.pads = strides, dilations, groups, pads

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Convolves ``x`` (N, C, ...) with ``weight`` (O, C / groups, ...)."""
        rank = weight.dim() - 2
        strides, dilations, extents = window(weight, self.strides, self.dilations)
        pads = explicit(self.pads or [0] * 2 * rank, x.shape[2:], extents, strides)
        inside: Sequence[int] | int = 0
        if list(pads[:rank]) == list(pads[rank:]):
            inside = list(pads[:rank])
        else:
            x = F.pad(x, torch_padding(pads))
        return _CONV[rank](x, weight, bias, strides, inside, dilations, self.groups)

    def extra_repr(self) -> str:
        """Shows the settings."""
        return (
            f"strides={self.strides}, dilations={self.dilations}, "
            f"groups={self.groups}, pads={self.pads}"
        )


class AveragePool(nn.Module):
    """Average pooling whose padding may differ between the sides.

    Args:
        kernel: sizes of the window.
        strides: its steps.
        pads: the padding.
        count: whether padding counts in the mean.
        ceil: whether a window that sticks out at the end has a place in the result.
    """

    def __init__(
        self,
        kernel: Sequence[int],
        strides: Sequence[int],
        pads: Pads,
        count: bool,
        ceil: bool = False,
    ) -> None:
        super().__init__()
        self.kernel, self.strides, self.pads = list(kernel), list(strides), pads
        self.count, self.ceil = count, ceil

    def forward(self, x: Tensor) -> Tensor:
        """Pools ``x`` (N, C, ...)."""
        pool, sizes = _AVERAGE[len(self.kernel)], x.shape[2:]
        pads = explicit(self.pads, sizes, self.kernel, self.strides)
        whole = extended(pads, sizes, self.kernel, self.strides) if self.ceil else pads
        if whole == pads and is_plain(pads, self.kernel):
            inside = pads[: len(pads) // 2]
            return pool(x, self.kernel, self.strides, inside, False, self.count)
        mean = pool(F.pad(x, torch_padding(whole)), self.kernel, self.strides)
        if self.count and whole == pads:
            return mean
        half = len(pads) // 2
        # What the ceiling adds never counts.
        outside = [0] * half + [n - p for n, p in zip(whole[half:], pads[half:], strict=True)]
        ones = F.pad(torch.ones_like(x[:1, :1]), torch_padding(pads), value=float(self.count))
        counted = pool(F.pad(ones, torch_padding(outside)), self.kernel, self.strides)
        return mean / counted


class MaxPool(nn.Module):
    """Maximum pooling whose padding may differ between the sides and never wins.

    Of equal numbers the first one in the window takes the gradient, as in TensorFlow; in three
    dimensions each of them takes all of it, as in TensorFlow on a CPU.

    Args:
        kernel: sizes of the window.
        strides: its steps.
        pads: the padding.
        dilations: steps within the window.
        ceil: whether a window that sticks out at the end has a place in the result.
    """

    def __init__(
        self,
        kernel: Sequence[int],
        strides: Sequence[int],
        pads: Pads,
        dilations: Sequence[int],
        ceil: bool,
    ) -> None:
        super().__init__()
        self.kernel, self.strides, self.pads = list(kernel), list(strides), pads
        self.dilations, self.ceil = list(dilations), ceil

    def forward(self, x: Tensor) -> Tensor:
        """Pools ``x`` (N, C, ...)."""
        sizes = x.shape[2:]
        extents = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        pads = explicit(self.pads, sizes, extents, self.strides)
        if self.ceil:
            pads = extended(pads, sizes, extents, self.strides)
        pool, inside = _MAXIMUM[len(self.kernel)], [0] * len(self.kernel)
        cubes = len(self.kernel) == 3
        if is_plain(pads, self.kernel) and not cubes:
            inside = pads[: len(pads) // 2]
        elif any(pads):
            x = F.pad(x, torch_padding(pads), value=-torch.inf)
        y = pool(x, self.kernel, self.strides, inside, self.dilations)
        return self._with_all_ties(x, y) if cubes else y

    def _with_all_ties(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns ``y`` with a derivative of 1 by each number in a window that equals it."""
        result = y.detach()
        for offsets in itertools.product(*map(range, self.kernel)):
            part = x
            for i, offset in enumerate(offsets):
                start, step = offset * self.dilations[i], self.strides[i]
                end = start + step * (y.shape[i + 2] - 1) + 1
                part = part[(slice(None),) * (i + 2) + (slice(start, end, step),)]
            tied = torch.where(part == result, part, 0.0)
            result = result + (tied - tied.detach())
        return result


def global_maximum(x: Tensor) -> Tensor:
    """Returns the maxima (N, C, 1, ...); ties share the gradient, as in TensorFlow."""
    return torch.amax(x, dim=tuple(range(2, x.dim())), keepdim=True)


def global_average(x: Tensor) -> Tensor:
    """Returns the means (N, C, 1, ...)."""
    return torch.mean(x, dim=tuple(range(2, x.dim())), keepdim=True)


def window(
    weight: Tensor, strides: Sequence[int] | None, dilations: Sequence[int] | None
) -> tuple[list[int], list[int], list[int]]:
    """Returns a convolution's strides and dilations, None for 1, and how far its window reaches."""
    sizes = weight.shape[2:]
    strides = list(strides or [1] * len(sizes))
    dilations = list(dilations or [1] * len(sizes))
    return strides, dilations, [(k - 1) * d + 1 for k, d in zip(sizes, dilations, strict=True)]


def torch_padding(pads: Sequence[int]) -> list[int]:
    """Returns ONNX padding (all begins, all ends) in torch's order (last dimension first)."""
    half = len(pads) // 2
    return [n for i in reversed(range(half)) for n in (pads[i], pads[half + i])]


def same_padding(
    sizes: Sequence[int], extents: Sequence[int], strides: Sequence[int], side: str
) -> list[int]:
    """Returns ONNX padding for outputs of ceil(size / stride); SAME_UPPER pads the end more."""
    begins, ends = [], []
    for size, extent, stride in zip(sizes, extents, strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + extent - size, 0)
        less, more = total // 2, total - total // 2
        begins.append(less if side == "SAME_UPPER" else more)
        ends.append(more if side == "SAME_UPPER" else less)
    return begins + ends


def explicit(
    pads: Pads, sizes: Sequence[int], extents: Sequence[int], strides: Sequence[int]
) -> list[int]:
    """Returns padding as numbers, for inputs of these sizes."""
    return same_padding(sizes, extents, strides, pads) if isinstance(pads, str) else list(pads)


def extended(
    pads: Sequence[int], sizes: Sequence[int], extents: Sequence[int], strides: Sequence[int]
) -> list[int]:
    """Returns padding whose ends also cover the last window of a rounding up of the size.

    A window that would start in the padding at the end has no place, in ONNX as in torch.
    """
    half = len(pads) // 2
    ends = []
    for i, (size, extent, stride) in enumerate(zip(sizes, extents, strides, strict=True)):
        places = -(-(size + pads[i] + pads[half + i] - extent) // stride) + 1
        if (places - 1) * stride >= size + pads[i]:
            places -= 1
        ends.append(max(pads[half + i], (places - 1) * stride + extent - size - pads[i]))
    return [*pads[:half], *ends]


def is_plain(pads: Sequence[int], kernel: Sequence[int]) -> bool:
    """Returns whether torch's pools take the padding: even, and at most half of the window."""
    half = len(pads) // 2
    fits = all(2 * p <= k for p, k in zip(pads[:half], kernel, strict=True))
    return fits and list(pads[:half]) == list(pads[half:])


def padding_of(node: Any, rank: int) -> Pads:
    """Returns a node's padding; of an unknown rank (0), none is empty."""
    side: str = node.attributes.get("auto_pad", "NOTSET")
    pads: Pads = node.attributes.get("pads") or [0] * (2 * rank)
    if side.startswith("SAME"):
        return side
    return [0] * (2 * rank) if side == "VALID" else pads


def _conv(node: Any, graph: Any) -> Built:
    a = node.attributes
    pads = padding_of(node, 0)
    module = Convolution(a.get("strides"), a.get("dilations"), a.get("group", 1), pads)
    return module, tuple(name for name in node.input_values if name)


def _average_pool(node: Any, graph: Any) -> Built:
    a = node.attributes
    kernel = a["kernel_shape"]
    if any(d != 1 for d in a.get("dilations", [])):
        refuse(node, "expected no dilations; use a depthwise convolution with equal weights")
    module = AveragePool(
        kernel,
        a.get("strides") or [1] * len(kernel),
        padding_of(node, len(kernel)),
        bool(a.get("count_include_pad", 0)),
        bool(a.get("ceil_mode", 0)),
    )
    return module, node.input_values


def _max_pool(node: Any, graph: Any) -> Built:
    a = node.attributes
    kernel = a["kernel_shape"]
    if len(node.output_values) > 1 and node.output_values[1]:
        refuse(node, "expected one output, not also the places of the maxima")
    ones = [1] * len(kernel)
    module = MaxPool(
        kernel,
        a.get("strides") or ones,
        padding_of(node, len(kernel)),
        a.get("dilations") or ones,
        bool(a.get("ceil_mode", 0)),
    )
    return module, node.input_values


BUILDERS: dict[str, Build] = {
    "AveragePool": _average_pool,
    "Conv": _conv,
    "GlobalAveragePool": lambda node, graph: (Function(global_average), node.input_values),
    "GlobalMaxPool": lambda node, graph: (Function(global_maximum), node.input_values),
    "MaxPool": _max_pool,
}
