"""Refusals of arguments of another type than torch's or this package's, with the way out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchfgsm.core.recipe import Recipe
from torchfgsm.core.weighting import Weighting
from torchfgsm.models.features import items

_PRESETS = {
    "nsl": "nsl()",
    "cleverhans3": "cleverhans3()",
    "cleverhans-tf2": "cleverhans_tf2(eps=..., norm='linf')",
    "cleverhans-torch": "cleverhans_torch(eps=..., norm='linf')",
}


def check_recipe(recipe: object) -> None:
    """Refuses what is no recipe.

    Raises:
        TypeError: Naming the call that makes the one that was probably meant.
    """
    if isinstance(recipe, Recipe):
        return
    name = recipe.replace("_", "-") if isinstance(recipe, str) else ""
    if name in _PRESETS:
        way = f"give torchfgsm.Recipe.{_PRESETS[name]}"
    elif isinstance(recipe, Mapping):
        way = "give torchfgsm.Recipe(**recipe)"
    elif callable(recipe):
        way = "call it: a preset takes the library's options, as torchfgsm.Recipe.nsl()"
    elif isinstance(getattr(recipe, "recipe", None), Recipe):
        way = "give its .recipe"
    else:
        way = "give torchfgsm.Recipe(step=...), or a library's, as torchfgsm.Recipe.nsl()"
    shown = repr(recipe) if isinstance(recipe, str) else type(recipe).__name__
    raise TypeError(f"recipe must be a torchfgsm.Recipe, got {shown}: {way}")


def check_weighting(weighting: object) -> None:
    """Refuses what is no weighting.

    Raises:
        TypeError: Naming the calls that make one.
    """
    if not isinstance(weighting, Weighting):
        raise TypeError(
            f"weighting must be a torchfgsm.Weighting, got {type(weighting).__name__}: give "
            "torchfgsm.Weighting.from_nsl(multiplier), or Weighting.from_cleverhans(adv_coeff)"
        )


def refuse_arrays(**given: Any) -> None:
    """Refuses numpy's arrays of numbers, and those that would be perturbed in a structure.

    Others in a structure, as of whole numbers and strings, are features that are left alone.

    Args:
        **given: Values by the names that messages have for them.

    Raises:
        TypeError: Naming the first.
    """
    if torch.compiler.is_compiling():
        return
    for name, value in given.items():
        _refuse_array(name, value, "fciub")


def _refuse_array(name: str, value: Any, kinds: str) -> None:
    if isinstance(value, Tensor):
        return
    if isinstance(value, np.ndarray) and value.dtype.kind in kinds:
        raise TypeError(
            f"{name} is a numpy.ndarray of {value.dtype}, expected a tensor: give "
            f"torch.as_tensor({name}), of the model's dtype and on its device"
        )
    if isinstance(value, (Mapping, list, tuple)):
        for key, entry in items(value).items():
            _refuse_array(f"{name}[{key!r}]", entry, "fc")
