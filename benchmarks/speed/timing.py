"""Times of several calls in interleaved rounds, on a CPU or a CUDA device."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import quantiles
from typing import NamedTuple

import torch

Call = Callable[[], object]


class Sample(NamedTuple):
    """How long one call took, in milliseconds; the processor's own time where it is known."""

    wall_ms: float
    cpu_ms: float | None = None


Clock = Callable[[Call, int], Sample]


@dataclass(frozen=True)
class TimedElsewhere:
    """A call that another process makes.

    Attributes:
        repeat: Makes it so many times there, and says how long one took by that process's clocks.
    """

    repeat: Callable[[int], Sample]

    def __call__(self) -> None:
        """Makes it once."""
        self.repeat(1)


_MOST_CALLS = 1000
# A GPU's queue takes about 1000 launches before the host has to wait; one call makes up to ten.
_MOST_HOST_CALLS = 100
_FEWEST_ROUNDS = 5
_MOST_ROUNDS = 60


@dataclass
class Times:
    """Milliseconds of one call, one entry per round.

    Attributes:
        rounds: The times; empty when the call failed.
        reason: Why it failed, or "".
        cpu: The processor's time in the same rounds; empty for a CUDA device.
    """

    rounds: list[float] = field(default_factory=list)
    reason: str = ""
    cpu: list[float] = field(default_factory=list)

    def add(self, sample: Sample) -> None:
        """Adds a round."""
        self.rounds.append(sample.wall_ms)
        if sample.cpu_ms is not None:
            self.cpu.append(sample.cpu_ms)

    def clear(self) -> None:
        """Forgets all rounds."""
        self.rounds.clear()
        self.cpu.clear()

    def percentile(self, percent: int) -> float:
        """The time under which `percent` of the rounds lie; 20, 50 and so on."""
        if len(self.rounds) == 1:
            return self.rounds[0]
        return quantiles(self.rounds, n=100, method="inclusive")[percent - 1]


def interleaved(
    calls: Mapping[str, Call],
    device: torch.device,
    *,
    seconds: float,
    sample_ms: float,
    host: bool = False,
) -> dict[str, Times]:
    """Times of every call, taken in turn so that a change of load meets all of them.

    Args:
        calls: The calls by name. They have run before.
        device: Where they run: CUDA events time a GPU, the clock a CPU.
        seconds: About how long the rounds take together; there are at least 5 of them.
        sample_ms: At least how long one sample takes: a shorter call is repeated within it.
        host: Time what the host is busy with, without waiting for the device.

    Returns:
        The times by name. A call that raises is left out of later rounds, with its reason.
    """
    found = {name: Times() for name in calls}
    clock = _on_cuda if device.type == "cuda" and not host else _on_host
    most = _MOST_HOST_CALLS if host else _MOST_CALLS
    repeats: dict[str, int] = {}
    spent = 0.0
    for name, call in calls.items():
        once = _sample(call, 1, clock, found[name])
        again = _sample(call, 1, clock, found[name])
        fastest = max(min(once, again), 1e-4)
        repeats[name] = min(max(1, math.ceil(sample_ms / fastest)), most)
        spent += repeats[name] * fastest / 1000
        found[name].clear()
    rounds = min(max(_FEWEST_ROUNDS, int(seconds / max(spent, 1e-9))), _MOST_ROUNDS)
    order = list(calls)
    shuffled = random.Random(0)
    for _ in range(rounds):
        shuffled.shuffle(order)
        for name in order:
            if not found[name].reason:
                _sample(calls[name], repeats[name], clock, found[name])
    return found


def _sample(call: Call, repeats: int, clock: Clock, times: Times) -> float:
    """One sample, added to the rounds: milliseconds of one call."""
    if times.reason:
        return 0.0
    try:
        taken = call.repeat(repeats) if isinstance(call, TimedElsewhere) else clock(call, repeats)
    except Exception as error:  # whatever a peer raises is its row's reason
        times.reason = reason_of(error)
        times.clear()
        return 0.0
    times.add(taken)
    return taken.wall_ms


def _on_cuda(call: Call, repeats: int) -> Sample:
    begin = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    begin.record()
    for _ in range(repeats):
        call()
    end.record()
    torch.cuda.synchronize()
    return Sample(float(begin.elapsed_time(end)) / repeats)


def _on_host(call: Call, repeats: int) -> Sample:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(repeats):
        call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Sample(1000 * wall / repeats, 1000 * cpu / repeats)


def reason_of(error: BaseException) -> str:
    """An error in one line of at most 200 characters."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:200] if text else type(error).__name__
