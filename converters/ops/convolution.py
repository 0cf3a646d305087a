"""Convolutions and pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfgsm.converters.ops.registry import Build, NotHere

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


class Convolution(nn.Module):
    """ONNX Conv with explicit or SAME padding, in one to three dimensions."""

    def __init__(
        self,
        strides: Sequence[int] | None,
        dilations: Sequence[int] | None,
        groups: int,
        pads: Sequence[int] | str,
    ) -> None:
        super().__init__()
        self.strides, self.dilations, self.groups, self.pads = strides, dilations, groups, pads

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Convolves ``x`` (N, C, ...) with ``weight`` (O, C / groups, ...)."""
        rank = weight.dim() - 2
        strides = list(self.strides or [1] * rank)
        dilations = list(self.dilations or [1] * rank)
        pads = self.pads
        if isinstance(pads, str):
            extents = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
            pads = same_padding(x.shape[2:], extents, strides, pads)
        inside: Sequence[int] | int = 0
        if list(pads[:rank]) == list(pads[rank:]):
            inside = list(pads[:rank])
        else:
            x = F.pad(x, torch_padding(pads))
        return _CONV[rank](x, weight, bias, strides, inside, dilations, self.groups)


class AveragePool(nn.Module):
    """Average pooling whose padding may differ between the sides; padding does not count."""

    def __init__(
        self, kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int] | str, count: bool
    ) -> None:
        super().__init__()
        self.kernel, self.strides, self.pads, self.count = kernel, strides, pads, count

    def forward(self, x: Tensor) -> Tensor:
        """Pools ``x`` (N, C, ...)."""
        pool = _AVERAGE[len(self.kernel)]
        kernel, strides, pads = list(self.kernel), list(self.strides), self.pads
        if isinstance(pads, str):
            pads = same_padding(x.shape[2:], kernel, strides, pads)
        if not any(pads):
            return pool(x, kernel, strides)
        padding = torch_padding(pads)
        mean = pool(F.pad(x, padding), kernel, strides)
        if self.count:
            return mean
        ones = F.pad(torch.ones_like(x[:1, :1]), padding)
        return mean / pool(ones, kernel, strides)


class GlobalMaxPool(nn.Module):
    """Maximum over all positions; ties share the gradient, as in TensorFlow's reduce_max."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, C, 1, ...) of ``x`` (N, C, ...)."""
        return torch.amax(x, dim=tuple(range(2, x.dim())), keepdim=True)


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


def _conv(node: Any, graph: Any) -> tuple[nn.Module, tuple[str, ...]]:
    a = node.attributes
    side = a.get("auto_pad", "NOTSET")
    rank = len(a.get("kernel_shape") or a.get("strides") or a.get("pads", [])[::2])
    pads: Any = side if side.startswith("SAME") else a.get("pads") or [0] * (2 * rank)
    if not rank:
        raise NotHere
    module = Convolution(a.get("strides"), a.get("dilations"), a.get("group", 1), pads)
    return module, node.input_values


def _average_pool(node: Any, graph: Any) -> tuple[nn.Module, tuple[str, ...]]:
    a = node.attributes
    kernel = a["kernel_shape"]
    side = a.get("auto_pad", "NOTSET")
    if a.get("ceil_mode") or any(d != 1 for d in a.get("dilations", [])):
        raise NotHere
    pads: Any = side if side.startswith("SAME") else a.get("pads") or [0] * (2 * len(kernel))
    strides = a.get("strides") or [1] * len(kernel)
    count = bool(a.get("count_include_pad", 0))
    return AveragePool(kernel, strides, pads, count), node.input_values


BUILDERS: dict[str, Build] = {
    "AveragePool": _average_pool,
    "Conv": _conv,
    "GlobalMaxPool": lambda node, graph: (GlobalMaxPool(), node.input_values),
}
