"""Faults for converted models, which a verification must find."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Fault(nn.Module):
    """A network with faults before and behind it."""

    def __init__(self, network: nn.Module, before: Any = None, behind: Any = None) -> None:
        super().__init__()
        self.network, self.before, self.behind = network, before, behind

    def forward(self, x: Tensor, *weights: Tensor) -> Any:
        y = self.network(x if self.before is None else self.before(x), *weights)
        return y if self.behind is None else self.behind(y)


class ScaledGradient(torch.autograd.Function):
    """A gradient that is a little too long."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * (1 + 1e-4)


class OffByAThousandth(torch.autograd.Function):
    """A gradient that is longer by 1e-3."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * (1 + 1e-3)


class ScaledInFloat32(torch.autograd.Function):
    """A gradient that is off in float32 alone, by more than rounding explains."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        single = gradients[0].dtype == torch.float32
        return gradients[0] * (1 + 1e-3) if single else gradients[0].clone()
