"""Traps in the input: what it holds, its range, its units and its precision."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from torchfgsm.core.limits import Call
from torchfgsm.core.recipe import Recipe
from torchfgsm.explanation.first_gradient import SideView
from torchfgsm.explanation.report.formatting import number
from torchfgsm.explanation.result import Trap

_BYTES = (128.0, 255.0)  # where the largest value of images in bytes lies


def nonfinite_input(view: SideView) -> Iterator[Trap]:
    """Entries that are NaN or infinite."""
    wrong = [~torch.isfinite(tensor) for tensor in view.features.tensors]
    entries = sum(int(found.sum()) for found in wrong)
    if entries:
        count = int(_any_in_example(wrong).sum())
        yield Trap(
            "non-finite input",
            "error",
            count,
            view.examples,
            f"In {count} of {view.examples} examples the input has NaN or infinite entries "
            f"({entries} in all): their outputs and gradients mean nothing. Clean the data",
        )


def outside_range(view: SideView) -> Iterator[Trap]:
    """Entries that the clip moves before the attack does."""
    call = Call.of(view.recipe, view.features, step=1.0)
    outside, furthest = [], 0.0
    for tensor, low, high in zip(view.features.tensors, call.lows, call.highs, strict=True):
        excess = torch.zeros_like(tensor)
        if low is not None:
            excess = torch.maximum(excess, low - tensor)
        if high is not None:
            excess = torch.maximum(excess, tensor - high)
        outside.append(excess > 0)
        furthest = max(furthest, float(excess.nan_to_num(0.0, 0.0, 0.0).max()))
    entries = sum(int(found.sum()) for found in outside)
    if entries:
        recipe, count = view.recipe, int(_any_in_example(outside).sum())
        yield Trap(
            "input outside of the clip range",
            "warning",
            count,
            view.examples,
            f"In {count} of {view.examples} examples entries lie outside of "
            f"[{_bound(recipe.clip_min)}, {_bound(recipe.clip_max)}] ({entries} in all, by up to "
            f"{number(furthest)}): the clip moves them that far whatever the length of the step. "
            "Give the range that the data has",
        )


def length_and_range(view: SideView) -> Iterator[Trap]:
    """A length that does not go with the data's range: other units were meant."""
    recipe = view.recipe
    length = recipe.step if recipe.epsilon is None else recipe.epsilon
    if not length:
        return
    for name, tensor in zip(view.features.names, view.features.tensors, strict=True):
        values = tensor[torch.isfinite(tensor)]
        if not values.numel():
            continue
        low, high = float(values.min()), float(values.max())
        called = f"feature {name!r}" if name != "" else "the input"
        runs = f"{called} runs from {number(low)} to {number(high)}"
        if low >= 0 and _BYTES[0] <= high <= _BYTES[1] and abs(length) < 1:
            yield Trap(
                "length in other units than the data",
                "warning",
                None,
                None,
                f"{runs} and the length is {number(length)}, which is {number(length / 255)} for "
                "data in [0, 1]. Multiply it by 255 if it was meant for that",
            )
        elif 0 < _reach(recipe, tensor, low, high) < abs(length):
            yield Trap(
                "length beyond the data's range",
                "warning",
                None,
                None,
                f"{runs} and the length is {number(length)}: it takes any example beyond every "
                "other one. Divide it by 255 if it was meant for bytes; else give a smaller one",
            )


def _reach(recipe: Recipe, tensor: Tensor, low: float, high: float) -> float:
    """How far apart two examples in this range can be, in the norm of the step."""
    lows, highs = [low], [high]
    if recipe.clip_min is not None:
        lows.append(recipe.clip_min)
    if recipe.clip_max is not None:
        highs.append(recipe.clip_max)
    span = max(highs) - min(lows)
    entries = tensor[0].numel()
    return float(span * {"linf": 1, "l2": math.sqrt(entries), "l1": entries}[recipe.norm])


def lost_in_rounding(view: SideView) -> Iterator[Trap]:
    """Entries so large that a step of this length is rounded away."""
    step = view.recipe.step
    if view.recipe.norm != "linf" or not step:
        return
    stuck = [(x + step == x) & (x - step == x) & torch.isfinite(x) for x in view.features.tensors]
    count = sum(int(found.sum()) for found in stuck)
    if count:
        of = sum(x.numel() for x in view.features.tensors)
        yield Trap(
            "step lost in rounding",
            "warning",
            count,
            of,
            f"In {count} of {of} entries the step of {number(step)} is less than the number's last "
            "digit and rounded away: they do not move. Scale the data, or use a wider dtype",
        )


def half_precision(view: SideView) -> Iterator[Trap]:
    """Input of 16 bits."""
    found = {t.dtype for t in view.features.tensors}
    if torch.float16 in found:
        guard = ""
        if view.recipe.norm == "l2" and view.recipe.guard > 0:
            guard = (
                f", and so is the guard of {number(view.recipe.guard)} under the L2 norm: in "
                "TensorFlow a zero gradient becomes NaN (here norms are taken in float32)"
            )
        yield Trap(
            "float16 input",
            "warning",
            None,
            None,
            f"The input is float16: gradient entries below about 3e-8 are 0 in it{guard}. Attack "
            "in float32",
        )
    if torch.bfloat16 in found:
        yield Trap(
            "bfloat16 input",
            "warning",
            None,
            None,
            "The input is bfloat16, with 8 significant bits: near 1 an adversarial example is "
            "rounded to multiples of 0.0039, and the perturbation is not of the length that was "
            "asked for. Attack in float32",
        )


def several_inputs(view: SideView) -> Iterator[Trap]:
    """More than one feature, which no CleverHans attack takes."""
    count = len(view.features.tensors)
    if count > 1 and view.configuration.library.startswith("cleverhans"):
        yield Trap(
            "several inputs",
            "warning",
            count,
            None,
            f"The model has {count} inputs to perturb and {view.configuration.title} attacks one "
            "tensor: this side takes the norm of each by itself, where NSL takes it over all "
            "together. There is no original to compare it with",
        )


def _any_in_example(found: list[Tensor]) -> Tensor:
    """Which examples have an entry that was found, (N,)."""
    return torch.stack([f.reshape(f.shape[0], -1).any(1) for f in found]).any(0)


def _bound(value: Any) -> str:
    return "-" if value is None else number(value)
