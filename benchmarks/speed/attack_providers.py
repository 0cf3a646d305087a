"""Who makes adversarial examples: the port in its ways, and the peers at the same settings."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import torchfgsm
from benchmarks.speed import peers

# Length of FGSM's step, and radius of PGD's ball, by norm.
EPS = {"linf": 8 / 255, "l2": 0.5, "l1": 2.0}
STEP = 2 / 255

# As CleverHans and ART name norms.
_ORDERS = {"linf": math.inf, "l2": 2, "l1": 1}

Attack = Callable[[Tensor, Tensor | None], Any]


@dataclass(frozen=True)
class Target:
    """What is attacked and how.

    Attributes:
        model: In eval mode.
        shape: Of one example.
        classes: Number of logits.
        x: An example of a batch.
        y: Its labels.
        steps: 1 for FGSM of length `EPS`; else PGD with L-inf steps of `STEP` within `EPS`.
        given: Whether the labels are given to the attack, rather than predicted by it.
        norm: "linf", or for FGSM "l2" or "l1" too.
    """

    model: nn.Module
    shape: tuple[int, ...]
    classes: int
    x: Tensor
    y: Tensor
    steps: int
    given: bool
    norm: str = "linf"

    @property
    def eps(self) -> float:
        """Length of the step, or radius of the ball."""
        return EPS[self.norm]


@dataclass(frozen=True)
class Maker:
    """One way to make an attack.

    Attributes:
        name: As in the rows.
        make: Builds the attack; raises where it cannot.
        version: Gives the version.
    """

    name: str
    make: Callable[[Target], Attack]
    version: Callable[[], str] = lambda: torch.__version__


def _own_version() -> str:
    return torchfgsm.__version__


def _torchfgsm(target: Target) -> Attack:
    model = target.model
    if target.steps == 1:
        return lambda x, y: torchfgsm.fgsm(
            model, x, y, eps=target.eps, norm=target.norm, clip_min=0.0, clip_max=1.0
        )
    return lambda x, y: torchfgsm.pgd(
        model,
        x,
        y,
        eps=target.eps,
        step_size=STEP,
        iterations=target.steps,
        random_start=False,
        clip_min=0.0,
        clip_max=1.0,
    )


def _captured(target: Target) -> Attack:
    if not target.x.is_cuda:
        raise NotImplementedError("a CUDA graph needs a CUDA device")
    ball = None if target.steps == 1 else target.eps
    recipe = torchfgsm.Recipe(
        norm=target.norm,  # type: ignore[arg-type]
        step=target.eps if target.steps == 1 else STEP,
        iterations=target.steps,
        epsilon=ball,
        clip_min=0.0,
        clip_max=1.0,
    )
    y = target.y if target.given else None
    attack: Attack = torchfgsm.capture(target.model, target.x, y, recipe=recipe)
    return attack


def _cleverhans(target: Target) -> Attack:
    name = "cleverhans.torch.attacks."
    if target.steps == 1:
        fgsm = peers.module(f"{name}fast_gradient_method").fast_gradient_method
        return lambda x, y: fgsm(
            target.model, x, target.eps, _ORDERS[target.norm], clip_min=0.0, clip_max=1.0, y=y
        ).detach()
    pgd = peers.module(f"{name}projected_gradient_descent").projected_gradient_descent
    return lambda x, y: pgd(
        target.model,
        x,
        target.eps,
        STEP,
        target.steps,
        math.inf,
        clip_min=0.0,
        clip_max=1.0,
        y=y,
        rand_init=False,
        sanity_checks=False,
    ).detach()


def _torchattacks(target: Target) -> Attack:
    library = peers.module("torchattacks")
    _needs_labels(target)
    if target.norm == "l1":
        raise NotImplementedError("the library has no such attack")
    attack: Attack
    if target.norm == "l2":
        attack = library.PGDL2(
            target.model, eps=target.eps, alpha=target.eps, steps=1, random_start=False
        )
    elif target.steps == 1:
        attack = library.FGSM(target.model, eps=target.eps)
    else:
        attack = library.PGD(
            target.model, eps=target.eps, alpha=STEP, steps=target.steps, random_start=False
        )
    return attack


def _foolbox(target: Target) -> Attack:
    library = peers.module("foolbox")
    _needs_labels(target)
    model = library.PyTorchModel(target.model, bounds=(0, 1), device=target.x.device)
    if target.steps == 1:
        names = {"linf": "Linf", "l2": "L2", "l1": "L1"}
        attack = getattr(library.attacks, f"{names[target.norm]}FastGradientAttack")()
    else:
        attack = library.attacks.LinfProjectedGradientDescentAttack(
            abs_stepsize=STEP, steps=target.steps, random_start=False
        )
    return lambda x, y: attack.run(model, x, y, epsilon=target.eps)


def _needs_labels(target: Target) -> None:
    if not target.given:
        raise NotImplementedError("the attack must be given labels")


def _art(target: Target) -> Attack:
    evasion = peers.module("art.attacks.evasion")
    classification = peers.module("art.estimators.classification")
    classifier = classification.PyTorchClassifier(
        target.model,
        nn.CrossEntropyLoss(),
        target.shape,
        target.classes,
        clip_values=(0.0, 1.0),
        device_type="gpu" if target.x.is_cuda else "cpu",
    )
    size = len(target.x)
    if target.steps == 1:
        attack = evasion.FastGradientMethod(
            classifier,
            norm=_ORDERS[target.norm],
            eps=target.eps,
            eps_step=target.eps,
            batch_size=size,
        )
    else:
        attack = evasion.ProjectedGradientDescent(
            classifier,
            eps=target.eps,
            eps_step=STEP,
            max_iter=target.steps,
            batch_size=size,
            verbose=False,
        )
    return lambda x, y: attack.generate(x.cpu().numpy(), None if y is None else y.cpu().numpy())


MAKERS = (
    Maker("torchfgsm", _torchfgsm, _own_version),
    Maker("torchfgsm, captured", _captured, _own_version),
    Maker("cleverhans", _cleverhans, peers.version_of("cleverhans")),
    Maker("torchattacks", _torchattacks, peers.version_of("torchattacks")),
    Maker("foolbox", _foolbox, peers.version_of("foolbox")),
    Maker("art", _art, peers.version_of("art")),
)
