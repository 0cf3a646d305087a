"""Element-wise operations, with TensorFlow's derivative at their kinks."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfgsm.converters.ops.registry import Build


class Extremum(nn.Module):
    """Element-wise maximum or minimum; at a tie the gradient goes to the first operand."""

    def __init__(self, largest: bool) -> None:
        super().__init__()
        self.largest = largest

    def forward(self, *tensors: Tensor) -> Tensor:
        """Combines the operands from left to right; NaN wins, as in TensorFlow."""
        result = tensors[0]
        for other in tensors[1:]:
            first = result >= other if self.largest else result <= other
            result = torch.where(first | result.isnan(), result, other)
        return result


class Selu(nn.Module):
    """SELU, whose derivative at 0 is that of the positive side, as in TensorFlow."""

    def __init__(self, alpha: float, gamma: float) -> None:
        super().__init__()
        self.alpha, self.gamma = alpha, gamma

    def forward(self, x: Tensor) -> Tensor:
        """Applies SELU to ``x`` of any shape."""
        negative = torch.expm1(torch.clamp(x, max=0.0))
        return self.gamma * torch.where(x >= 0, x, self.alpha * negative)


class ThresholdedRelu(nn.Module):
    """x where x > alpha, else 0."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """Applies the threshold to ``x`` of any shape."""
        return torch.where(x > self.alpha, x, 0.0)


class PRelu(nn.Module):
    """x where x > 0, else slope * x, with any slope that broadcasts."""

    def forward(self, x: Tensor, slope: Tensor) -> Tensor:
        """Applies ``slope`` to the negative part of ``x``."""
        return F.relu(x) - slope * F.relu(-x)


def _extremum(node: Any, graph: Any) -> tuple[nn.Module, tuple[str, ...]]:
    return Extremum(node.operation_type == "Max"), node.input_values


def _selu(node: Any, graph: Any) -> tuple[nn.Module, tuple[str, ...]]:
    a = node.attributes
    # The standard's values, which an exporter may leave out.
    alpha, gamma = a.get("alpha", 1.6732632423543772), a.get("gamma", 1.0507009873554805)
    return Selu(float(alpha), float(gamma)), node.input_values


def _thresholded_relu(node: Any, graph: Any) -> tuple[nn.Module, tuple[str, ...]]:
    return ThresholdedRelu(float(node.attributes.get("alpha", 1.0))), node.input_values


BUILDERS: dict[str, Build] = {
    "Identity": lambda node, graph: (nn.Identity(), node.input_values),
    "Max": _extremum,
    "Min": _extremum,
    "PRelu": lambda node, graph: (PRelu(), node.input_values),
    "Selu": _selu,
    "ThresholdedRelu": _thresholded_relu,
}
