"""The engine that runs any recipe: condition, direction, step, projection, clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchfgsm import norms
from torchfgsm.features import Features
from torchfgsm.gradient import condition
from torchfgsm.recipe import Recipe

Length = float | Tensor
GradientAt = Callable[[int, list[Tensor]], list[Tensor | None]]


@dataclass(frozen=True)
class Call:
    """What one call adds to a recipe, one entry per feature.

    Attributes:
        steps: Length of a step: a number, or a tensor that broadcasts to the feature.
        radii: Radius of the ball, likewise, or None.
        lows: Lower bound of the feature, or None.
        highs: Upper bound of the feature, or None.
        masks: Factor on the gradient, or None.
        generator: Source of randomness of a random start.
    """

    steps: Sequence[Length]
    radii: Sequence[Length | None]
    lows: Sequence[norms.Bound]
    highs: Sequence[norms.Bound]
    masks: Sequence[Tensor | float | None]
    generator: torch.Generator | None = None

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        features: Features,
        *,
        step: Length | None = None,
        epsilon: Length | None = None,
        clip_min: Any = None,
        clip_max: Any = None,
        mask: Any = None,
        generator: torch.Generator | None = None,
    ) -> Call:
        """The recipe's numbers where the call gives nothing else, in each feature's dtype.

        Raises:
            ValueError: Neither the recipe nor the call says how long a step is.
        """
        length = recipe.step if step is None else step
        if length is None:
            raise ValueError("the recipe has no step: give it to the call as step=")
        low = features.spread(recipe.clip_min if clip_min is None else clip_min)
        high = features.spread(recipe.clip_max if clip_max is None else clip_max)
        radius = recipe.epsilon if epsilon is None else epsilon
        return cls(
            steps=[_per_example(length, tensor) for tensor in features.tensors],
            radii=[_per_example(radius, tensor) for tensor in features.tensors],
            lows=_cast_each(low, features),
            highs=_cast_each(high, features),
            masks=_cast_each(features.select(mask), features),
            generator=generator,
        )


def _per_example(length: Any, like: Tensor) -> Any:
    """A length of shape (N,) in a shape that broadcasts over each example."""
    length = _cast(length, like)
    if isinstance(length, Tensor) and length.shape == like.shape[:1]:
        return length.reshape(-1, *[1] * (like.dim() - 1))
    return length


def _cast(value: Any, like: Tensor) -> Any:
    """Tensors and arrays in the feature's dtype, so that the result keeps it."""
    if value is None or isinstance(value, (int, float)):
        return value
    return torch.as_tensor(value).to(device=like.device, dtype=like.dtype)


def _cast_each(values: Sequence[Any], features: Features) -> list[Any]:
    return [_cast(value, like) for value, like in zip(values, features.tensors, strict=True)]


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
    for turn in range(recipe.iterations):
        grads = gradient_at(turn, x)
        found = [i for i, grad in enumerate(grads) if grad is not None]
        _refuse_missing(features, grads, recipe)
        conditioned = [
            condition(
                grad,
                nonfinite=recipe.nonfinite,
                mask=call.masks[i],
                clip_grad=recipe.clip_grad,
                x=x[i],
                clip_min=call.lows[i],
                clip_max=call.highs[i],
            )
            for i, grad in enumerate(grads)
            if grad is not None
        ]
        directions = _directions(conditioned, recipe)
        moved = _move(
            [x[i] for i in found],
            [origin[i] for i in found],
            directions,
            recipe,
            _only(call, found),
        )
        x = list(origin)  # a feature without a gradient goes back to where it was, as in NSL
        for i, tensor in zip(found, moved, strict=True):
            x[i] = tensor
    # What nothing has moved is copied: the result never shares memory with the input.
    return [a.clone() if a is b else a for a, b in zip(x, origin, strict=True)]


def _only(call: Call, found: list[int]) -> Call:
    def pick(values: Sequence[Any]) -> list[Any]:
        return [values[i] for i in found]

    return Call(
        pick(call.steps), pick(call.radii), pick(call.lows), pick(call.highs), pick(call.masks)
    )


def _refuse_missing(features: Features, grads: Sequence[Tensor | None], recipe: Recipe) -> None:
    missing = [name for name, grad in zip(features.names, grads, strict=True) if grad is None]
    if missing and recipe.missing_gradient == "refuse":
        what = "x" if missing == [""] else f"features {missing}"
        raise ValueError(
            f"no path leads from {what} to the loss, so no gradient exists: check that the model "
            "does not detach its input or round it, or use a recipe with missing_gradient='stay'"
        )


def _directions(grads: list[Tensor], recipe: Recipe) -> list[Tensor]:
    if not grads:
        return []
    if recipe.zero_gradient == "refuse":
        dead = torch.stack([(g == 0).flatten(1).all(1) for g in grads]).all(0)
        if bool(dead.any()):
            raise ValueError(
                f"{int(dead.sum())} of {len(dead)} examples have an all-zero gradient, the first "
                f"at index {int(dead.nonzero()[0])}: a saturated loss cannot be attacked this way"
            )
    # CleverHans' torch port reduces an input of shape (N,) over the batch.
    whole = recipe.scalar_examples == "joint"
    rows = [g[None] if whole and g.dim() == 1 else g for g in grads]
    found = norms.direction(
        rows,
        recipe.norm,
        guard=recipe.guard,
        joint=recipe.joint,
        nan_has_sign=recipe.nonfinite != "propagate",
    )
    return [d.reshape(g.shape) for d, g in zip(found, grads, strict=True)]


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
            deltas = _project(deltas, recipe, call)
        x = [a + d for a, d in zip(origin, deltas, strict=True)]
        return _clip(x, recipe, call)
    starts_clipped = recipe.order == "clip_project_clip" and call.radii[0] is not None
    return _clip(x, recipe, call) if starts_clipped else x


def _random_radii(recipe: Recipe, call: Call) -> list[Length]:
    """The recipe's own radius, else the ball's, else the step."""
    if recipe.random_radius is not None:
        return [recipe.random_radius] * len(call.steps)
    # A radius of 0 counts as none, as in NSL's random_init.
    return [
        step if radius is None or (not isinstance(radius, Tensor) and radius == 0) else radius
        for step, radius in zip(call.steps, call.radii, strict=True)
    ]


def _move(
    x: Sequence[Tensor],
    origin: Sequence[Tensor],
    directions: Sequence[Tensor],
    recipe: Recipe,
    call: Call,
) -> list[Tensor]:
    """One step, projected and clipped in the recipe's order."""
    steps = [d * length for d, length in zip(directions, call.steps, strict=True)]
    if recipe.order == "project_clip":
        deltas = [s + a - b for s, a, b in zip(steps, x, origin, strict=True)]
        deltas = _project(deltas, recipe, call)
        if not recipe.through_perturbation:
            # What stays differentiable is the way from the origin (NSL stops the gradient here).
            deltas = [d.detach() for d in deltas]
        return _clip([b + d for b, d in zip(origin, deltas, strict=True)], recipe, call)
    moved = _clip([a + s for a, s in zip(x, steps, strict=True)], recipe, call)
    if not moved or call.radii[0] is None:
        return moved
    deltas = _project([a - b for a, b in zip(moved, origin, strict=True)], recipe, call)
    return _clip([b + d for b, d in zip(origin, deltas, strict=True)], recipe, call)


def _project(deltas: Sequence[Tensor], recipe: Recipe, call: Call) -> list[Tensor]:
    radii = [radius for radius in call.radii if radius is not None]
    if not radii:
        return list(deltas)
    whole = recipe.scalar_examples == "joint"
    rows = [d[None] if whole and d.dim() == 1 else d for d in deltas]
    projected = norms.project(rows, radii, recipe.norm, guard=recipe.guard, joint=recipe.joint)
    return [p.reshape(d.shape) for p, d in zip(projected, deltas, strict=True)]


def _clip(x: Sequence[Tensor], recipe: Recipe, call: Call) -> list[Tensor]:
    found = []
    for tensor, low, high in zip(x, call.lows, call.highs, strict=True):
        if recipe.crossed_clip == "min":
            # The upper bound first, so that the lower one wins where they cross.
            tensor, high = norms.clipped(tensor, None, high), None
        found.append(norms.clipped(tensor, low, high))
    return found
