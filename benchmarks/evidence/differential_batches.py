"""Batches drawn at random, with the masks, bounds and weights that a case may name."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from benchmarks.conversions.twins import Array
from benchmarks.evidence.differential_models import Architecture
from torchfgsm.parity.cases import Case
from torchfgsm.parity.data import Data

# Losses whose labels are rows.
OF_ROWS = ("CategoricalCrossentropy", "BinaryCrossentropy", "MeanSquaredError")
_HOSTILE = 0.03
_EXTREMES = (np.nan, np.inf, -np.inf)


@dataclass(frozen=True)
class Batch(Data):
    """A drawn batch.

    Attributes:
        drawn: Masks, bounds and weights, by the names of `Case.extras` and by the workers' names.
        soft: What is added to the labels' rows (N, classes), or None.
    """

    drawn: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    soft: Array | None = None

    def one_hot(self, case: Case) -> Array:
        """The labels as rows, soft ones where they are."""
        rows = super().one_hot(case)
        soft = self.soft is not None and not (case.library != "nsl" and case.kind == "train")
        return (rows + self.soft).astype(case.dtype) if soft else rows

    def labels(self, case: Case) -> dict[str, Array]:
        """The labels by the workers' names; rows for the losses that take rows."""
        if case.library == "nsl" and case.loss["class"] in OF_ROWS:
            return {"y": self.one_hot(case)}
        return super().labels(case)

    def extras(self, case: Case) -> dict[str, Array]:
        """Masks, bounds and weights by the workers' names."""
        named = [self.drawn[extra] for extra in case.extras]
        return {name: a.astype(case.dtype) for arrays in named for name, a in arrays.items()}

    @property
    def extreme(self) -> list[int]:
        """The examples of which float64 is no judge: those with NaN or an infinite number."""
        found = [~np.isfinite(x.reshape(len(x), -1)).all(axis=1) for x in self.x.values()]
        return [int(i) for i in np.flatnonzero(np.any(found, axis=0))]

    def examples(self, chosen: list[int]) -> Batch:
        """Some of the examples."""
        count = len(self.y)

        def some(array: Array) -> Array:
            return array[chosen] if len(array) == count else array

        return replace(
            self,
            x={name: array[chosen] for name, array in self.x.items()},
            y=self.y[chosen],
            drawn={e: {n: some(a) for n, a in arrays.items()} for e, arrays in self.drawn.items()},
            soft=None if self.soft is None else self.soft[chosen],
        )


def batch(
    rng: random.Random, numbers: np.random.Generator, architecture: Architecture, *, hostile: bool
) -> Batch:
    """A batch for a model; hostile: one number of it may be NaN or infinite."""
    count = rng.choice([1, 1, 2, 2, 3, 4, 6, 8])
    kind = rng.choice(["inside", "inside", "inside", "coarse", "wide"])
    x: dict[str, Array] = {}
    for name, shape in architecture.inputs.items():
        values: Array = numbers.random((count, *shape))
        if kind == "coarse":  # many on the bounds 0 and 1, and many equal
            values = np.round(4 * values) / 4
        elif kind == "wide":
            values = 3 * values - 1
        x[name] = values.astype(np.float32)
    if rng.random() < 0.4:
        row = rng.randrange(count)
        for values in x.values():
            values[row] = rng.choice([0.0, 0.0, 0.5, 1.0])
    if hostile and rng.random() < _HOSTILE:
        row, values = rng.randrange(count), rng.choice(list(x.values()))
        values[row].flat[rng.randrange(values[row].size)] = rng.choice(_EXTREMES)
    classes = architecture.classes
    y = numbers.integers(0, classes, count)
    soft = 0.3 * numbers.random((count, classes)) if rng.random() < 0.3 else None
    return Batch(x, y, classes, _drawn_extras(rng, numbers, x, count), soft)


def _drawn_extras(
    rng: random.Random, numbers: np.random.Generator, x: Mapping[str, Array], count: int
) -> dict[str, dict[str, Array]]:
    """Every mask, bound and weight that a case may name."""
    first, one = next(iter(x)), np.ones(1, np.float32)
    masks: dict[str, Array] = {}
    fractions, lows, highs = dict(masks), dict(masks), dict(masks)
    for name, values in x.items():
        shape = values.shape if rng.random() < 0.5 else (1, *values.shape[1:])
        masks[name] = (numbers.random(shape) < rng.choice([0.0, 0.5, 0.8])).astype(np.float32)
        fractions[name] = np.round(numbers.random(shape), 2).astype(np.float32)
        lows[name] = (values - 0.05 * numbers.random(values.shape)).astype(np.float32)
        highs[name] = (values + 0.05 * numbers.random(values.shape)).astype(np.float32)
    weights = numbers.choice([0.0, 0.25, 1.0, 1.0, 2.0, -1.0], count).astype(np.float32)
    zeros, ones = dict.fromkeys(x, 0 * one), dict.fromkeys(x, one)

    def each(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
        return {f"{prefix}/{name}": array for name, array in arrays.items()}

    return {
        "mask": each("feature_mask", masks),
        "fractional mask": each("feature_mask", fractions),
        "wide mask": each("feature_mask", {n: 2 * a - 0.5 for n, a in fractions.items()}),
        "first mask": {f"feature_mask/{first}": masks[first]},
        "low": each("clip_value_min", zeros),
        "low tensor": each("clip_value_min", lows),
        "first low": {f"clip_value_min/{first}": 0 * one},
        "high": each("clip_value_max", ones),
        "high tensor": each("clip_value_max", highs),
        "clip_min": {"clip_min": lows[first]},
        "clip_max": {"clip_max": highs[first]},
        "w": {"w": weights},
        "w_column": {"w": weights[:, None]},
    }
