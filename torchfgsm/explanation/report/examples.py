"""Which examples and features of a batch a report shows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from torchfgsm.explanation.result import Array, Explanation

_CHANNELS = (1, 3)
_MOST_MOVED = 10


@dataclass(frozen=True)
class Moved:
    """One entry of a feature: mean absolute values over the examples.

    Attributes:
        name: The feature and its index.
        input: Of the input.
        a: Of a's perturbation.
        b: Of b's.
        difference: Of the difference of the two.
    """

    name: str
    input: float
    a: float
    b: float
    difference: float


def as_images(values: Array) -> Array | None:
    """Arrays (N, 1 or 3, H, W) or (N, H, W, 1 or 3) with channels last, or None for others."""
    if values.ndim != 4:
        return None
    if values.shape[1] in _CHANNELS and min(values.shape[2:]) > 1:
        return np.moveaxis(values, 1, -1)
    if values.shape[-1] in _CHANNELS and min(values.shape[1:3]) > 1:
        return values
    return None


def image_features(explanation: Explanation) -> tuple[str, ...]:
    """Names of the features that can be shown as pictures."""
    inputs = explanation.inputs
    return tuple(
        name for name in explanation.a.perturbations if as_images(inputs[name]) is not None
    )


def chosen(explanation: Explanation, count: int) -> tuple[int, ...]:
    """The examples that show most.

    First those of which the two sides make different predictions, then those whose perturbations
    differ most; equal ones in their order.
    """
    a, b = explanation.a, explanation.b
    examples = len(next(iter(explanation.inputs.values())))
    distance = np.zeros(examples)
    for name, first in a.perturbations.items():
        apart = np.asarray(first, float) - b.perturbations[name]
        distance += np.nan_to_num(np.square(apart), nan=np.inf).reshape(examples, -1).sum(1)
    split = np.zeros(examples, bool)
    if a.predictions.shape == b.predictions.shape == (examples,):
        split = a.predictions != b.predictions
    return tuple(int(i) for i in np.lexsort((-distance, ~split))[:count])


def most_moved(explanation: Explanation) -> tuple[Moved, ...]:
    """The entries that the two sides move most differently, of features that are no pictures."""
    pictures = image_features(explanation)
    found: list[Moved] = []
    for name, first in explanation.a.perturbations.items():
        if name in pictures:
            continue
        second, shape = explanation.b.perturbations[name], first.shape[1:]
        values = (explanation.inputs[name], first, second, np.asarray(second, float) - first)
        means = [np.abs(v.astype(float)).reshape(len(v), -1).mean(0) for v in values]
        largest = np.argsort(-np.nan_to_num(means[3], nan=np.inf), kind="stable")[:_MOST_MOVED]
        for i in largest:
            at = ", ".join(str(int(n)) for n in np.unravel_index(i, shape))
            entry = f"{name}[{at}]" if shape else name
            found.append(Moved(entry, *(float(m[i]) for m in means)))
    found.sort(key=lambda m: -(math.inf if math.isnan(m.difference) else m.difference))
    return tuple(found[:_MOST_MOVED])
