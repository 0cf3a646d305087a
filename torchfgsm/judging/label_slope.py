"""What float32 can do to the gradient of a softmax that is nearly sure of its label.

The cross-entropy's slope at the label's logit is p - 1, where p is the label's probability. p is
rounded to the last digit of 1, so that p - 1 is wrong by an absolute error, however small it is
itself; the slopes of the other logits, p, keep their relative precision. The error is one number
for an example: it adds that multiple of the derivative of the label's logit to the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]

# Half of the distance from 1 to the next float.
UNITS = {"float32": 2.0**-24, "float64": 2.0**-53}
_MOVED = 1e-3  # of an example's largest move


def rounding(miss: _Floats, classes: int, dtype: str = "float32") -> _Floats:
    """The largest error of p - 1 that a sum of exponentials and a division can make, (N,).

    Each addition to a sum that is nearly 1 rounds by a unit, and loses at most what it adds; the
    division rounds once more, and not where nothing was left to divide by.

    Args:
        miss: 1 - p without rounding, (N,).
        classes: number of classes, one addition each.
        dtype: the floats of the program.
    """
    unit = UNITS[dtype]
    found: _Floats = np.minimum(miss, classes * unit) + np.minimum(miss, unit)
    return found


def saturated(miss: _Floats) -> NDArray[np.bool_]:
    """Whether the label's float32 softmax rounds to exactly 1, (N,)."""
    found: NDArray[np.bool_] = miss <= UNITS["float32"]
    return found


def saturation_sentence(count: int, examples: int, *, cure: bool = True) -> str:
    """What a user has to know of examples whose label's softmax rounds to exactly 1.

    Args:
        count: how many examples these are.
        examples: of how many.
        cure: whether longer floats are left to attack in.
    """
    return (
        f"In {count} of {examples} examples the label's softmax rounds to exactly 1 (saturation): "
        "the label's own part of the gradient, as large as all others together, is lost, in the "
        "original libraries as here, and the direction is not the one of exact arithmetic"
    ) + ". Attack in float64" * cure


@dataclass(frozen=True)
class LabelSlope:
    """The gradients that the rounding of the label's slope leads to.

    Attributes:
        slope: derivative of the label's logit, scaled as the loss is, (N, ...), in float64.
        rounding: the largest error of the label's slope, (N,).
    """

    slope: NDArray[np.floating]
    rounding: _Floats


def smallest_error(a: _Floats, b: _Floats, limit: float) -> float:
    """The error nearest to 0, within +-limit, for which a * error >= b everywhere; inf for none."""
    with np.errstate(all="ignore"):
        bound = b / a
    if (b[a == 0] > 0).any():
        return float("inf")
    low = max(float(bound[a > 0].max(initial=-np.inf)), -limit)
    high = min(float(bound[a < 0].min(initial=np.inf)), limit)
    if not low <= high:
        return float("inf")
    return min(max(0.0, low), high)


def error_of_signs(
    signs: _Floats, g64: _Floats, slope: _Floats, noise: float, limit: float
) -> float:
    """The smallest error of the label's slope that gives an example these signs; inf for none.

    Args:
        signs: the signs of the step; 0 is not looked at.
        g64: the gradient without rounding.
        slope: derivative of the label's logit.
        noise: how far each entry of the gradient may be off besides.
        limit: the largest error.
    """
    chosen = signs != 0
    return smallest_error((signs * slope)[chosen], (-noise - signs * g64)[chosen], limit)


def error_of_maximum(
    steps: _Floats, g64: _Floats, slope: _Floats, noise: float, limit: float
) -> float:
    """The smallest error that makes the places where `steps` is not 0 the largest; inf for none."""
    places = np.argwhere(steps != 0)
    if not len(places):
        return float("inf")
    signs = np.sign(steps)
    a, b = [], []
    for place in map(tuple, places):
        for side in (1.0, -1.0):
            a.append((signs[place] * slope[place] - side * slope).ravel())
            b.append((side * g64 - signs[place] * g64[place] - 2 * noise).ravel())
    return smallest_error(np.concatenate(a), np.concatenate(b), limit)


def fitted_error(difference: _Floats, slope: _Floats, limit: float) -> float:
    """The error within +-limit that explains most of the difference of two gradients."""
    size = float((slope * slope).sum())
    best = float((difference * slope).sum()) / size if size else 0.0
    return min(max(best, -limit), limit)


def error_of_both(
    steps: tuple[np.ndarray, np.ndarray],
    gradients: tuple[_Floats, _Floats],
    slope: _Floats,
    limit: float,
    norm: str,
) -> tuple[float, float] | None:
    """The noise that is left beside errors of the label's slope that explain one example's signs.

    One error must give all of the original's signs, and one all of the port's.

    Args:
        steps: the original's and the port's perturbation.
        gradients: the original's in float32, and in float64.
        slope: derivative of the label's logit.
        limit: the largest error.
        norm: "linf" or "l1".

    Returns:
        The noise and the larger of the two errors; None where no error explains the signs.
    """
    expected, actual = (moves(side) for side in steps)
    g32, g64 = gradients
    agree = (expected == actual) | (np.isnan(expected) & np.isnan(actual))
    difference = g32 - g64
    if not np.isfinite(difference).all():
        return None
    rest = np.abs(difference - fitted_error(difference[agree], slope[agree], limit) * slope)
    noise = float(rest[agree].max(initial=0.0))
    sides = (expected, actual, float(rest.max())), (actual, expected, noise)
    errors = []
    for own, other, e in sides:
        if norm == "l1":
            errors.append(abs(error_of_maximum(own, g64, slope, e, limit)))
        else:  # Where one side alone did not move, it can only have wanted to go the other way.
            signs = np.where(own == 0, -other, own)
            one = error_of_signs(signs, g64, slope, e, limit) if own.any() else np.inf
            errors.append(abs(one))
    error = max(errors)
    return None if error == 0 or not np.isfinite(error) else (noise, error)


def moves(steps: np.ndarray) -> _Floats:
    """The signs of one example's steps; what hardly moves was rounded when it was added to x."""
    size = np.abs(steps)
    found: _Floats = np.where(size > _MOVED * size.max(), np.sign(steps), 0.0)
    return found
