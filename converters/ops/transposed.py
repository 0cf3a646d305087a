"""Transposed convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from torchfgsm.converters.ops.convolution import Pads, padding_of, torch_padding, window
from torchfgsm.converters.ops.registry import Build, Built

_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


class TransposedConvolution(nn.Module):
    """ONNX ConvTranspose, whose result may be cut or filled up differently at each side.

    Args:
        strides: one for each dimension; None for 1.
        dilations: the same.
        groups: groups of channels.
        pads: what is cut from the full result; empty for nothing.
        added: what the ends are longer by; empty for nothing.
        sizes: the sizes of the result, which then decide what is cut; None to leave it to pads.
    """

    def __init__(
        self,
        strides: Sequence[int] | None,
        dilations: Sequence[int] | None,
        groups: int,
        pads: Pads,
        added: Sequence[int],
        sizes: Sequence[int] | None,
    ) -> None:
        super().__init__()
        self.strides, self.dilations, self.groups = strides, dilations, groups
        self.pads, self.added, self.sizes = pads, added, sizes

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Takes ``x`` (N, C, ...) and ``weight`` (C, O / groups, ...)."""
        rank = weight.dim() - 2
        strides, dilations, extents = window(weight, self.strides, self.dilations)
        full = [s * (n - 1) + e for n, s, e in zip(x.shape[2:], strides, extents, strict=True)]
        begins, ends = self._cuts(x.shape[2:], full, strides)
        transposed, groups = _TRANSPOSED[rank], self.groups
        if begins == ends and min(begins) >= 0:
            return transposed(x, weight, bias, strides, begins, 0, groups, dilations)
        y = transposed(x, weight, None, strides, 0, 0, groups, dilations)
        y = F.pad(y, torch_padding([-n for n in (*begins, *ends)]))
        return y if bias is None else y + bias.reshape(-1, *[1] * rank)

    def _cuts(
        self, sizes: Sequence[int], full: Sequence[int], strides: Sequence[int]
    ) -> tuple[list[int], list[int]]:
        """Returns what is cut from begins and ends; negative where zeros are added."""
        added = list(self.added or [0] * len(full))
        if self.sizes is None and not isinstance(self.pads, str):
            pads = list(self.pads or [0] * 2 * len(full))
            begins, ends = pads[: len(full)], pads[len(full) :]
            return begins, [end - more for end, more in zip(ends, added, strict=True)]
        wanted = self.sizes or [n * s for n, s in zip(sizes, strides, strict=True)]
        begins, ends = [], []
        for size, more, target in zip(full, added, wanted, strict=True):
            total = size + more - target
            # Zeros come at the end alone.
            less = max(total, 0) // 2
            begins.append(less if self.pads == "SAME_UPPER" else max(total, 0) - less)
            ends.append(total - begins[-1] - more)
        return begins, ends


def _transposed(node: Any, graph: Any) -> Built:
    a = node.attributes
    module = TransposedConvolution(
        a.get("strides"),
        a.get("dilations"),
        a.get("group", 1),
        padding_of(node, 0),
        a.get("output_padding") or [],
        a.get("output_shape"),
    )
    return module, tuple(name for name in node.input_values if name)


BUILDERS: dict[str, Build] = {"ConvTranspose": _transposed}
