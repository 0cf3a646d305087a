"""Inputs and gradients for the step, in enough sets that no cache serves a repeat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor], object]

# More than the caches of any device here: inputs and results together.
_TOGETHER = 256 * 1_000_000
_MOST_SETS = 100


@dataclass(frozen=True)
class Inputs:
    """Pairs of an input in [0, 1] and a gradient, each (N, elements).

    Attributes:
        sets: The pairs.
        results: The last result of each set, so that the next one gets other memory; the calls
            of all providers share them.
    """

    sets: list[tuple[Tensor, Tensor]]
    results: list[object]

    @classmethod
    def random(cls, batch: int, example: int, dtype: torch.dtype, device: torch.device) -> Inputs:
        """Uniform inputs and normal gradients, the same on every run."""
        generator = torch.Generator(device).manual_seed(0)
        size = batch * example * dtype.itemsize
        count = min(max(1, -(-_TOGETHER // (3 * size))), _MOST_SETS)
        sets = []
        for _ in range(count):
            x = torch.empty(batch, example, device=device, dtype=dtype)
            grad = torch.empty_like(x).normal_(generator=generator)
            sets.append((x.uniform_(generator=generator), grad))
        return cls(sets, [None] * count)

    def in_turn(self, step: Step) -> Callable[[], object]:
        """A call that takes the next set, and keeps its result."""
        place = -1

        def call() -> object:
            nonlocal place
            place = (place + 1) % len(self.sets)
            self.results[place] = None
            self.results[place] = step(*self.sets[place])
            return self.results[place]

        return call

    def first(self, step: Step) -> Callable[[], object]:
        """A call that always takes the first set."""
        x, grad = self.sets[0]
        return lambda: step(x, grad)
