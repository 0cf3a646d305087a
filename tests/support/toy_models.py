"""Small models for the tests of the core."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

CLASSES = 3
FEATURES = 4

ORDERS = {"linf": math.inf, "l2": 2.0, "l1": 1.0}


def mlp(dtype: torch.dtype = torch.float64, *, seed: int = 0) -> nn.Sequential:
    """A smooth network from (N, 4) to 3 logits."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, CLASSES)).to(dtype)


def noisy(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """A network whose training mode shows: BatchNorm, a frozen BatchNorm, dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = nn.Sequential(
            nn.Linear(FEATURES, 8),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.BatchNorm1d(8),
            nn.Linear(8, CLASSES),
        ).to(dtype)
    net.train()
    net[4].eval()
    return net


def batch(
    dtype: torch.dtype = torch.float64, *, size: int = 6, seed: int = 2
) -> tuple[Tensor, Tensor]:
    """Inputs (N, 4) well inside of [0, 1], and labels (N,)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(size, FEATURES, generator=generator, dtype=torch.float64) * 0.6 + 0.2
    return x.to(dtype), torch.randint(CLASSES, (size,), generator=generator)


def one_hot(y: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """Rows (N, 3) of labels (N,)."""
    return nn.functional.one_hot(y, CLASSES).to(dtype)


class Counting(nn.Module):
    """Counts the calls of a module and whether each ran in training mode."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.calls: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(self.training)
        output: Tensor = self.inner(x)
        return output


class NeverCalled(nn.Module):
    """A model that must not run: refusals come before the first forward pass."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, dtype=dtype))

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        raise AssertionError("the model was called")


class Linear(nn.Module):
    """The score of an example: the sum of its entries times weights per entry."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weight).flatten(1).sum(1)


class TwoInputs(nn.Module):
    """A network over a dict of features "a" (N, 2), "b" (N, 2) and integers "kind" (N,)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        joined = torch.cat([x["a"], x["b"]], dim=1)
        output: Tensor = self.inner(joined) + 0.1 * x["kind"][:, None]
        return output


def score(output: Tensor, target: Any) -> Tensor:
    """A loss that is the output itself, per example."""
    return output


def size_of(delta: Tensor, norm: str) -> Tensor:
    """The norm of each example, (N,), in float64."""
    found: Tensor = torch.linalg.vector_norm(delta.flatten(1).double(), ORDERS[norm], dim=1)
    return found


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normal random numbers, always the same."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
