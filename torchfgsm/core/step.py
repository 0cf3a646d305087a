"""One turn of an attack in plain torch: condition, direction, step, projection, clip.

What the CUDA kernels compute (`torchfgsm/kernel/csrc`), and what runs wherever they do not: on
CPUs, while autograd follows, and where no kernel can be had.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from torchfgsm.core import norms
from torchfgsm.core.gradient import condition
from torchfgsm.core.limits import Call
from torchfgsm.core.recipe import Recipe


def turn(
    x: Sequence[Tensor],
    origin: Sequence[Tensor],
    grads: Sequence[Tensor],
    recipe: Recipe,
    call: Call,
) -> list[Tensor]:
    """The features after one turn.

    Args:
        x: Where the turn starts, for each feature (N, ...).
        origin: The clean features, same shapes and dtypes.
        grads: Gradients of the attack's loss at `x`, likewise.
        recipe: The choices.
        call: Steps, bounds and masks.

    Returns:
        The moved features, same shapes and dtypes. Half precision is computed in itself, but
        reduced in float32.
    """
    if not x:
        return []
    steps = [
        direction * length
        for direction, length in zip(
            _directions(conditioned(x, grads, recipe, call), recipe), call.steps, strict=True
        )
    ]
    if recipe.order == "project_clip":
        deltas = [s + a - b for s, a, b in zip(steps, x, origin, strict=True)]
        deltas = project(deltas, recipe, call)
        if not recipe.through_perturbation:
            # What stays differentiable is the way from the origin (NSL stops the gradient here).
            deltas = [d.detach() for d in deltas]
        return clip([b + d for b, d in zip(origin, deltas, strict=True)], recipe, call)
    moved = clip([a + s for a, s in zip(x, steps, strict=True)], recipe, call)
    if call.radii[0] is None:
        return moved
    deltas = project([a - b for a, b in zip(moved, origin, strict=True)], recipe, call)
    return clip([b + d for b, d in zip(origin, deltas, strict=True)], recipe, call)


def conditioned(
    x: Sequence[Tensor], grads: Sequence[Tensor], recipe: Recipe, call: Call
) -> list[Tensor]:
    """The gradients as directions are computed from them; arguments as in `turn`."""
    return [
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
    ]


def _directions(grads: list[Tensor], recipe: Recipe) -> list[Tensor]:
    found = norms.direction(
        _as_examples(grads, recipe),
        recipe.norm,
        guard=recipe.guard,
        joint=recipe.joint,
        nan_has_sign=recipe.nonfinite != "propagate",
    )
    return [d.reshape(g.shape) for d, g in zip(found, grads, strict=True)]


def _as_examples(tensors: Sequence[Tensor], recipe: Recipe) -> list[Tensor]:
    """CleverHans' torch port reduces an input of shape (N,) over the batch: it is one example."""
    whole = recipe.scalar_examples == "joint"
    return [t[None] if whole and t.dim() == 1 else t for t in tensors]


def project(deltas: Sequence[Tensor], recipe: Recipe, call: Call) -> list[Tensor]:
    """Perturbations moved into the ball, where there is one."""
    radii = [radius for radius in call.radii if radius is not None]
    if not radii:
        return list(deltas)
    projected = norms.project(
        _as_examples(deltas, recipe), radii, recipe.norm, guard=recipe.guard, joint=recipe.joint
    )
    return [p.reshape(d.shape) for p, d in zip(projected, deltas, strict=True)]


def clip(x: Sequence[Tensor], recipe: Recipe, call: Call) -> list[Tensor]:
    """Features moved into their bounds, each side by itself."""
    found = []
    for tensor, low, high in zip(x, call.lows, call.highs, strict=True):
        if recipe.crossed_clip == "min":
            # The upper bound first, so that the lower one wins where they cross.
            tensor, high = norms.clipped(tensor, None, high), None
        found.append(norms.clipped(tensor, low, high))
    return found
