"""What one call adds to a recipe: steps, bounds and masks, feature by feature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchfgsm.core.norms import Bound
from torchfgsm.core.recipe import Recipe
from torchfgsm.models.features import Features

Length = float | Tensor


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
        masks_start: Whether entries whose mask is 0 stay where they are in a random start too. NSL
            masks the gradient alone.
    """

    steps: Sequence[Length]
    radii: Sequence[Length | None]
    lows: Sequence[Bound]
    highs: Sequence[Bound]
    masks: Sequence[Tensor | float | None]
    generator: torch.Generator | None = None
    masks_start: bool = True

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
        as_in_originals: bool = False,
    ) -> Call:
        """The recipe's numbers where the call gives nothing else, in each feature's dtype.

        A length of shape (N,) is one number per example, whatever N is. The originals know no such
        form: `as_in_originals` leaves it to broadcast along the last axis, as theirs does, and
        masks the gradient alone.

        Raises:
            ValueError: Neither the recipe nor the call says how long a step is.
        """
        length = recipe.step if step is None else step
        if length is None:
            raise ValueError("the recipe has no step: give it to the call as step=")
        low = features.spread(recipe.clip_min if clip_min is None else clip_min)
        high = features.spread(recipe.clip_max if clip_max is None else clip_max)
        radius = recipe.epsilon if epsilon is None else epsilon
        spread = _cast if as_in_originals else _per_example
        return cls(
            steps=[spread(length, tensor) for tensor in features.tensors],
            radii=[spread(radius, tensor) for tensor in features.tensors],
            lows=_cast_each(low, features),
            highs=_cast_each(high, features),
            masks=_cast_each(features.select(mask), features),
            generator=generator,
            masks_start=not as_in_originals,
        )

    def only(self, found: Sequence[int]) -> Call:
        """What concerns some of the features; a random start is not among it."""

        def pick(values: Sequence[Any]) -> list[Any]:
            return [values[i] for i in found]

        return Call(
            pick(self.steps), pick(self.radii), pick(self.lows), pick(self.highs), pick(self.masks)
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
