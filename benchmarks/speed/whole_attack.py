"""Whole attacks against the peers: `python -m benchmarks.speed.whole_attack`.

FGSM under L-inf (8/255), L2 (0.5) and L1 (2), and PGD with ten L-inf steps without a random start,
within [0, 1], on models with random weights. The loop by hand takes part twice: how far these two
are apart is the noise. Every provider's examples are first compared with those of the loop written
by hand, under exact convolutions (no TF32, deterministic); times are taken at torch's defaults,
over four batches in turn. ART takes and gives numpy arrays: its copies are part of its attack.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import count

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import plots
from benchmarks.rows import Row
from benchmarks.speed import attack_providers
from benchmarks.speed.attack_providers import EPS, STEP, Attack, Target
from benchmarks.speed.command import Options, Sizes, run
from benchmarks.speed.contest import Pace, Provider, compete
from benchmarks.speed.models import ARCHITECTURES
from torchfgsm.system.arithmetic import exact_arithmetic

REFERENCE = "by hand"
AGAIN = "by hand, again"

# Share of entries that may differ: float noise turns the sign of a gradient that is almost zero,
# and ten steps carry it on.
_NOISE = {"fgsm": 1e-3, "pgd-10": 1e-2}
# Share of examples that may lie elsewhere under L2 and L1: two entries may be as good as equal.
_NOISY_EXAMPLES = 1e-2
_BATCHES = 4
_ATTACKS = (
    *(("fgsm", norm, labels) for norm in EPS for labels in ("given", "predicted")),
    ("pgd-10", "linf", "given"),
)

_CASES: Mapping[str, Sizes] = {
    "cuda": {
        "MLP": (1, 128, 4096),
        "MNIST CNN": (1, 128, 2048),
        "ResNet-18": (1, 32, 512),
        "ResNet-50": (1, 32, 128),
        "ViT-B/16": (1, 16, 64),
    },
    "cpu": {"MLP": (1, 128), "MNIST CNN": (1, 64), "ResNet-18": (1,)},
}
_QUICK: Sizes = {"MLP": (4,), "MNIST CNN": (2,)}


def measure(options: Options) -> Iterator[list[Row]]:
    """The rows, case by case."""
    sizes = _QUICK if options.quick else _CASES[options.device.type]
    pace = Pace(0.1, 0.5) if options.quick else Pace(4.0, 5.0)
    for name, batches in sizes.items():
        for batch in batches:
            for attack, norm, labels in _ATTACKS:
                yield measure_case(options.device, name, batch, attack, labels, pace, norm=norm)


def measure_case(
    device: torch.device,
    name: str,
    batch: int,
    attack: str,
    labels: str,
    pace: Pace,
    *,
    norm: str = "linf",
) -> list[Row]:
    """The rows of one case, one per provider."""
    architecture = ARCHITECTURES[name]
    model = architecture.build(device)
    batches = architecture.batches(batch, _BATCHES, device)
    case = Row(
        benchmark="whole attack",
        provider="",
        attack=attack,
        norm=norm,
        batch=batch,
        example=batches[0][0][0].numel(),
        model=name,
        labels=labels,
    )
    steps = 10 if attack == "pgd-10" else 1
    given = labels == "given"
    target = Target(
        model, architecture.shape, architecture.classes, *batches[-1], steps, given, norm
    )
    with exact_arithmetic():
        expected = by_hand(target)(batches[0][0], batches[0][1] if given else None)

    def check(result: object) -> str:
        if norm == "linf":
            return difference(result, expected, _NOISE[attack])
        return displaced(result, expected, batches[0][0])

    twice = [attack_providers.Maker(called, by_hand) for called in (REFERENCE, AGAIN)]
    providers = [
        Provider(made.name, _in_turn(made.make, target, batches), check, made.version)
        for made in (*twice, *attack_providers.MAKERS)
    ]
    return compete(case, providers, device, pace, reference=REFERENCE)


def by_hand(target: Target) -> Attack:
    """The least that has to be done: one forward and one input gradient per step."""

    def attack(x: Tensor, y: Tensor | None) -> Tensor:
        start = x
        for _ in range(target.steps):
            x = x.detach().requires_grad_()
            logits = target.model(x)
            if y is None:
                y = logits.detach().argmax(1)
            (grad,) = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), x)
            with torch.no_grad():
                if target.steps == 1:
                    x = (x + target.eps * _direction(grad, target.norm)).clamp_(0, 1)
                else:
                    delta = (x + STEP * grad.sign() - start).clamp_(-target.eps, target.eps)
                    x = (start + delta).clamp_(0, 1)
        return x.detach()

    return attack


def _direction(grad: Tensor, norm: str) -> Tensor:
    """The step of length one that raises the linearised loss most."""
    if norm == "linf":
        return grad.sign()
    rows = grad.flatten(1)
    if norm == "l2":
        lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        return (rows / lengths).view_as(grad)
    largest = rows.abs().argmax(dim=1, keepdim=True)
    signs = rows.gather(1, largest).sign()
    return torch.zeros_like(rows).scatter_(1, largest, signs).view_as(grad)


def _in_turn(
    make: Callable[[Target], Attack], target: Target, batches: list[tuple[Tensor, Tensor]]
) -> Callable[[], Callable[[], object]]:
    """A call that takes the batches in turn, the first one under exact convolutions.

    The attack is built anew for the later ones: a captured one keeps the settings of its making.
    """
    parameters = list(target.model.parameters())

    def made() -> Callable[[], object]:
        turn = count()
        with exact_arithmetic():
            attack = make(target)

        def call() -> object:
            nonlocal attack
            index = next(turn)
            x, y = batches[index % len(batches)]
            labels = y if target.given else None
            if index == 0:
                with exact_arithmetic():
                    result = attack(x, labels)
            else:
                if index == 1:
                    attack = make(target)
                result = attack(x, labels)
            _drop_gradients(parameters)
            return result

        return call

    return made


def _drop_gradients(parameters: list[nn.Parameter]) -> None:
    # Peers leave the attack's gradients in the parameters: they would count as their memory.
    if parameters[0].grad is not None:
        for parameter in parameters:
            parameter.grad = None


def difference(result: object, expected: Tensor, noise: float) -> str:
    """What is wrong with adversarial examples, "" when nothing is.

    Args:
        result: A tensor or an array.
        expected: The right examples.
        noise: Share of the entries that may differ by more than float noise.

    Returns:
        The difference in words.
    """
    found = torch.as_tensor(result).detach().to(expected.device)
    if (found.shape, found.dtype) != (expected.shape, expected.dtype):
        return _of_another_kind(found, expected)
    share = float(((found - expected).abs() > EPS["linf"] / 100).float().mean())
    return "" if share <= noise else f"{share:.2%} of the entries differ from the loop by hand"


def displaced(result: object, expected: Tensor, x: Tensor) -> str:
    """What is wrong with L2 or L1 examples, "" when nothing is.

    Args:
        result: A tensor or an array.
        expected: The right examples.
        x: The clean ones: a perturbation may be off by 1% of its length.

    Returns:
        The difference in words.
    """
    found = torch.as_tensor(result).detach().to(expected.device)
    if (found.shape, found.dtype) != (expected.shape, expected.dtype):
        return _of_another_kind(found, expected)
    off = (found - expected).flatten(1).norm(dim=1)
    # Not off > ...: NaN is wrong too.
    wrong = ~(off <= 0.01 * (expected - x).flatten(1).norm(dim=1))
    share = float(wrong.float().mean())
    return "" if share <= _NOISY_EXAMPLES else f"{share:.2%} of the examples lie elsewhere"


def _of_another_kind(found: Tensor, expected: Tensor) -> str:
    return f"gives {found.dtype} {tuple(found.shape)} where {expected.dtype} is expected"


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; 0 when every case was measured."""
    return run("whole_attack", __doc__ or "", measure, plots.ratios, arguments)


if __name__ == "__main__":
    sys.exit(main())
