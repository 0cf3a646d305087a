"""At the points where derivatives jump, converted models have TensorFlow's gradient.

Random numbers never hit such a point; images with 0.0 and 1.0 pixels and equal neighbours do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import SUPPORT

from torchfgsm.converters import load
from torchfgsm.originals.environment import EnvironmentUnavailable
from torchfgsm.originals.process import Worker

pytestmark = [
    pytest.mark.live,
    pytest.mark.keras_3_suffices,
    pytest.mark.usefixtures("one_thread"),
]
WORKER = SUPPORT / "kinks_worker.py"
POINTS = (-7, -6, -4, -3, -2.5, -1, -0.5, -0.25, 0, 0.25, 0.5, 1, 2, 2.5, 3, 4, 6, 7)


@pytest.fixture(scope="module", params=["keras-2", "keras-3"])
def compared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Compared]]:
    """Returns a kind of model by its name; each is converted once."""
    try:
        worker = Worker(request.param, WORKER)
    except EnvironmentUnavailable as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("models")
    with worker:
        yield functools.cache(lambda kind: Compared(worker, kind, folder))


class Compared:
    """A model's outputs and input gradients, in TensorFlow and in torch."""

    def __init__(self, worker: Worker, kind: str, folder: Path) -> None:
        self.worker, self.kind, self.path = worker, kind, folder / f"{kind}.keras"
        self.units = worker.call("build", kind=kind, path=str(self.path)).values["units"]
        if not self.units:
            return
        self.model = load(self.path, worker=worker, verify=False, keep_head=True)

    def on(self, x: np.ndarray, precision: str) -> tuple[dict[str, Any], dict[str, Any]]:
        call: dict[str, Any] = {"kind": self.kind, "path": str(self.path), "precision": precision}
        theirs = self.worker.call("differentiate", {"x": x.astype(precision)}, **call).arrays
        model = self.model.to(getattr(torch, precision))
        inputs = torch.from_numpy(x.astype(precision)).requires_grad_()
        y = model(inputs)
        assert isinstance(y, torch.Tensor)
        weights = np.cos(np.arange(y[0].numel())).reshape(y.shape[1:])
        total = (y * torch.from_numpy(weights).to(y.dtype)).sum()
        (gradient,) = torch.autograd.grad(total, inputs)
        return theirs, {"y": y.detach().numpy(), "gradient": gradient.numpy()}


def agree(theirs: dict[str, Any], ours: dict[str, Any], precision: str) -> None:
    for name in ("y", "gradient"):
        assert close(theirs[name], ours[name], precision), (name, theirs[name], ours[name])


def close(expected: Any, actual: Any, precision: str) -> bool:
    # Constants of the graph are float32, and TensorFlow's own mish is off by 6e-7.
    tolerance = 2e-5 if precision == "float32" else 2e-6
    return np.allclose(actual, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_functions(compared: Callable[[str], Compared], precision: str) -> None:
    """One row for each activation or operation, one example for each point."""
    model = compared("functions")
    x = np.broadcast_to(np.array(POINTS)[:, None, None], (len(POINTS), len(model.units), 1))
    theirs, ours = model.on(x, precision)
    # Constants of the graph are float32: 0.2 * -2.5 + 0.5 lies beside the bound in float64.
    left_out = "hard_sigmoid" if precision == "float64" else ""
    differences = [
        f"{unit} at {point}: {name} {theirs[name][j, i, 0]:.9g} in TensorFlow, "
        f"{ours[name][j, i, 0]:.9g} here"
        for name in ("y", "gradient")
        for i, unit in enumerate(model.units)
        for j, point in enumerate(POINTS)
        if unit != left_out and not close(theirs[name][j, i, 0], ours[name][j, i, 0], precision)
    ]
    assert not differences, "\n".join(differences)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["vectors", "sparsemax"])
def test_vectors_with_ties(compared: Callable[[str], Compared], kind: str, precision: str) -> None:
    model = compared(kind)
    if not model.units:
        pytest.skip(f"this Keras has no {kind}")
    x = np.array([[0, 0, 0, 0], [1, 1, 0, 1], [0.5, 2, 2, 0.5], [-1, 0, 0, 3], [1, 2, 3, 4]])
    agree(*model.on(x, precision), precision)


@pytest.mark.parametrize("kind", ["images", "volumes"])
def test_images_of_equal_pixels(compared: Callable[[str], Compared], kind: str) -> None:
    shape = {"images": (6, 7, 2), "volumes": (4, 4, 5, 1)}[kind]
    half = np.zeros(shape)
    half[:, 3:] = np.random.default_rng(0).random(half[:, 3:].shape)
    board = np.indices(shape).sum(0) % 2
    x = np.stack([np.zeros(shape), np.ones(shape), np.full(shape, 0.25), half, board])
    agree(*compared(kind).on(x, "float32"), "float32")
