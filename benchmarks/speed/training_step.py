"""A training step on clean and adversarial examples: `python -m benchmarks.speed.training_step`.

Time and peak memory of every way to fill the parameters' gradients of
`L(x) + 0.2 * L(x_adv)`, L-inf 8/255 within [0, 1] with given labels, in training mode (ART's attack
in eval mode). Their gradients are first compared in float64 (CleverHans and ART, which cast to
float32, in that). On CUDA memory is what the allocator gave out at most; on a CPU the bytes that
autograd keeps for backward.

On a CPU NSL's own steps take part, in TensorFlow's process, which takes its turns in the same
rounds and times itself, with as many threads as torch has. So does this package's step in
processes that do nothing else, as glibc usually is and where it keeps freed memory.
`python -m benchmarks.speed.training_speed_page` writes docs/training_speed.md from the rows.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count

import torch
from torch import Tensor, nn

from benchmarks import plots
from benchmarks.rows import Row
from benchmarks.speed.command import Options, Sizes, run
from benchmarks.speed.contest import Pace, Provider, compete
from benchmarks.speed.models import ARCHITECTURES
from benchmarks.speed.saved_memory import saved_mib
from benchmarks.speed.training_processes import PROCESS_WAYS, Processes, ProcessWay
from benchmarks.speed.training_ways import (
    REFERENCE,
    WAYS,
    Step,
    Way,
    by_hand,
    in_channels_last,
    in_eval_mode,
)
from torchfgsm.system.arithmetic import exact_arithmetic

Gradients = list[Tensor]

# Largest relative difference of a parameter's gradient. In float32 the sign of an input gradient
# that is almost zero is noise, and each one moves an input by twice the step.
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-2}
_CHECKED = 8
_BATCHES = 4
_CASES: Mapping[str, Sizes] = {
    "cuda": {"MNIST CNN": (128, 1024, 4096), "ResNet-18": (32, 128, 512)},
    "cpu": {"MNIST CNN": (32, 128), "ResNet-18": (32,)},
}
_QUICK: Sizes = {"MNIST CNN": (4,)}


def measure(options: Options) -> Iterator[list[Row]]:
    """The rows, case by case."""
    sizes = _QUICK if options.quick else _CASES[options.device.type]
    pace = Pace(0.2, 0.5) if options.quick else Pace(10.0, 5.0)
    with Processes() as processes:
        for name, batches in sizes.items():
            for batch in batches:
                case = Case.random(options.device, name, batch)
                providers = [in_process(way, case) for way in WAYS]
                if options.device.type == "cpu":
                    providers += [elsewhere(way, case, processes) for way in PROCESS_WAYS]
                yield measure_case(case, providers, pace)


@dataclass(frozen=True)
class Case:
    """A model in training mode and the batches that the calls take in turn.

    Attributes:
        device: Where it runs.
        name: Of the architecture.
        model: The model.
        batches: Images with labels.
    """

    device: torch.device
    name: str
    model: nn.Module
    batches: list[tuple[Tensor, Tensor]]

    @classmethod
    def random(
        cls,
        device: torch.device,
        name: str,
        batch: int,
        count: int = _BATCHES,
        dtype: torch.dtype = torch.float32,
    ) -> Case:
        """A case with the architecture's own weights and images, which are always the same."""
        architecture = ARCHITECTURES[name]
        model = architecture.build(device).to(dtype).train()
        return cls(device, name, model, architecture.batches(batch, count, device, dtype))

    def to_check(self, dtype: torch.dtype) -> Case:
        """The case on which the gradients are compared."""
        return Case.random(self.device, self.name, min(_CHECKED, self.batch), 1, dtype)

    @property
    def batch(self) -> int:
        """Number of examples."""
        return len(self.batches[0][0])


def measure_case(case: Case, providers: list[Provider], pace: Pace) -> list[Row]:
    """The rows of one case, one per provider."""
    row = Row(
        benchmark="training step",
        provider="",
        attack="fgsm",
        norm="linf",
        batch=case.batch,
        example=case.batches[0][0][0].numel(),
        model=case.name,
        labels="given",
    )
    return compete(row, providers, case.device, pace, reference=REFERENCE)


def in_process(way: Way, case: Case) -> Provider:
    """A way that runs here."""
    turn = count()
    model, batches = case.model, case.batches
    if way.channels_last:
        model, batches = in_channels_last(model, batches)
    parameters = list(model.parameters())

    def call() -> None:
        try:
            way.step(model, *batches[next(turn) % len(batches)])
        finally:
            for parameter in parameters:
                parameter.grad = None

    return Provider(
        name=way.name,
        make=lambda: call,
        version=way.version,
        check=lambda _: difference(way, case),
        note="" if way.float64 else "compared in float32",
        peak_mib=lambda: saved_mib(call, model, [tensor for pair in batches for tensor in pair]),
    )


def elsewhere(way: ProcessWay, case: Case, processes: Processes) -> Provider:
    """A way that runs in another process."""

    def check(_: object) -> str:
        checked = case.to_check(torch.float64)
        found = processes.gradients(way, case.name, checked.model, checked.batches[0])
        return _judged(found, _gradients(by_hand, checked), torch.float64)

    return Provider(
        name=way.name,
        make=lambda: processes.prepared(way, case.name, case.model, case.batches),
        version=lambda: processes.version(way),
        check=check,
        note=way.note,
    )


def difference(way: Way, case: Case) -> str:
    """What is wrong with the gradients of a way, "" when nothing is."""
    dtype = torch.float64 if way.float64 else torch.float32
    right = in_eval_mode if way.eval_mode else by_hand
    checked = case.to_check(dtype)
    expected = _gradients(right, checked)
    if way.channels_last:
        model, batches = in_channels_last(checked.model, checked.batches)
        checked = replace(checked, model=model, batches=batches)
    return _judged(_gradients(way.step, checked), expected, dtype)


def _gradients(step: Step, case: Case) -> Gradients:
    model = copy.deepcopy(case.model)
    with exact_arithmetic():
        step(model, *case.batches[0])
    found = [parameter.grad for parameter in model.parameters()]
    return [grad for grad in found if grad is not None]


def _judged(found: Gradients, expected: Gradients, dtype: torch.dtype) -> str:
    worst = max(
        float((own - other).norm() / other.norm())
        for own, other in zip(found, expected, strict=True)
    )
    if worst <= _TOLERANCE[dtype]:
        return ""
    return f"a parameter's gradient is {worst:.1e} away from that of the step by hand"


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; 0 when every case was measured."""
    return run("training_step", __doc__ or "", measure, plots.time_and_memory, arguments)


if __name__ == "__main__":
    sys.exit(main())
