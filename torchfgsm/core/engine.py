"""The engine that runs any recipe: a start, then turn after turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from torchfgsm.core import norms, step
from torchfgsm.core.limits import Call, Length
from torchfgsm.core.recipe import Recipe
from torchfgsm.models.features import Features

GradientAt = Callable[[int, list[Tensor]], list[Tensor | None]]
Turn = Callable[[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor], Recipe, Call], list[Tensor]]
BY_DEVICE: dict[str, Turn] = {}
"""Type of device -> what takes a turn there in place of `step.turn`; the kernels register it."""


def run(features: Features, gradient_at: GradientAt, recipe: Recipe, call: Call) -> list[Tensor]:
    """Runs a recipe; the one pipeline behind every attack of this package.

    Args:
        features: The input's features.
        gradient_at: (turn, tensors) -> gradient of the attack's loss there, None for a feature
            without a path to the loss.
        recipe: The choices.
        call: Steps, bounds and masks of this call.

    Returns:
        The adversarial features, in the shapes, dtypes and memory formats of the input's.

    Raises:
        ValueError: A missing or zero gradient that the recipe refuses.
    """
    origin = features.tensors
    x = _start(origin, recipe, call)
    take = BY_DEVICE.get(origin[0].device.type, step.turn) if origin else step.turn
    for turn in range(recipe.iterations):
        grads = gradient_at(turn, x)
        found = [i for i, grad in enumerate(grads) if grad is not None]
        refuse_missing(features, grads, recipe)
        given = ([x[i] for i in found], [grad for grad in grads if grad is not None])
        of_these = call.only(found)
        if recipe.zero_gradient == "refuse" and found:
            _refuse_zero(*given, recipe, of_these)
        moved = take(given[0], [origin[i] for i in found], given[1], recipe, of_these)
        x = list(origin)  # a feature without a gradient goes back to where it was, as in NSL
        for i, tensor in zip(found, moved, strict=True):
            x[i] = tensor
    # What nothing has moved is copied: the result never shares memory with the input.
    return [a.clone() if a is b else a for a, b in zip(x, origin, strict=True)]


def refuse_missing(features: Features, grads: Sequence[Tensor | None], recipe: Recipe) -> None:
    """Refuses features without a gradient where the recipe says so.

    Raises:
        ValueError: Their names, and what may be the cause.
    """
    missing = [name for name, grad in zip(features.names, grads, strict=True) if grad is None]
    if missing and recipe.missing_gradient == "refuse":
        what = "x" if missing == [""] else f"features {missing}"
        raise ValueError(
            f"no path leads from {what} to the loss, so no gradient exists: check that the model "
            "does not detach its input or round it, or use a recipe with missing_gradient='stay'. "
            "Of torch.jit.optimize_for_inference give the module from before: what it makes has no "
            "gradient"
        )


def _refuse_zero(x: Sequence[Tensor], grads: Sequence[Tensor], recipe: Recipe, call: Call) -> None:
    conditioned = step.conditioned(x, grads, recipe, call)
    dead = torch.stack([(g == 0).flatten(1).all(1) for g in conditioned]).all(0)
    if bool(dead.any()):
        raise ValueError(
            f"{int(dead.sum())} of {len(dead)} examples have an all-zero gradient, the first at "
            f"index {int(dead.nonzero()[0])}: a saturated loss cannot be attacked this way"
        )


def _start(origin: Sequence[Tensor], recipe: Recipe, call: Call) -> list[Tensor]:
    """The first iterate: the input, or a random point of the ball around it."""
    x = list(origin)
    if recipe.random_start != "none":
        deltas = norms.random_in_ball(
            origin,
            _random_radii(recipe, call),
            "linf" if recipe.random_start == "cube" else recipe.norm,
            joint=recipe.joint,
            biased=recipe.random_start == "biased_l1",
            generator=call.generator,
        )
        if recipe.order == "clip_project_clip":
            deltas = step.project(deltas, recipe, call)
        x = [a + d for a, d in zip(origin, _kept_by_masks(deltas, call), strict=True)]
        return step.clip(x, recipe, call)
    starts_clipped = recipe.order == "clip_project_clip" and call.radii[0] is not None
    return step.clip(x, recipe, call) if starts_clipped else x


def _kept_by_masks(deltas: list[Tensor], call: Call) -> list[Tensor]:
    """A start's perturbations, 0 where the mask is: what a mask keeps, no start moves."""
    if not call.masks_start:
        return deltas
    kept = []
    for delta, mask in zip(deltas, call.masks, strict=True):
        if isinstance(mask, Tensor):
            delta = torch.where(mask == 0, 0.0, delta)
        elif mask == 0:
            delta = torch.zeros_like(delta)
        kept.append(delta)
    return kept


def _random_radii(recipe: Recipe, call: Call) -> list[Length]:
    """The recipe's own radius, else the ball's, else the step."""
    if recipe.random_radius is not None:
        return [recipe.random_radius] * len(call.steps)
    # A radius of 0 counts as none, as in NSL's random_init.
    return [
        length if radius is None or (not isinstance(radius, Tensor) and radius == 0) else radius
        for length, radius in zip(call.steps, call.radii, strict=True)
    ]
