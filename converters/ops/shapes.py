"""Operations on shapes and layouts, without a copy to the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfgsm.converters.ops.convolution import torch_padding
from torchfgsm.converters.ops.registry import Build, NotHere, constant


class Reshape(nn.Module):
    """Reshape to a known shape: 0 keeps that dimension, -1 takes what is left."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``x`` in the shape."""
        return x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(self.shape)])


class Squeeze(nn.Module):
    """Removes dimensions of size one."""

    def __init__(self, axes: Sequence[int]) -> None:
        super().__init__()
        self.axes = tuple(axes)

    def forward(self, x: Tensor) -> Tensor:
        """Removes the axes from ``x``."""
        return torch.squeeze(x, self.axes)


class Unsqueeze(nn.Module):
    """Inserts dimensions of size one, at the places that they have in the result."""

    def __init__(self, axes: Sequence[int]) -> None:
        super().__init__()
        self.axes = tuple(axes)

    def forward(self, x: Tensor) -> Tensor:
        """Inserts the axes into ``x``."""
        rank = x.dim() + len(self.axes)
        for axis in sorted(axis % rank for axis in self.axes):
            x = x.unsqueeze(axis)
        return x


class ConstantPad(nn.Module):
    """Padding with one value; negative amounts crop."""

    def __init__(self, pads: Sequence[int], value: float) -> None:
        super().__init__()
        self.padding, self.value = torch_padding(pads), value

    def forward(self, x: Tensor) -> Tensor:
        """Pads ``x``."""
        return F.pad(x, self.padding, value=self.value)


def _reshape(node: Any, graph: Any) -> tuple[nn.Module, tuple[str, ...]]:
    if node.attributes.get("allowzero"):
        raise NotHere
    return Reshape(constant(node, graph, 1)), node.input_values[:1]


def _squeeze(node: Any, graph: Any) -> tuple[nn.Module, tuple[str, ...]]:
    return Squeeze(constant(node, graph, 1)), node.input_values[:1]


def _unsqueeze(node: Any, graph: Any) -> tuple[nn.Module, tuple[str, ...]]:
    return Unsqueeze(constant(node, graph, 1)), node.input_values[:1]


def _pad(node: Any, graph: Any) -> tuple[nn.Module, tuple[str, ...]]:
    names = node.input_values
    if node.attributes.get("mode", "constant") != "constant" or len(names) > 3:
        raise NotHere
    value = constant(node, graph, 2) if len(names) > 2 and names[2] else 0.0
    return ConstantPad(constant(node, graph, 1), float(value)), names[:1]


BUILDERS: dict[str, Build] = {
    "Pad": _pad,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
}
