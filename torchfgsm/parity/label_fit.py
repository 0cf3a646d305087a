"""Adversarial examples as they would be without the rounding of the label's slope."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from torchfgsm.judging.label_slope import LabelSlope, rounding
from torchfgsm.parity.cases import Case
from torchfgsm.parity.data import Array, Data
from torchfgsm.parity.truth import Inputs, true_adversarial

_SECTIONS = 60
_GOLDEN = (5**0.5 - 1) / 2


def without_rounding(
    case: Case,
    data: Data,
    expected: Mapping[str, Array],
    side: Mapping[str, Array],
    dtype: str = "float32",
    head: Mapping[str, LabelSlope] | None = None,
) -> tuple[dict[str, Array], Array]:
    """One side's adversarial examples, less what its rounding of the label's slope did to them.

    That is one number for an example, no larger than what `rounding` allows; the one that brings
    the float64 value of the attack nearest to the side's.

    Args:
        case: A case of one step.
        data: The batch.
        expected: What judges it, with label_slope/<input> and label_miss.
        side: adv/<input>.
        dtype: The floats that the side ran in.
        head: Input name -> what the rounding of the model's own softmax does, in its place.

    Returns:
        adv/<input>, and the number for each example (N,).
    """
    if head:
        directions = {name: label.slope for name, label in head.items()}
        limit = next(iter(head.values())).rounding
    else:
        directions = {name: expected[f"label_slope/{name}"] for name in data.x}
        limit = rounding(expected["label_miss"], data.classes, dtype)

    def at(error: Array) -> Inputs:
        slopes = {
            name: expected[f"gradient64/{name}"] + _column(error, x) * directions[name]
            for name, x in data.x.items()
        }
        return true_adversarial(case, data, lambda x, first: slopes)

    def distance(error: Array) -> Array:
        found: Array = np.zeros(len(limit))
        for name, value in at(error).items():
            square = (value - side[f"adv/{name}"]) ** 2
            found += square.reshape(len(square), -1).sum(axis=1)
        return found

    low, high = -limit, limit.copy()
    for _ in range(_SECTIONS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        nearer = distance(left) < distance(right)
        low, high = np.where(nearer, low, left), np.where(nearer, right, high)
    tried = np.stack([(low + high) / 2, np.zeros(len(limit))])
    best = tried[np.argmin([distance(error) for error in tried], axis=0), np.arange(len(limit))]
    there, here = at(best), at(np.zeros(len(limit)))
    return {f"adv/{n}": side[f"adv/{n}"] - (there[n] - here[n]) for n in data.x}, best


def _column(values: Array, like: Array) -> Array:
    return values.reshape(-1, *[1] * (like.ndim - 1))
