"""How far two perturbations of the same batch are from each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from torchfgsm.explanation.result import Array, Measures

# In float32, x + delta rounds a perturbation of 0.001 by up to 1e-4 of itself.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Attacked:
    """One perturbation of the batch, and how the model fares on it.

    Attributes:
        perturbations: Perturbation (N, ...) of each feature, by name.
        predictions: Predicted class of each adversarial example; empty where there are no classes.
        loss: Mean loss on the adversarial examples.
        accuracy: Accuracy on them; NaN where there are no classes.
    """

    perturbations: Mapping[str, Array]
    predictions: Array
    loss: float
    accuracy: float


def measure(changed: Attacked, reference: Attacked) -> Measures:
    """How far one perturbation is from a reference, over all features of the batch.

    Sums are taken in float64. Two entries that are both NaN, or the same infinity, do not differ.

    Args:
        changed: The perturbation that is measured.
        reference: The one that it is measured against, of the same features.

    Returns:
        The measures.
    """
    flips = entries = 0
    square = reference_square = changed_square = product = 0.0
    rows = np.zeros(len(next(iter(reference.perturbations.values()))), bool)
    for new, old in _pairs(changed.perturbations, reference.perturbations):
        difference = differences(new, old)
        flips += int((differences(np.sign(new), np.sign(old)) != 0).sum())
        entries += new.size
        square += _product(difference, difference)
        changed_square += _product(new, new)
        reference_square += _product(old, old)
        product += _product(new, old)
        rows |= _changed(difference, new, old)
    return Measures(
        sign_flips=flips / entries,
        relative_l2=ratio(math.sqrt(square), math.sqrt(reference_square)),
        cosine=_cosine(product, changed_square, reference_square),
        examples=int(rows.sum()),
        loss=changed.loss - reference.loss,
        accuracy=changed.accuracy - reference.accuracy,
    )


def remainder(a: Attacked, b: Attacked, singles: Sequence[Attacked]) -> float:
    """The share of the way from a to b that the sum of single changes of a does not go.

    Args:
        a: The perturbation of one side.
        b: That of the other.
        singles: a's perturbation with one change each.

    Returns:
        The L2 norm of b - a - the sum of (single - a), over that of b - a; 0 where a and b are
        the same.
    """
    rest = whole = 0.0
    for name in a.perturbations:
        start, end = (np.asarray(side.perturbations[name], np.float64) for side in (a, b))
        way = differences(end, start)
        left = way
        for single in singles:
            left = left - differences(np.asarray(single.perturbations[name], np.float64), start)
        whole += _product(way, way)
        rest += _product(left, left)
    return ratio(math.sqrt(rest), math.sqrt(whole)) if whole else 0.0


def differences(new: Array, old: Array) -> Array:
    """`new - old`; 0 where both are the same, NaN and infinities too."""
    same = (new == old) | (np.isnan(new) & np.isnan(old))
    with np.errstate(invalid="ignore"):  # infinities of the other sign
        found: Array = np.where(same, 0.0, new - old)
    return found


def ratio(length: float, reference: float) -> float:
    """`length / reference`: 0 where both are 0, infinite where the reference alone is."""
    if reference == 0:
        return length if math.isnan(length) else math.inf if length else 0.0
    return length / reference


def _pairs(
    changed: Mapping[str, Array], reference: Mapping[str, Array]
) -> Iterator[tuple[Array, Array]]:
    for name, old in reference.items():
        yield np.asarray(changed[name], np.float64), np.asarray(old, np.float64)


def _changed(difference: Array, new: Array, old: Array) -> Array:
    """The examples that differ by more than rounding."""
    moved, *sides = (np.abs(part).reshape(len(part), -1) for part in (difference, new, old))
    largest = np.fmax(*(np.fmax.reduce(side, axis=1) for side in sides))[:, None]
    # A NaN on one side counts.
    found: Array = np.any((moved != 0) & ~(moved <= _ROUNDING * largest), axis=1)
    return found


def _product(a: Array, b: Array) -> float:
    return float(np.dot(a.ravel(), b.ravel()))


def _cosine(product: float, square: float, other: float) -> float:
    if product == square == other:  # the same perturbation, whose cosine rounding would touch
        return 1.0 if product else math.nan
    lengths = math.sqrt(square) * math.sqrt(other)
    # Rounding can leave the cosine of equal directions a hair outside of its range.
    return max(-1.0, min(1.0, product / lengths)) if lengths > 0 else math.nan
