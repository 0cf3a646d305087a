"""Ten thousand attacks in one process: nothing grows, nothing is left, no bit changes."""

from __future__ import annotations

import functools
import gc
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile_numbers import NORMS, PRESETS
from processes import environment
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


def _held() -> list[int]:
    """Handles, threads of the system and of Python, and objects."""
    system = [len(os.listdir(f"/proc/self/{kind}")) for kind in ("fd", "task")]
    return [*system, threading.active_count(), len(gc.get_objects())]


def measure() -> None:
    """Makes the calls and prints memory, and what else the process holds, before and after."""
    attacks = _attacks()
    first = [run() for run in attacks]
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

    called(1000, workers=1)
    memory = [called(3000, workers=4)]  # by then allocators have what each thread keeps
    before = _held()
    memory += [called(3000, workers=4), called(3000, workers=1)]
    print(json.dumps({"memory": memory, "before": before, "after": _held()}))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_ten_thousand_calls_leave_nothing_and_change_no_bit() -> None:
    # In a process of its own: what other tests left would move too.
    command = [sys.executable, "-c", "import test_many_calls; test_many_calls.measure()"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    start, side_by_side, in_turn = found["memory"]
    # What a call builds, inputs and graph, takes several KiB: 3000 calls would leave 10 MiB. The
    # allocator keeps up to 0.25 MiB for a new thread, of which there are 24 side by side.
    assert side_by_side - start < 6, found
    assert in_turn - side_by_side < 1, found
    *held, objects = np.subtract(found["after"], found["before"])
    assert held == [0, 0, 0], found
    assert objects < 10, found  # the list of those before is one
