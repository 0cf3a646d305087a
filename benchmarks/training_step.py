"""A training step on clean and adversarial examples: `python -m benchmarks.training_step`.

Time and peak memory of every way to fill the parameters' gradients of
`L(x) + 0.2 * L(x_adv)`, L-inf 8/255 within [0, 1] with given labels, in training mode (ART's attack
in eval mode). Their gradients are first compared in float64 (CleverHans and ART, which cast to
float32, in that). On CUDA memory is what the allocator gave out at most; on a CPU the bytes that
autograd keeps for backward.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Mapping
from itertools import count

import torch
from torch import Tensor, nn

from benchmarks import plots
from benchmarks.command import Options, Sizes, run
from benchmarks.contest import Pace, Provider, compete
from benchmarks.models import ARCHITECTURES, Architecture
from benchmarks.rows import Row
from benchmarks.saved_memory import saved_mib
from benchmarks.training_ways import REFERENCE, WAYS, Step, Way, by_hand, in_eval_mode
from torchfgsm.machine import exact_arithmetic

Gradients = list[Tensor]

# Largest relative difference of a parameter's gradient. In float32 the sign of an input gradient
# that is almost zero is noise, and each one moves an input by twice the step.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-2}
_CHECKED = 16
_BATCHES = 4
_CASES: Mapping[str, Sizes] = {
    "cuda": {"MNIST CNN": (128, 1024, 4096), "ResNet-18": (32, 128, 512)},
    "cpu": {"MNIST CNN": (32, 128), "ResNet-18": (8,)},
}
_QUICK: Sizes = {"MNIST CNN": (4,)}


def measure(options: Options) -> Iterator[list[Row]]:
    """The rows, case by case."""
    sizes = _QUICK if options.quick else _CASES[options.device.type]
    pace = Pace(0.2, 0.5) if options.quick else Pace(10.0, 5.0)
    for name, batches in sizes.items():
        for batch in batches:
            yield measure_case(options.device, name, batch, WAYS, pace)


def measure_case(
    device: torch.device, name: str, batch: int, ways: tuple[Way, ...], pace: Pace
) -> list[Row]:
    """The rows of one case, one per way."""
    architecture = ARCHITECTURES[name]
    model = architecture.build(device).train()
    batches = architecture.batches(batch, _BATCHES, device)
    case = Row(
        benchmark="training step",
        provider="",
        attack="fgsm",
        norm="linf",
        batch=batch,
        example=batches[0][0][0].numel(),
        model=name,
        labels="given",
    )
    providers = [_provider(way, architecture, model, batches, device) for way in ways]
    return compete(case, providers, device, pace, reference=REFERENCE)


def _provider(
    way: Way,
    architecture: Architecture,
    model: nn.Module,
    batches: list[tuple[Tensor, Tensor]],
    device: torch.device,
) -> Provider:
    turn = count()
    parameters = list(model.parameters())

    def call() -> None:
        try:
            way.step(model, *batches[next(turn) % len(batches)])
        finally:
            for parameter in parameters:
                parameter.grad = None

    def check(result: object) -> str:
        return difference(way, architecture, min(_CHECKED, len(batches[0][0])), device)

    return Provider(
        name=way.name,
        make=lambda: call,
        version=way.version,
        check=check,
        note="" if way.float64 else "compared in float32",
        peak_mib=lambda: saved_mib(call, model, [tensor for pair in batches for tensor in pair]),
    )


def difference(way: Way, architecture: Architecture, size: int, device: torch.device) -> str:
    """What is wrong with the gradients of a way, "" when nothing is."""
    dtype = torch.float64 if way.float64 else torch.float32
    model = architecture.build(device).to(dtype).train()
    batch = architecture.batches(size, 1, device, dtype)[0]
    with exact_arithmetic():
        right = in_eval_mode if way.eval_mode else by_hand
        expected, found = (_gradients(step, model, batch) for step in (right, way.step))
    worst = max(
        float((own - other).norm() / other.norm())
        for own, other in zip(found, expected, strict=True)
    )
    if worst <= _TOLERANCE[dtype]:
        return ""
    return f"a parameter's gradient is {worst:.1e} away from that of the step by hand"


def _gradients(step: Step, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Gradients:
    model = copy.deepcopy(model)
    step(model, *batch)
    found = [parameter.grad for parameter in model.parameters()]
    return [grad for grad in found if grad is not None]


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; 0 when every case was measured."""
    return run("training_step", __doc__ or "", measure, plots.time_and_memory, arguments)


if __name__ == "__main__":
    sys.exit(main())
