"""This package's training step in a process that does nothing else, to be timed there.

The handlers are those of `training_tensorflow_worker.py`, the ways those of `_WAYS`.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# The worker's interpreter looks for modules in its own packages alone.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from benchmarks.speed.models import ARCHITECTURES
from benchmarks.speed.training_ways import Step, by_hand, in_channels_last, step
from torchfgsm import __version__
from torchfgsm.system.arithmetic import exact_arithmetic

Values = dict[str, Any]
Arrays = dict[str, Any]
Batch = tuple[Tensor, Tensor]

# A step, and whether model and batches are channels_last.
_WAYS: dict[str, tuple[Step, bool]] = {
    "step": (step, False),
    "step, channels_last": (step, True),
    "by hand, channels_last": (by_hand, True),
}
# The calls that are timed, by the names of their ways.
_prepared: dict[str, Callable[[], None]] = {}


def _numbered(arrays: Arrays, prefix: str) -> list[Tensor]:
    count = sum(name.startswith(prefix) for name in arrays)
    return [torch.from_numpy(arrays[f"{prefix}/{i}"].copy()) for i in range(count)]


def _built(params: Values, arrays: Arrays) -> tuple[Step, nn.Module, list[Batch]]:
    """The step, the model in training mode, and the batches."""
    torch.set_num_threads(params["threads"])
    weights = _numbered(arrays, "weight")
    model: nn.Module = ARCHITECTURES[params["model"]].make().to(weights[0].dtype).train()
    with torch.no_grad():
        for parameter, weight in zip(model.parameters(), weights, strict=True):
            parameter.copy_(weight)
    batches = list(zip(_numbered(arrays, "x"), _numbered(arrays, "y"), strict=True))
    run, channels_last = _WAYS[params["way"]]
    if channels_last:
        model, batches = in_channels_last(model, batches)
    return run, model, batches


def gradients(params: Values, arrays: Arrays) -> tuple[Values, Arrays]:
    """Returns the parameters' gradients."""
    run, model, batches = _built(params, arrays)
    with exact_arithmetic():
        run(model, *batches[0])
    found = [parameter.grad for parameter in model.parameters()]
    return {}, {str(i): grad.numpy() for i, grad in enumerate(found) if grad is not None}


def prepare(params: Values, arrays: Arrays) -> tuple[Values, Arrays]:
    """Builds the step that is timed."""
    run, model, batches = _built(params, arrays)
    turn = itertools.cycle(batches)

    def call() -> None:
        run(model, *next(turn))
        for parameter in model.parameters():
            parameter.grad = None

    _prepared[params["way"]] = call
    return {"version": __version__}, {}


def time_calls(params: Values, arrays: Arrays) -> tuple[Values, Arrays]:
    """Makes calls and says how long one of them took."""
    call, repeats = _prepared[params["way"]], params["repeats"]
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(repeats):
        call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"wall_ms": 1000 * wall / repeats, "cpu_ms": 1000 * cpu / repeats}, {}


HANDLERS = {"gradients": gradients, "prepare": prepare, "time": time_calls}
