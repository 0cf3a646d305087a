"""What changing one choice does to the perturbation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfgsm import Recipe, attack

# Length of one step in units of a pixel, whose range is [0, 1].
STEPS = {"linf": 0.1, "l2": 1.0, "l1": 1.0}
ORDERS = {"linf": math.inf, "l2": 2, "l1": 1}
NSL_NORMS = {"linf": "infinity", "l2": "l2", "l1": "l1"}

# share: of signs or examples; relative: L2 norm of the difference over the reference's;
# factor: how many times as large.
Unit = Literal["share", "relative", "factor"]
# Words with {} where the value goes, its unit, the value.
Measured = tuple[str, Unit, float]


@dataclass(frozen=True)
class Bench:
    """A model that gives logits, and the examples (N, 1, H, W) that are attacked."""

    model: nn.Module
    x: Tensor
    y: Tensor

    def delta(self, recipe: Recipe, model: nn.Module | None = None, **call: Any) -> Tensor:
        """The perturbation that a recipe makes, against the true labels unless y is given."""
        x_adv: Tensor = attack(model or self.model, self.x, recipe=recipe, **{"y": self.y, **call})
        return x_adv - self.x

    def times(self, factor: float, *, softmax: bool = False) -> nn.Module:
        """The model with logits `factor` times as large."""
        head: list[nn.Module] = [_Times(factor), *[nn.Softmax(1)] * softmax]
        return nn.Sequential(self.model, *head)


class _Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, logits: Tensor) -> Tensor:
        return self.factor * logits


def _base(norm: str, *, iterated: bool = False) -> Recipe:
    """The recipe of which one field is changed: logits, per-example loss, no clip."""
    step, order = STEPS[norm], ORDERS[norm]
    if iterated:
        return Recipe.cleverhans_tf2(step, order, step / 4, nb_iter=10)
    return Recipe.cleverhans_tf2(step, order)


def relative(changed: Tensor, reference: Tensor) -> float:
    """The length of the difference over that of the reference."""
    return float((changed - reference).norm() / reference.norm())


def signs(changed: Tensor, reference: Tensor) -> float:
    """The share of entries with another sign."""
    return float((changed.sign() != reference.sign()).double().mean())


def unmoved(delta: Tensor) -> float:
    """The share of examples that are not moved."""
    return float((delta.flatten(1) == 0).all(1).double().mean())


def _effect(
    bench: Bench,
    *,
    base: dict[str, Any] | None = None,
    call: dict[str, Any] | None = None,
    iterated: bool = False,
    **changes: Any,
) -> Iterator[Measured]:
    """The signs that flip under L-inf, and the relative difference under L2."""
    for norm in ("linf", "l2"):
        recipe = replace(_base(norm, iterated=iterated), **(base or {}))
        changed = bench.delta(replace(recipe, **changes), **(call or {}))
        reference = bench.delta(recipe)
        if norm == "linf":
            yield "{} of the signs change", "share", signs(changed, reference)
        else:
            yield "L2 perturbation {} away", "relative", relative(changed, reference)


def labels(bench: Bench) -> Iterator[Measured]:
    """Predicted labels in place of the true ones."""
    yield from _effect(bench, call={"y": None})
    recipe = _base("linf")
    moved = bench.delta(recipe) != bench.delta(recipe, y=None)
    yield "{} of the examples change", "share", float(moved.flatten(1).any(1).double().mean())


def model_output(bench: Bench) -> Iterator[Measured]:
    """Clipped probabilities, and a softmax that is taken for logits."""
    recipe = _base("l2")
    clipped = replace(recipe, model_output="probabilities")
    reference = bench.delta(recipe)
    changed = bench.delta(clipped, bench.times(1, softmax=True))
    yield (
        "clipped probabilities: L2 perturbation {} away",
        "relative",
        relative(changed, reference),
    )
    dead = unmoved(bench.delta(clipped, bench.times(3, softmax=True)))
    still_alive = unmoved(bench.delta(recipe, bench.times(3)))
    stuck = "{} of the examples do not move when the logits are 3 times as large"
    yield stuck, "share", dead - still_alive
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package warns of exactly this
        changed = bench.delta(recipe, bench.times(1, softmax=True))
    yield "softmax taken for logits: {} away", "relative", relative(changed, reference)


def reduction(bench: Bench) -> Iterator[Measured]:
    """The batch's mean loss in place of each example's own: only the guard sees it."""
    yield from _effect(bench, reduction="mean")
    recipe, confident = _base("l2"), bench.times(3)
    changed = bench.delta(replace(recipe, reduction="mean"), confident)
    reference = bench.delta(recipe, confident)
    yield "{} when the logits are 3 times as large", "relative", relative(changed, reference)


def norm_and_step(bench: Bench) -> Iterator[Measured]:
    """L2 in place of L-inf at equal length, and the lengths of the default steps."""
    linf, l2 = bench.delta(_base("linf")).flatten(1), bench.delta(_base("l2")).flatten(1)
    same_length = F.normalize(l2) * linf.norm(dim=1, keepdim=True)
    yield "L2 for L-inf at equal length: {} away", "relative", relative(same_length, linf)
    lengths = [bench.delta(r).norm() for r in (Recipe.cleverhans3(), Recipe.nsl())]
    yield (
        "CleverHans 3's default perturbation is {} times as long as NSL's",
        "factor",
        float(lengths[0] / lengths[1]),
    )


def clip(bench: Bench) -> Iterator[Measured]:
    """The result clipped to [0, 1]."""
    yield from _effect(bench, clip_min=0.0, clip_max=1.0)


def order(bench: Bench) -> Iterator[Measured]:
    """PGD that projects, then clips, with a clip to [0, 1]."""
    bounds = {"clip_min": 0.0, "clip_max": 1.0}
    yield from _effect(bench, base=bounds, iterated=True, order="project_clip")


def _upper_half(bench: Bench) -> Tensor:
    mask = torch.zeros_like(bench.x[:1])
    mask[..., : mask.shape[-2] // 2, :] = 1
    return mask


def mask(bench: Bench) -> Iterator[Measured]:
    """A mask on the gradient: L2 gives the rest of the image the whole length."""
    half = _upper_half(bench)
    recipe = _base("l2")
    reference = half * bench.delta(recipe)
    masked = bench.delta(recipe, mask=half)
    yield "L2 perturbation {} away from a masked one", "relative", relative(masked, reference)


def mask_settled(bench: Bench) -> Iterator[Measured]:
    """Under L-inf a mask on the perturbation is the same."""
    half = _upper_half(bench)
    recipe = _base("linf")
    yield (
        "{} of the signs",
        "share",
        signs(bench.delta(recipe, mask=half), half * bench.delta(recipe)),
    )


def all_settled(bench: Bench) -> Iterator[Measured]:
    """The presets of all libraries with the settings that make them equal, the furthest apart."""
    for norm in ("linf", "l2", "l1"):
        step, order = STEPS[norm], ORDERS[norm]
        recipes = [
            replace(Recipe.nsl(step, NSL_NORMS[norm]), reduction="sum"),
            Recipe.cleverhans3(step, ord=order),
            replace(Recipe.cleverhans_torch(step, order), reduction="sum"),
        ]
        reference = bench.delta(Recipe.cleverhans_tf2(step, order))
        worst = max(relative(bench.delta(recipe), reference) for recipe in recipes)
        yield f"{norm} {{}}", "relative", worst
