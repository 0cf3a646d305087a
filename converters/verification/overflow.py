"""Examples whose results are too large for float32, and not for float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from torchfgsm.converters.annotation import Array
from torchfgsm.converters.verification.measuring import is_float
from torchfgsm.judging.comparison import Comparison

Arrays = Mapping[str, Array]


def without_overflow(
    expected: Arrays, actual: Arrays, truth: Arrays
) -> tuple[Arrays, Arrays, Arrays, dict[str, int]]:
    """Returns the sides with zeros for the examples that are too large for float32 alone.

    Where the original's float32 is not finite and its float64 is, nothing is to be learned from
    float32: float64 alone judges. The numbers of such examples come last, by name.
    """
    sides, beyond = [dict(expected), dict(actual), dict(truth)], {}
    for name, array in expected.items():
        if name not in truth or not is_float(array) or truth[name].shape != array.shape:
            continue
        finite = [np.isfinite(a.reshape(len(a), -1)).all(axis=1) for a in (array, truth[name])]
        lost = finite[1] & ~finite[0]
        if lost.any():
            beyond[name] = int(lost.sum())
            column = lost.reshape(-1, *[1] * (array.ndim - 1))
            for side in sides:
                side[name] = np.where(column, 0, side[name]).astype(side[name].dtype)
    return sides[0], sides[1], sides[2], beyond


def told(comparison: Comparison, beyond: Mapping[str, int]) -> Comparison:
    """Returns a comparison that says how many examples were left to float64 alone."""
    rows = (
        replace(row, measured={**row.measured, "too large for float32": beyond[row.name]})
        if row.name in beyond
        else row
        for row in comparison.rows
    )
    return replace(comparison, rows=tuple(rows))
