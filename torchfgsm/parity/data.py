"""The inputs of a case: a batch, its labels in each library's format, masks, bounds, weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchfgsm.parity.cases import Case

Array = NDArray[Any]


@dataclass(frozen=True)
class Data:
    """A labelled batch.

    Attributes:
        x: Input name -> array (N, ...), in the model's order.
        y: Class numbers (N,).
        classes: Number of classes.
    """

    x: dict[str, Array]
    y: Array
    classes: int

    def inputs(self, dtype: str = "float32") -> dict[str, Array]:
        """The inputs by the workers' names."""
        return {f"x/{name}": np.asarray(value, dtype) for name, value in self.x.items()}

    def class_numbers(self, case: Case) -> Array:
        """The labels that the caller gives: the true ones, or the next class as a target."""
        return (self.y + 1) % self.classes if case.labels == "target" else self.y

    def one_hot(self, case: Case) -> Array:
        """The labels as rows."""
        return np.eye(self.classes, dtype=case.dtype)[self.class_numbers(case)]

    def labels(self, case: Case) -> dict[str, Array]:
        """The labels by the workers' names; none where the original predicts them itself."""
        if case.labels == "predicted" and case.kind == "perturb":
            return {}
        if case.library == "cleverhans3":
            key = "y_target" if case.labels == "target" else "y"
            return {key: self.one_hot(case)}
        if case.loss.get("class") == "CategoricalCrossentropy":
            return {"y": self.one_hot(case)}
        return {"y": self.class_numbers(case)}

    def extras(self, case: Case) -> dict[str, Array]:
        """Masks, bounds and weights by the workers' names."""
        found: dict[str, Array] = {}
        for extra in case.extras:
            found.update(self._extra(extra, np.dtype(case.dtype)))
        return found

    def _extra(self, extra: str, dtype: np.dtype[Any]) -> dict[str, Array]:
        count = len(self.y)
        weights = (0.25 + 0.5 * (np.arange(count) % 4)).astype(dtype)
        first = next(iter(self.x))
        zero, one = np.zeros((1,), dtype), np.ones((1,), dtype)
        plain: dict[str, dict[str, Array]] = {
            "w": {"w": weights},
            "w_column": {"w": weights[:, None]},
            "clip_value_min": {f"clip_value_min/{name}": zero for name in self.x},
            "clip_value_max": {f"clip_value_max/{name}": one for name in self.x},
            "first_clip_min": {f"clip_value_min/{first}": zero},
            "first_mask": {f"feature_mask/{first}": _checkerboard(self.x[first], dtype)},
        }
        if extra in plain:
            return plain[extra]
        each = {
            "feature_mask": ("feature_mask/", _checkerboard),
            "fractional_mask": ("feature_mask/", _ramp),
            "clip_tensor_min": ("clip_value_min/", _below),
            "clip_tensor_max": ("clip_value_max/", _above),
        }
        if extra in each:
            prefix, make = each[extra]
            return {prefix + name: make(value, dtype) for name, value in self.x.items()}
        # CleverHans takes one input and bounds without a name.
        bound = _below if extra == "clip_min" else _above
        return {extra: bound(self.x[first], dtype)}


def _checkerboard(x: Array, dtype: np.dtype[Any]) -> Array:
    indices: Array = np.indices(x.shape[1:]).sum(axis=0)
    return (indices % 2).astype(dtype)[None]


def _ramp(x: Array, dtype: np.dtype[Any]) -> Array:
    size = int(np.prod(x.shape[1:]))
    return np.linspace(0.0, 1.0, size).reshape(1, *x.shape[1:]).astype(dtype)


def _below(x: Array, dtype: np.dtype[Any]) -> Array:
    return (np.asarray(x, np.float64) * 0.75).astype(dtype)


def _above(x: Array, dtype: np.dtype[Any]) -> Array:
    return (np.asarray(x, np.float64) * 0.75 + 0.3).astype(dtype)


def sample_gradient(count: int = 12, shape: tuple[int, ...] = (8, 8, 1)) -> Array:
    """Gradients for the direction cases: random rows, ties, zeros, tiny and large entries."""
    rng = np.random.default_rng(7)
    rows = rng.standard_normal((count, *shape)).astype(np.float32)
    rows *= np.float32(10.0) ** rng.integers(-3, 4, (count, 1, 1, 1)).astype(np.float32)
    rows[0] = 0
    rows[1] = 0
    rows[1].flat[:3] = (3, -3, 3)
    rows[2] = np.where(rows[2] > 0, np.float32(0.5), np.float32(-0.25))
    rows[3] *= np.float32(1e-9) / np.abs(rows[3]).max()
    return rows
