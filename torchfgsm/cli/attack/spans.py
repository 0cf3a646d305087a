"""What an attack of a file leaves: the range in which its data lie."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from torchfgsm.core.recipe import Recipe

Array = npt.NDArray[Any]
# Of images as floats, of images around 0, of bytes.
_USUAL = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))


class Spans:
    """Smallest and largest values of the rows before and after an attack, as batches come."""

    def __init__(self) -> None:
        """Has seen nothing."""
        self._before = self._after = (math.inf, -math.inf)
        self._dtype: type[Any] = np.float32

    def add(self, before: Array, after: Array) -> None:
        """Takes a batch of rows and what the attack made of them."""
        self._dtype = after.dtype.type
        self._before = _joined(self._before, before)
        self._after = _joined(self._after, after)

    def notes(self, recipe: Recipe) -> list[str]:
        """What to say of a range that the attack leaves, or whose clipping moves the data."""
        if math.inf in self._before:  # no rows
            return []
        low, high = recipe.clip_min, recipe.clip_max
        notes = []
        if not _within(self._before, low, high):
            notes.append(
                f"the data lie in {self._shown(self._before)}, outside of the range that "
                "--clip-min and --clip-max give: clipping moves them, further than --eps"
            )
        usual = _usual(self._before)
        missing = [
            f"{option} {self._number(edge)}"
            for option, bound, edge in zip(
                ("--clip-min", "--clip-max"), (low, high), usual, strict=True
            )
            if bound is None
        ]
        open_range = (usual[0] if low is None else None, usual[1] if high is None else None)
        if not _within(self._after, *open_range):
            notes.append(
                f"the data lie in {self._shown(self._before)}, the adversarial examples in "
                f"{self._shown(self._after)}: to stay in {self._shown(usual)} give "
                f"{' '.join(missing)}"
            )
        return notes

    def _shown(self, span: tuple[float, float]) -> str:
        return f"[{self._number(span[0])}, {self._number(span[1])}]"

    def _number(self, value: float) -> str:
        """The shortest text that gives the value back, in the dtype of the rows."""
        short = f"{value:g}"
        return short if float(short) == value else str(self._dtype(value))


def _joined(span: tuple[float, float], rows: Array) -> tuple[float, float]:
    return min(span[0], float(rows.min())), max(span[1], float(rows.max()))


def _within(span: tuple[float, float], low: float | None, high: float | None) -> bool:
    return (low is None or span[0] >= low) and (high is None or span[1] <= high)


def _usual(span: tuple[float, float]) -> tuple[float, float]:
    """The usual range that the values fill by more than half, else that of the values."""
    for low, high in _USUAL:
        if _within(span, low, high) and span[1] - span[0] > (high - low) / 2:
            return low, high
    return span
