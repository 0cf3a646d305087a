"""The configurations of `nsl.configs` that make adversarial neighbors."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from torchfgsm.core.presets import NSL_WORDS, known_norm
from torchfgsm.core.recipe import Recipe


class NormType(enum.Enum):
    """Types of norms, as `nsl.configs.NormType`."""

    L1 = "l1"
    L2 = "l2"
    INFINITY = "infinity"

    @classmethod
    def all(cls) -> list[NormType]:
        """All norms."""
        return list(cls)


@dataclass
class AdvNeighborConfig:
    """How adversarial neighbors are made, as `nsl.configs.AdvNeighborConfig`.

    Attributes:
        feature_mask: Factor in [0, 1] on the gradient before its direction is taken, in the
            features' structure; None counts as 1.
        adv_step_size: Length of one step in the features' units; a negative one descends.
        adv_grad_norm: A `NormType` or its value; the norm is taken over all features jointly.
        clip_value_min: Lower bound of the features: a number, a tensor or a collection of these.
        clip_value_max: Upper bound, likewise.
        pgd_iterations: Number of steps; 1 is FGSM.
        pgd_epsilon: Radius of the ball to project to; None: no projection.
        random_init: Start at a random point of the ball, which moves masked entries too, as in the
            original.

    Raises:
        ValueError: An unknown norm.
    """

    feature_mask: Any = None
    adv_step_size: Any = 0.001
    adv_grad_norm: Any = "l2"
    clip_value_min: Any = None
    clip_value_max: Any = None
    pgd_iterations: int = 1
    pgd_epsilon: Any = None
    random_init: bool = False

    def __post_init__(self) -> None:
        try:
            self.adv_grad_norm = NormType(self.adv_grad_norm)
        except ValueError:
            known = ", ".join(repr(norm.value) for norm in NormType)
            meant = known_norm(self.adv_grad_norm)
            raise ValueError(
                f"adv_grad_norm must be one of {known} or a NormType, got {self.adv_grad_norm!r}"
                + (f"; use {NSL_WORDS[meant]!r}" if meant else "")
            ) from None

    def recipe(self) -> Recipe:
        """The configuration as a recipe, without what is a tensor or a collection."""
        return Recipe.nsl(
            adv_step_size=_number(self.adv_step_size),
            adv_grad_norm=self.adv_grad_norm,
            pgd_iterations=self.pgd_iterations,
            pgd_epsilon=_number(self.pgd_epsilon),
            random_init=self.random_init,
        )


def _number(value: Any) -> float | None:
    """The value if it is a number; None for a tensor, which is given to the call."""
    return value if isinstance(value, (int, float)) else None


@dataclass
class AdvRegConfig:
    """The weight of the adversarial loss and its neighbors, as `nsl.configs.AdvRegConfig`.

    Attributes:
        multiplier: Factor of the adversarial loss; the clean loss has 1.
        adv_neighbor_config: How adversarial neighbors are made.
    """

    multiplier: float = 0.2
    adv_neighbor_config: AdvNeighborConfig = field(default_factory=AdvNeighborConfig)


def make_adv_reg_config(
    multiplier: float = 0.2,
    feature_mask: Any = None,
    adv_step_size: Any = 0.001,
    adv_grad_norm: Any = "l2",
    clip_value_min: Any = None,
    clip_value_max: Any = None,
    pgd_iterations: int = 1,
    pgd_epsilon: Any = None,
    random_init: bool = False,
) -> AdvRegConfig:
    """Both configurations from flat arguments, as `nsl.configs.make_adv_reg_config`.

    Args:
        multiplier: See `AdvRegConfig`.
        feature_mask: See `AdvNeighborConfig`, like all that follow.
        adv_step_size: Length of one step.
        adv_grad_norm: The norm.
        clip_value_min: Lower bound of the features.
        clip_value_max: Upper bound of the features.
        pgd_iterations: Number of steps.
        pgd_epsilon: Radius of the ball.
        random_init: Start at a random point.

    Returns:
        The configuration.

    Raises:
        ValueError: An unknown norm.
    """
    return AdvRegConfig(
        multiplier=multiplier,
        adv_neighbor_config=AdvNeighborConfig(
            feature_mask=feature_mask,
            adv_step_size=adv_step_size,
            adv_grad_norm=adv_grad_norm,
            clip_value_min=clip_value_min,
            clip_value_max=clip_value_max,
            pgd_iterations=pgd_iterations,
            pgd_epsilon=pgd_epsilon,
            random_init=random_init,
        ),
    )
