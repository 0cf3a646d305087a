"""Ten thousand attacks in one process: nothing grows, nothing is left, no bit changes."""

from __future__ import annotations

import functools
import gc
import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hostile_numbers import NORMS, PRESETS
from torch import Tensor, nn

from torchfgsm import attack

SHAPES = ((4,), (1, 6), (8, 6), (33, 6), (2, 3, 8, 8), (5, 3, 9, 7), (16, 3, 16, 16))
LENGTH = 0.1


class _Net(nn.Module):
    """Three logits for inputs of any shape."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.images = nn.Conv2d(3, 3, 3, padding=1)
            self.rows = nn.Linear(6, 3)
            self.numbers = nn.Linear(1, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 1:
            return torch.tanh(self.numbers(x[:, None]))
        if x.dim() == 2:
            return torch.tanh(self.rows(x))
        return torch.tanh(self.images(x)).mean((2, 3))


def _attacks() -> list[Callable[[], Tensor]]:
    model = _Net()
    found: list[Callable[[], Tensor]] = []
    for preset, recipe_of in PRESETS.items():
        for norm in NORMS:
            for seed, shape in enumerate(SHAPES):
                generator = torch.Generator().manual_seed(seed)
                x = torch.rand(shape, generator=generator)
                y = torch.randint(3, shape[:1], generator=generator)
                turns = 2 if seed % 2 and preset != "native" else 1
                recipe = recipe_of(norm, LENGTH, turns, (0.0, 1.0) if seed % 3 else None)
                found.append(functools.partial(attack, model, x, y, recipe=recipe))
    return found


def _resident() -> float:
    """The process's memory in MiB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _handles() -> int:
    return len(os.listdir("/proc/self/fd"))


def _tasks() -> int:
    return len(os.listdir("/proc/self/task"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_ten_thousand_calls_leave_nothing_and_change_no_bit(
    record_property: Callable[[str, object], None],
) -> None:
    attacks = _attacks()
    first = [run() for run in attacks]
    threads = torch.get_num_threads()
    rng = random.Random(0)

    def called(count: int, workers: int) -> float:
        """Memory in MiB after calls from some threads, torch's own threads changing between."""
        for start in range(0, count, 500):
            torch.set_num_threads(1 + start // 500 % 2)
            order = [rng.randrange(len(attacks)) for _ in range(500)]
            with ThreadPoolExecutor(workers) as pool:
                for i, found in zip(order, pool.map(lambda i: attacks[i](), order), strict=True):
                    assert torch.equal(found, first[i]), attacks[i]
        return _resident()

    try:
        called(1000, workers=1)
        start = called(1000, workers=4)
        before = _handles(), _tasks(), threading.active_count(), len(gc.get_objects())
        side_by_side = called(4000, workers=4)
        in_turn = called(4000, workers=1)
        after = _handles(), _tasks(), threading.active_count(), len(gc.get_objects())
    finally:
        torch.set_num_threads(threads)
    record_property("memory_mib", (start, side_by_side, in_turn))
    print(
        f"memory after 2000, 6000 and 10000 calls: {start:.1f}, {side_by_side:.1f}, {in_turn:.1f}"
    )
    # 1 KiB per call; what a call builds, inputs and graph, takes several. Allocators keep up to
    # 0.1 MiB for a new thread.
    assert side_by_side - start < 4
    assert in_turn - side_by_side < 4
    assert after == before
