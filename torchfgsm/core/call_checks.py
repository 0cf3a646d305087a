"""Refusals of arguments: of another type than torch's or this package's, and of a call's values."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchfgsm.core.recipe import Recipe
from torchfgsm.core.weighting import Weighting
from torchfgsm.models.features import Features, items

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


def check_length(
    name: str, value: object, features: Features | None = None, *, values: bool = True
) -> None:
    """Refuses a step or radius that is not finite and at least 0; None is let pass.

    Args:
        name: The argument's name, for the message.
        value: A number or a tensor.
        features: Features whose batch size a tensor with one axis must have, and to which all
            others must broadcast.
        values: Whether the entries of a tensor are looked at.

    Raises:
        TypeError: Not a number or a floating-point tensor.
        ValueError: Negative, not finite, or of the wrong shape.
    """
    if value is None:
        return
    if isinstance(value, Tensor):
        if not value.is_floating_point():
            raise TypeError(f"{name} must be a floating-point tensor, got {value.dtype}")
        if values and not bool((torch.isfinite(value) & (value >= 0)).all()):
            raise ValueError(f"{name} must be finite and at least 0 in every entry")
        for tensor in features.tensors if features else ():
            _check_length_shape(name, value, tensor)
    elif isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number or a tensor, got {type(value).__name__}")
    elif not 0 <= float(value) < math.inf:
        raise ValueError(f"{name} must be finite and at least 0, got {value!r}")


def _check_length_shape(name: str, value: Tensor, tensor: Tensor) -> None:
    """One axis is that of the examples, so that no batch size changes what a shape means."""
    if value.dim() != 1 or value.numel() == 1:
        check_broadcast(name, value, tensor)
    elif value.shape != tensor.shape[:1]:
        along = tensor.dim() > 1 and value.shape == tensor.shape[-1:]
        raise ValueError(
            f"{name} with one axis is one number per example: expected shape "
            f"{tuple(tensor.shape[:1])}, got {tuple(value.shape)} for a feature of shape "
            f"{tuple(tensor.shape)}"
            + (f"; for one along the last axis give {name}[None]" if along else "")
        )


def check_mask(features: Features, mask: Any, *, values: bool) -> None:
    """Refuses masks for unknown features, of the wrong shape, or outside of [0, 1].

    Raises:
        ValueError: A bad mask.
    """
    if mask is None:
        return
    unknown = [name for name in items(mask) if name not in items(features.structure)]
    if unknown:
        raise ValueError(f"mask names features {unknown} that the input has not")
    for name, tensor, factor in zip(
        features.names, features.tensors, features.select(mask), strict=True
    ):
        called = f"mask of feature {name!r}" if name != "" else "mask"
        check_broadcast(called, factor, tensor)
        if factor is None or not values:
            continue
        entries = torch.as_tensor(factor)
        if not bool(((entries >= 0) & (entries <= 1)).all()):
            raise ValueError(
                f"{called} must lie in [0, 1], got values from {float(entries.min())} to "
                f"{float(entries.max())}"
            )


def check_bounds(recipe: Recipe, features: Features, low: Any, high: Any, *, values: bool) -> None:
    """Refuses ranges that are one-sided where the recipe does not take them, crossed or misshapen.

    Args:
        recipe: The recipe with its rules for ranges.
        features: The input's features.
        low: Lower bounds: a number, a tensor, or a structure like the input's.
        high: Upper bounds, likewise.
        values: Whether entries of tensors are looked at.

    Raises:
        ValueError: A bad range.
    """
    known = set(items(features.structure))
    for side, bound in (("clip_min", low), ("clip_max", high)):
        unknown = [name for name in items(bound) if name not in known and name != ""]
        if unknown:
            raise ValueError(f"{side} names features {unknown} that the input has not")
    lows, highs = features.spread(low), features.spread(high)
    for name, tensor, a, b in zip(features.names, features.tensors, lows, highs, strict=True):
        called = f" of feature {name!r}" if name != "" else ""
        if recipe.one_sided_clip == "refused" and (a is None) != (b is None):
            raise ValueError(
                f"this recipe clips to clip_min and clip_max{called} or to neither, got "
                f"clip_min={a!r} and clip_max={b!r}"
            )
        for side, bound in (("clip_min", a), ("clip_max", b)):
            _check_bound(f"{side}{called}", bound, tensor, values=values)
        if recipe.clip_grad and (a is None or b is None):
            raise ValueError(f"clip_grad needs both clip_min and clip_max{called}")
        looked_at = recipe.crossed_clip == "refuse" and values and None not in (a, b)
        if looked_at and _any(a > b):
            raise ValueError(f"clip_min{called} is above clip_max: {a!r} > {b!r}")


def _any(found: Tensor | bool) -> bool:
    return bool(found.any()) if isinstance(found, Tensor) else found


def _check_bound(called: str, bound: Any, tensor: Tensor, *, values: bool) -> None:
    if bound is None:
        return
    if isinstance(bound, bool) or not isinstance(bound, (numbers.Real, Tensor)):
        raise TypeError(f"{called} must be a number or a tensor, got {type(bound).__name__}")
    check_broadcast(called, bound, tensor)
    if values and _any(bound != bound):  # NaN alone is not itself
        raise ValueError(f"{called} has a NaN entry")


def check_radius(recipe: Recipe, epsilon: Any, features: Features) -> None:
    """Refuses radii per element where the norm joins the elements of an example.

    Raises:
        ValueError: Naming the shape that is expected.
    """
    if not isinstance(epsilon, Tensor) or recipe.norm == "linf":
        return
    for tensor in features.tensors:
        one_each = (tensor.shape[0], *[1] * (tensor.dim() - 1))
        if epsilon.numel() != 1 and epsilon.shape not in (one_each, one_each[:1]):
            raise ValueError(
                f"the radius of an {recipe.norm} ball is one number per example: expected shape "
                f"{one_each[:1]}, got {tuple(epsilon.shape)}"
            )


def check_broadcast(called: str, value: Any, tensor: Tensor) -> None:
    """Refuses a tensor argument that does not broadcast to a feature's shape.

    Raises:
        ValueError: Naming both shapes.
    """
    if not isinstance(value, Tensor):
        return
    try:
        shape = torch.broadcast_shapes(value.shape, tensor.shape)  # type: ignore[no-untyped-call]
    except RuntimeError:
        shape = None
    if shape != tensor.shape:
        raise ValueError(
            f"{called} of shape {tuple(value.shape)} does not broadcast to the feature's shape "
            f"{tuple(tensor.shape)}"
        )
