"""How far a recipe can move an input, and which of its lengths and bounds matter."""

from __future__ import annotations

import math

from torchfgsm.core.recipe import Recipe

# Lengths that are equal but for the rounding of their decimal numbers.
_ROUNDING = 1e-9


def is_random(recipe: Recipe) -> bool:
    """Whether attacks start anywhere else than at the input."""
    return recipe.random_start != "none" and start_radius(recipe) > 0


def start_radius(recipe: Recipe) -> float:
    """Radius of the random start; 0 without one."""
    if recipe.random_start == "none":
        return 0.0
    if recipe.random_radius is not None:
        return recipe.random_radius
    return recipe.epsilon or abs(recipe.step or 0.0)


def reach(recipe: Recipe) -> float:
    """Norm of the longest perturbation that steps without a ball can make."""
    return recipe.iterations * abs(recipe.step or 0.0) + start_radius(recipe)


def ball_is_idle(recipe: Recipe) -> bool:
    """Whether no perturbation reaches the edge of the ball: the triangle inequality."""
    return recipe.epsilon is None or reach(recipe) <= recipe.epsilon * (1 + _ROUNDING)


def ends_at_the_edge(recipe: Recipe) -> bool:
    """Whether one L-inf step from the input is cut to the ball's radius, entry by entry."""
    return (
        recipe.norm == "linf"
        and recipe.iterations == 1
        and not is_random(recipe)
        and not ball_is_idle(recipe)
    )


def step_towards_loss(recipe: Recipe) -> float:
    """Length of a step up the loss against the labels; negative where it goes down.

    0 where no step is made; the ball's radius where one step ends at its edge.
    """
    if recipe.iterations == 0:
        return 0.0
    step = recipe.step or 0.0
    if ends_at_the_edge(recipe) and recipe.epsilon is not None:
        step = math.copysign(recipe.epsilon, step)
    return -step if recipe.targeted else step


def finite(bound: float | None) -> float | None:
    """A bound that clips, or None: an infinite one clips nothing."""
    return None if bound is None or math.isinf(bound) else bound


def clips(recipe: Recipe) -> bool:
    """Whether there is a bound that clips."""
    return finite(recipe.clip_min) is not None or finite(recipe.clip_max) is not None


def clips_crossed(recipe: Recipe) -> bool:
    """Whether the lower bound is above the upper one."""
    low, high = recipe.clip_min, recipe.clip_max
    return low is not None and high is not None and low > high
