"""A recipe in the options of a library, as far as the library has options for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from torchfgsm.core.presets import NSL_WORDS, NUMPY_ORDERS
from torchfgsm.core.recipe import Recipe
from torchfgsm.libraries.configuration import attack_options
from torchfgsm.translation.reach import (
    ball_is_idle,
    clips,
    ends_at_the_edge,
    finite,
    is_random,
    reach,
    start_radius,
    step_towards_loss,
)


def options_of(recipe: Recipe, library: str) -> dict[str, Any]:
    """The options of `library` that come nearest to the recipe, without those at their default."""
    defaults = attack_options(library)
    options = _WRITERS[library](recipe)
    return {name: value for name, value in options.items() if value != defaults[name]}


def _nsl(recipe: Recipe) -> dict[str, Any]:
    # NSL makes at least one step where it does not start at random: one of length 0 moves nothing.
    moves = recipe.iterations > 0 or is_random(recipe)
    step = recipe.step or 0.0
    ball = recipe.epsilon
    if is_random(recipe) and ball_is_idle(recipe) and start_radius(recipe) == abs(step):
        ball = None  # the random start has the radius of the ball, or of the step without one
    return {
        "adv_step_size": (-step if recipe.targeted else step) if moves else 0.0,
        "adv_grad_norm": NSL_WORDS[recipe.norm],
        "clip_value_min": finite(recipe.clip_min),
        "clip_value_max": finite(recipe.clip_max),
        "pgd_iterations": recipe.iterations if moves else 1,
        "pgd_epsilon": ball,
        "random_init": is_random(recipe),
    }


def _cleverhans3(recipe: Recipe) -> dict[str, Any]:
    return {**_cleverhans(recipe, "ord", "rand_init_eps"), "clip_grad": recipe.clip_grad}


def _cleverhans_tf2(recipe: Recipe) -> dict[str, Any]:
    return _cleverhans(recipe, "norm", "rand_minmax")


def _cleverhans_torch(recipe: Recipe) -> dict[str, Any]:
    options = _cleverhans(recipe, "norm", "rand_minmax")
    length = "eps_iter" if "eps_iter" in options else "eps"
    if options[length] < 0:  # refused there; the same step goes towards the label
        options |= {length: -options[length], "targeted": not recipe.targeted}
    return options


def _cleverhans(recipe: Recipe, norm: str, radius: str) -> dict[str, Any]:
    low, high = (
        (
            -math.inf if recipe.clip_min is None else recipe.clip_min,
            math.inf if recipe.clip_max is None else recipe.clip_max,
        )
        if clips(recipe)
        else (None, None)
    )
    shared = {
        norm: NUMPY_ORDERS[recipe.norm],
        "clip_min": low,
        "clip_max": high,
        "targeted": recipe.targeted,
    }
    single = recipe.iterations == 1 and not is_random(recipe)
    if single and (recipe.epsilon is None or ends_at_the_edge(recipe)):
        towards = step_towards_loss(recipe)
        return {"eps": -towards if recipe.targeted else towards, **shared}
    # Without a ball, one that no perturbation reaches, a whole step wider for the rounding.
    wide = float(f"{reach(recipe) + abs(recipe.step or 0.0):.6g}")
    eps = wide if recipe.epsilon is None else recipe.epsilon
    start = start_radius(recipe)
    return {
        "eps": eps,
        "eps_iter": recipe.step,
        "nb_iter": recipe.iterations,
        **shared,
        "rand_init": is_random(recipe),
        radius: start if is_random(recipe) and start != eps else None,
    }


_WRITERS: Mapping[str, Callable[[Recipe], dict[str, Any]]] = MappingProxyType(
    {
        "nsl": _nsl,
        "cleverhans3": _cleverhans3,
        "cleverhans-tf2": _cleverhans_tf2,
        "cleverhans-torch": _cleverhans_torch,
    }
)
