"""The arguments of an attack, checked and taken apart before the model is called."""

from __future__ import annotations

from typing import Any

import torch

from torchfgsm.core import call_checks, checks
from torchfgsm.core.call_checks import check_recipe
from torchfgsm.core.limits import Call, Length
from torchfgsm.core.model_gradient import LossFn, ModelGradient
from torchfgsm.core.recipe import Recipe
from torchfgsm.losses.labels import check_labels
from torchfgsm.models.features import normal


def prepared(
    model: Any,
    x: Any,
    y: Any,
    *,
    recipe: Recipe,
    loss_fn: LossFn | None = None,
    step: Length | None = None,
    epsilon: Length | None = None,
    clip_min: Any = None,
    clip_max: Any = None,
    mask: Any = None,
    generator: torch.Generator | None = None,
    validate: bool | None = None,
    lengths_called: tuple[str, str] = ("step", "epsilon"),
) -> tuple[ModelGradient, Call]:
    """The gradient and the call that `run_on_model` takes, from the arguments of `attack`.

    Outside of inference mode only: copies of inference tensors are made here. `lengths_called` is
    what the caller calls the step and the radius, for messages.

    Raises:
        TypeError: An input that cannot be perturbed, or arguments of the wrong type.
        ValueError: Bad shapes, values, ranges or labels.
    """
    check_recipe(recipe)
    x, y, mask = normal(x), normal(y), normal(mask)
    clip_min, clip_max = normal(clip_min), normal(clip_max)
    values = checks.looks_at_values(x, validate)
    features = checks.check_input(model, x, values=values)
    if y is None and recipe.labels == "given":
        raise ValueError("this recipe takes the loss against given labels: y is missing")
    check_labels(y, features, default_loss=loss_fn is None, values=values)
    low = recipe.clip_min if clip_min is None else clip_min
    high = recipe.clip_max if clip_max is None else clip_max
    call_checks.check_bounds(recipe, features, low, high, values=values)
    call_checks.check_mask(features, mask, values=values)
    call_checks.check_radius(recipe, epsilon, features)
    step_called, radius_called = lengths_called
    # The radius first: where it is bad, a step derived from it is bad too.
    call_checks.check_length(radius_called, epsilon, features, values=values)
    call_checks.check_length(step_called, step, features, values=values)
    call = Call.of(
        recipe,
        features,
        step=step,
        epsilon=epsilon,
        clip_min=clip_min,
        clip_max=clip_max,
        mask=mask,
        generator=generator,
    )
    return ModelGradient(model, features, y, recipe, loss_fn, values=values), call
