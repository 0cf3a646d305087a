"""Arrays compared example by example, relative to the largest entry of each."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from torchfgsm.converters.annotation import Array
from torchfgsm.converters.verification.measuring import is_float
from torchfgsm.judging.comparison import Comparison, Difference, compare

Arrays = Mapping[str, Array]

_FLOOR = 1e-4
"""Gradients below this share of the largest one are compared as if they were that large."""


def compare_scaled(
    expected: Arrays,
    actual: Arrays,
    tolerance: float,
    title: str,
    *,
    per_example: bool = True,
    least: float = 0.0,
) -> Comparison:
    """Compares after dividing by the largest expected entry; whole numbers exactly.

    Args:
        expected: the reference by name, (N, ...).
        actual: what to judge.
        tolerance: allowed distance, as a share of the largest entry.
        title: heading of the comparison.
        per_example: take the largest entry of each example, not of the whole array.
        least: arrays whose largest entry is below are divided by this.
    """
    gradients = [largest(array).max() for name, array in expected.items() if _is_gradient(name)]
    floor = _FLOOR * max(gradients, default=0.0)
    floors = {
        name: max(least, floor * _is_gradient(name) if per_example else largest(array).max())
        for name, array in expected.items()
    }
    scales = {name: _scale(array, floors[name]) for name, array in expected.items()}

    def scaled(name: str, array: Array) -> Array:
        # Another shape is left to the comparison, which reports it.
        fits = name in expected and array.shape == expected[name].shape
        return np.asarray(array / scales[name], array.dtype) if fits and is_float(array) else array

    whole = {name for name, array in expected.items() if not is_float(array)}
    sides = [{n: scaled(n, a) for n, a in side.items()} for side in (expected, actual)]
    rows: list[Difference] = []
    for names, atol in ((whole, 0.0), (set().union(*sides) - whole, tolerance)):
        kept = [{n: a for n, a in side.items() if n in names} for side in sides]
        rows += compare(kept[0], kept[1], atol=atol).rows
    return Comparison(title, tuple(rows))


def largest(array: Array) -> Array:
    """Returns the largest finite absolute entry of each example, (N,)."""
    rows = array.reshape(len(array), -1).astype(np.float64)
    return np.asarray(np.abs(np.where(np.isfinite(rows), rows, 0.0)).max(axis=1, initial=0.0))


def _is_gradient(name: str) -> bool:
    return name.startswith("gradient")


def _scale(array: Array, floor: float) -> Array:
    size = np.maximum(largest(array), floor)
    return column(np.where(size > 0, size, 1.0), array)


def column(values: Array, array: Array) -> Array:
    """Returns one value for each example in a shape that broadcasts over the examples."""
    return values.reshape(-1, *[1] * (array.ndim - 1))
