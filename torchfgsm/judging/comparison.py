"""Comparisons of named arrays, as values: what was compared, how far apart, and the verdict.

The tests, the converter, the benchmarks and the command line all compare through this module.
It needs numpy only. Judgements that need float64 results are in `torchfgsm.judging.by_float64`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]
_COLUMNS = ("array", "shape", "max abs", "mean abs", "max rel", "allowed", "verdict")


@dataclass(frozen=True)
class Difference:
    """How far one named array is from the one it was compared with.

    Attributes:
        name: name of the array.
        shape: shape of the expected array (of the actual one where it is extra).
        max_abs: largest absolute difference; inf where a NaN or an infinity has no equal partner.
        mean_abs: mean absolute difference.
        max_rel: largest difference relative to |expected|, over elements where that is not zero.
        mean_rel: mean of the same.
        first_bad: index of the first element outside what was allowed, or None.
        rtol: relative tolerance that was applied.
        atol: absolute tolerance that was applied.
        tolerance_needed: the atol (or slack) that would have passed, other settings unchanged.
        passed: whether every element was within what was allowed.
        reason: why it failed ("missing", "shape (2, 3) against (3, 2)", ...), empty if it passed.
        allowed: the rule that was applied, in words.
        measured: further numbers of this row by name, such as the two distances from float64.
    """

    name: str
    shape: tuple[int, ...] = ()
    max_abs: float = math.nan
    mean_abs: float = math.nan
    max_rel: float = math.nan
    mean_rel: float = math.nan
    first_bad: tuple[int, ...] | None = None
    rtol: float = 0.0
    atol: float = 0.0
    tolerance_needed: float = math.inf
    passed: bool = False
    reason: str = ""
    allowed: str = ""
    measured: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns the row as JSON-able values; numbers that are not finite become strings."""
        row = {name: _json_able(value) for name, value in vars(self).items()}
        return row | {"measured": {name: _json_able(v) for name, v in self.measured.items()}}


@dataclass(frozen=True)
class Comparison:
    """The differences of a set of named arrays; true when there are rows and all have passed."""

    title: str
    rows: tuple[Difference, ...]

    @property
    def passed(self) -> bool:
        """Whether something was compared and all of it agrees."""
        return bool(self.rows) and not self.failures

    @property
    def failures(self) -> tuple[Difference, ...]:
        """The rows that did not pass."""
        return tuple(row for row in self.rows if not row.passed)

    @property
    def verdict(self) -> str:
        """One line: PASSED or FAILED, and how many arrays."""
        if not self.rows:
            return "FAILED: nothing compared"
        if self.failures:
            return f"FAILED: {len(self.failures)} of {len(self.rows)} arrays differ"
        return (
            f"PASSED: {len(self.rows)} {'arrays agree' if len(self.rows) > 1 else 'array agrees'}"
        )

    def __bool__(self) -> bool:
        return self.passed

    def to_text(self) -> str:
        """Returns a table for people; its last line is the verdict."""
        table = [_COLUMNS, *(_cells(row) for row in self.rows)]
        widths = [max(len(line[column]) for line in table) for column in range(len(_COLUMNS))]
        lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in table]
        return "\n".join([*filter(None, [self.title]), *lines, self.verdict])

    def to_dict(self) -> dict[str, Any]:
        """Returns the comparison as JSON-able values."""
        rows = [row.to_dict() for row in self.rows]
        return {
            "title": self.title,
            "passed": self.passed,
            "verdict": self.verdict,
            "rows": rows,
        }

    @classmethod
    def join(cls, title: str, comparisons: Iterable[Comparison]) -> Comparison:
        """Returns one comparison of all rows, each named after the part that it came from.

        A part in which nothing was compared stays a failure: it becomes a row that says so.
        """
        rows: list[Difference] = []
        for part in comparisons:
            prefix = f"{part.title}: " if part.title else ""
            rows += [replace(row, name=prefix + row.name) for row in part.rows]
            if not part.rows:
                rows.append(Difference(part.title, reason="nothing compared"))
        return cls(title, tuple(rows))


def compare(
    expected: Mapping[str, np.ndarray],
    actual: Mapping[str, np.ndarray],
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
    title: str = "",
) -> Comparison:
    """Compares arrays by name: `|actual - expected| <= atol + rtol * |expected|` everywhere.

    A NaN equals a NaN in the same place, an infinity one of the same sign. A missing or extra
    array, another shape or dtype, and an empty array are failures.

    Args:
        expected: reference arrays by name.
        actual: arrays to judge by name.
        rtol: relative tolerance, >= 0.
        atol: absolute tolerance in the arrays' unit, >= 0.
        title: heading of the comparison.

    Returns:
        One row per name, in the order of `expected`, extra arrays last.

    Raises:
        ValueError: a tolerance is negative or NaN.
        TypeError: an array does not hold numbers.
    """
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        if not tolerance >= 0:
            raise ValueError(f"expected {name} >= 0, got {tolerance}")
    rows = []
    for name in names_of_both(expected, actual):
        unequal = unequal_in_kind(name, expected, actual)
        rows.append(unequal or _difference(name, expected[name], actual[name], rtol, atol))
    return Comparison(title, tuple(rows))


def names_of_both(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> list[str]:
    """Returns every name once, those of `expected` first."""
    return list(dict.fromkeys([*expected, *actual]))


def unequal_in_kind(
    name: str, expected: Mapping[str, np.ndarray], actual: Mapping[str, np.ndarray]
) -> Difference | None:
    """Returns a failed row where values cannot be compared element by element, else None."""
    if name not in actual:
        return Difference(name, np.shape(expected[name]), reason="missing")
    if name not in expected:
        return Difference(name, np.shape(actual[name]), reason="extra")
    left, right = np.asarray(expected[name]), np.asarray(actual[name])
    for side, array in (("expected", left), ("actual", right)):
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{name}: the {side} array must hold numbers, got dtype {array.dtype}")
    if left.shape != right.shape:
        return Difference(name, left.shape, reason=f"shape {left.shape} against {right.shape}")
    if left.size == 0:
        return Difference(name, left.shape, reason="empty: nothing compared")
    if left.dtype != right.dtype:
        return Difference(name, left.shape, reason=f"dtype {left.dtype} against {right.dtype}")
    return None


def distance_between(expected: np.ndarray, actual: np.ndarray) -> _Floats:
    """|actual - expected|: 0 for equal NaN or infinity, inf where only one side has it."""
    with np.errstate(all="ignore"):
        distance = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
    if expected.dtype.kind in "iu":
        # Large integers that differ can become equal as floats.
        distance = np.maximum(distance, 1.0)
    equal = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    distance = np.where(equal, 0.0, distance)
    return np.where(np.isnan(distance), np.inf, distance)


def _difference(
    name: str, expected: np.ndarray, actual: np.ndarray, rtol: float, atol: float
) -> Difference:
    expected, actual = np.asarray(expected), np.asarray(actual)
    distance = distance_between(expected, actual)
    size = np.abs(expected.astype(np.float64))
    excess = distance - rtol * np.where(np.isfinite(size), size, 0.0)
    bad = ~(excess <= atol) | np.isinf(distance)
    return replace(
        measured_row(name, expected, distance),
        first_bad=first_index(bad),
        rtol=rtol,
        atol=atol,
        tolerance_needed=max(0.0, float(excess.max())),
        passed=not bad.any(),
        reason=_reason(expected, actual, bad),
        allowed=f"{atol:.3g}" + (f" + {rtol:.3g} |expected|" if rtol else ""),
    )


def measured_row(name: str, expected: np.ndarray, distance: _Floats) -> Difference:
    """Returns a row with the statistics of the distances filled in, not yet judged."""
    size = np.abs(expected.astype(np.float64))
    counted = (size > 0) & np.isfinite(size)
    with np.errstate(over="ignore"):
        relative = distance[counted] / size[counted] if counted.any() else np.zeros(1)
    return Difference(
        name,
        expected.shape,
        max_abs=float(distance.max()),
        mean_abs=float(distance.mean()),
        max_rel=float(relative.max()),
        mean_rel=float(relative.mean()),
    )


def first_index(bad: NDArray[np.bool_]) -> tuple[int, ...] | None:
    """Returns the index of the first true element, or None."""
    return tuple(int(i) for i in np.argwhere(bad)[0]) if bad.any() else None


def _reason(expected: np.ndarray, actual: np.ndarray, bad: NDArray[np.bool_]) -> str:
    """Says what kind of difference there is: a lone NaN tells more than a distance of inf."""
    if not bad.any():
        return ""
    left, right = np.isnan(expected), np.isnan(actual)
    if (right & ~left).any():
        return "NaN in actual only"
    if (left & ~right).any():
        return "NaN in expected only"
    return f"{int(bad.sum())} of {bad.size} elements differ"


def _json_able(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _cells(row: Difference) -> tuple[str, ...]:
    numbers = (row.max_abs, row.mean_abs, row.max_rel)
    details = [f"{name} {value:.3g}" for name, value in row.measured.items()]
    if not row.passed:
        where = f"first at {row.first_bad}, " if row.first_bad is not None else ""
        details.append(f"FAILED: {row.reason} ({where}needs {row.tolerance_needed:.3g})")
    return (
        row.name,
        str(row.shape),
        *(f"{number:.3g}" for number in numbers),
        row.allowed,
        ", ".join(["ok"] * row.passed + details),
    )
