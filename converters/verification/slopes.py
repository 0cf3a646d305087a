"""Gradients checked without a second implementation, by differences in float64.

A difference over a step is no derivative where a kink lies inside the step, and none where the
step is so small that rounding is all of it. Which steps are good shows in that two of them, ten
times apart, give the same slope.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from torchfgsm.converters.annotation import Array
from torchfgsm.converters.model import ConvertedModel
from torchfgsm.converters.verification.judging import FLOAT32_TOLERANCE
from torchfgsm.converters.verification.measuring import (
    NONE,
    Question,
    is_float,
    measure,
    objective_totals,
)
from torchfgsm.judging.comparison import Comparison, Difference, compare

_DIRECTIONS = 3
_STEPS = (1e-7, 1e-8, 1e-9, 1e-10, 1e-11, 1e-6, 1e-5)
"""In the order in which they are tried, until the gradient agrees."""
_LARGEST_SPREAD = 9e-5
"""Steps that disagree by more, relative as the slopes, tell nothing of how good they are."""
_FLAT = 1e-5
"""Slopes below this share of the value drown in its rounding; they count as if they were that."""


def compare_slopes(model: ConvertedModel, question: Question, title: str) -> Comparison | None:
    """Compares input gradients with differences of the model's own values, in float64.

    Each gradient is compared along itself, where no entry's part cancels another's, and along
    random directions. Returns None where no gradient exists.
    """
    twin = copy.deepcopy(model).double()
    wide = question.in_precision("float64")
    random = np.random.default_rng(2)
    # A number for the whole batch belongs to no example.
    names = [n for n in model.input_names if is_float(wide.batch[n]) and wide.batch[n].ndim]
    if not names or all(objective.kind == NONE for objective in question.objectives):
        return None
    # Away from exact zeros and ones, where kinks are.
    start = {n: wide.batch[n] + 0.01 * random.random(wide.batch[n].shape) for n in names}
    wide = replace(wide, batch={**wide.batch, **start})
    measured = measure(twin, wide)
    gradients = {n: measured[f"gradient {n}"] for n in names}
    rows: list[Difference] = []
    for i in range(_DIRECTIONS):
        direction = {n: random.standard_normal(start[n].shape) for n in names}
        if i == 0:
            direction = {n: _signs(gradients[n]) * np.abs(direction[n]) for n in names}
        with np.errstate(invalid="ignore", over="ignore"):
            rows += _compare_along(_Line(twin, wide, direction), gradients, f"slope {i}").rows
    return Comparison(title, tuple(rows))


@dataclass(frozen=True)
class _Line:
    """The objective of each example along a line."""

    model: ConvertedModel
    question: Question
    direction: Mapping[str, Array]
    known: dict[float, Array] = field(default_factory=dict)

    def value(self, distance: float) -> Array:
        """Returns the values (N,) at a distance from the start."""
        if distance not in self.known:
            moved = {n: self.question.batch[n] + distance * d for n, d in self.direction.items()}
            there = replace(self.question, batch={**self.question.batch, **moved})
            self.known[distance] = objective_totals(self.model, there)
        return self.known[distance]

    def slope(self, step: float, side: int = 0) -> Array:
        """Returns the slopes (N,) over a step ahead (1), behind (-1) or both (0)."""
        ahead, behind = step * (side >= 0), -step * (side <= 0)
        return np.asarray((self.value(ahead) - self.value(behind)) / (ahead - behind))


def _compare_along(line: _Line, gradients: Mapping[str, Array], name: str) -> Comparison:
    """Compares the gradients' slope along a line with differences of the values."""
    products = [gradients[n] * d for n, d in line.direction.items()]
    rows = np.concatenate([p.reshape(len(p), -1) for p in products], axis=1)
    floor = _FLAT * np.abs(line.value(_STEPS[0])) + np.finfo(np.float64).tiny
    size = np.maximum(np.abs(rows).sum(axis=1), floor)
    actual = {name: rows.sum(axis=1) / size}
    found = compare({name: line.slope(_STEPS[0]) / size}, actual, atol=FLOAT32_TOLERANCE)
    for count in range(2, len(_STEPS) + 1):
        if found:
            break
        slope, spread = _best_slopes(line, sorted(_STEPS[:count]), size, actual[name])
        allowance = np.where(spread <= _LARGEST_SPREAD, spread, 0.0).max()
        found = compare({name: slope}, actual, atol=FLOAT32_TOLERANCE + float(allowance))
    return found


def _best_slopes(
    line: _Line, steps: Sequence[float], size: Array, actual: Array
) -> tuple[Array, Array]:
    """Returns each example's slope by the two steps that agree best, and by how much they do not.

    At a kink closer than all steps, the slopes before and behind it stay two; the nearer counts.
    """
    slopes, spreads = [], []
    for side in (0, 1, -1):
        each = np.stack([line.slope(step, side) for step in steps]) / size
        slopes.append((each[1:] + each[:-1]) / 2)
        spreads.append(np.nan_to_num(np.abs(np.diff(each, axis=0)), nan=np.inf))
    best = np.argmin(spreads, axis=1, keepdims=True)
    slope, spread = (np.take_along_axis(np.stack(v), best, axis=1)[:, 0] for v in (slopes, spreads))
    off = np.nan_to_num(np.abs(slope - actual) - spread, nan=np.inf)
    nearest = np.argmin(np.where(spread <= _LARGEST_SPREAD, off, np.inf), axis=0)[None]
    slope, spread = (np.take_along_axis(v, nearest, axis=0)[0] for v in (slope, spread))
    return slope, spread


def _signs(array: Array) -> Array:
    return np.where(array < 0, -1.0, 1.0)
