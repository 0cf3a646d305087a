"""Saved Keras models and inputs that the tests of the live originals share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from torchfgsm.originals import Worker

ZOO = Path(__file__).parent / "keras_zoo_worker.py"
Array = npt.NDArray[Any]
ModelPath = Callable[..., str]

RANDOM = np.random.default_rng(0)
X = RANDOM.random((5, 6)).astype(np.float32)
Y = np.array([0, 1, 2, 3, 1])
IMAGES = RANDOM.random((4, 8, 8, 2)).astype(np.float32)
CLASSES = np.array([0, 4, 2, 1])


def unit_l2(gradient: Array) -> Array:
    flat = gradient.reshape(len(gradient), -1).astype(np.float64)
    norm = np.linalg.norm(flat, axis=1).reshape([-1] + [1] * (gradient.ndim - 1))
    return np.asarray(gradient / norm)


def one_hot(labels: Array, classes: int) -> Array:
    return np.asarray(np.eye(classes, dtype=np.float32)[labels])


@contextmanager
def zoo(folder: Path) -> Iterator[ModelPath]:
    """Gives the path of a saved Keras model by its kind, built in ``folder`` on first use."""
    with Worker("keras-2", ZOO) as worker:

        def path_of(kind: str, suffix: str = ".keras") -> str:
            path = folder / f"{kind}{suffix}"
            if not path.exists():
                worker.call("build", kind=kind, path=str(path), seed=1)
            return str(path)

        yield path_of
