"""NSL's losses by Keras' names and as objects, beside Keras 2.15 and NSL 1.4.0."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from processes import SUPPORT
from torch import Tensor, nn

from torchfgsm import losses, nsl
from torchfgsm.nsl.loss import resolve
from torchfgsm.originals.environment import EnvironmentUnavailable, python_for

# Rows that add up to 1.4, so that what a loss makes of such shows.
pytestmark = [
    pytest.mark.live,
    pytest.mark.filterwarnings("ignore:the model's output should be probabilities"),
]

Array = npt.NDArray[Any]
Case = tuple[str, dict[str, Any] | None]

NAMES = [
    "mae",
    "MAE",
    "mse",
    "msle",
    "MSLE",
    "mape",
    "MAPE",
    "huber",
    "huber_loss",
    "logcosh",
    "log_cosh",
    "hinge",
    "squared_hinge",
    "categorical_hinge",
    "kl_divergence",
    "kld",
    "kullback_leibler_divergence",
    "poisson",
    "cosine_similarity",
    "binary_crossentropy",
    "bce",
    "binary_focal_crossentropy",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "mean_absolute_error",
    "mean_squared_error",
    "mean_absolute_percentage_error",
    "mean_squared_logarithmic_error",
    "sparse_categorical_crossentropy",
]
OBJECTS: list[Case] = [
    ("Huber", {"delta": 0.3}),
    ("MeanAbsoluteError", {}),
    ("MeanSquaredLogarithmicError", {}),
    ("MeanAbsolutePercentageError", {}),
    ("LogCosh", {}),
    ("Hinge", {}),
    ("SquaredHinge", {}),
    ("CategoricalHinge", {}),
    ("KLDivergence", {}),
    ("Poisson", {}),
    ("CosineSimilarity", {"axis": 1}),
    ("BinaryFocalCrossentropy", {"apply_class_balancing": True, "alpha": 0.4, "gamma": 1.5}),
    ("BinaryFocalCrossentropy", {"from_logits": True, "label_smoothing": 0.2}),
    ("CategoricalFocalCrossentropy", {"from_logits": True, "alpha": 0.7, "gamma": 3.0}),
    ("CategoricalFocalCrossentropy", {"label_smoothing": 0.1}),
    ("SparseCategoricalCrossentropy", {"from_logits": True, "ignore_class": 2}),
]
# Labels (N,) for an output (N, 1), which objects alone take.
FLAT: list[Case] = [
    ("BinaryCrossentropy", {}),
    ("MeanSquaredError", {}),
    ("Huber", {}),
    ("BinaryFocalCrossentropy", {}),
]
CASES: list[Case] = [*((name, None) for name in NAMES), *OBJECTS, *FLAT]


def labels_and_output(number: int) -> tuple[Array, Array]:
    name, keywords = CASES[number]
    rng = np.random.default_rng(number)
    if CASES[number] in FLAT:
        return rng.integers(0, 2, 8).astype("f4"), rng.uniform(0.1, 0.9, (8, 1)).astype("f4")
    output = rng.dirichlet(np.ones(4), 8) + 0.1
    if (keywords or {}).get("from_logits") or "inge" in name or "osine" in name:
        output = rng.normal(size=(8, 4))
    classes = rng.integers(0, 4, 8)
    if name.lower().startswith("sparse"):
        return classes, output.astype("f4")
    one_hot = np.eye(4)[classes]
    soft = rng.dirichlet(np.ones(4), 8)
    takes_classes = "inge" in name or "cross" in name or name in ("bce", "BCE")
    return (one_hot if takes_classes else soft).astype("f4"), output.astype("f4")


DICTS = {
    "x": np.random.default_rng(1).uniform(size=(6, 4)).astype("f4"),
    "first": np.random.default_rng(2).integers(0, 3, 6),
    "second": np.random.default_rng(3).integers(0, 3, 6),
    "a": np.random.default_rng(4).normal(size=(4, 3)).astype("f4"),
    "b": np.random.default_rng(5).normal(size=(4, 3)).astype("f4"),
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    try:
        python = python_for("keras-2")
    except EnvironmentUnavailable as error:
        pytest.skip(str(error))
    path = tmp_path_factory.mktemp("losses") / "cases.npz"
    arrays: dict[str, Any] = {"cases": np.array(json.dumps(CASES)), **DICTS}
    for i in range(len(CASES)):
        arrays[f"{i}/y_true"], arrays[f"{i}/y_pred"] = labels_and_output(i)
    np.savez(path, **arrays)
    worker = SUPPORT / "keras_losses_worker.py"
    done = subprocess.run(
        [str(python), str(worker), str(path)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda i: f"{CASES[i][0]}-{i}")
def test_values_and_gradients_are_those_of_keras_and_nsl(
    originals: dict[str, Any], number: int
) -> None:
    (name, keywords), (y_true, y_pred) = CASES[number], labels_and_output(number)
    value, gradient, labeled, adversarial = originals["losses"][number]
    loss: Any = resolve(name if keywords is None else getattr(losses, name)(**keywords))
    output, y = torch.from_numpy(y_pred).requires_grad_(), torch.from_numpy(y_true)
    found: Tensor = loss(y, output)
    ignoring = "ignore_class" in (keywords or {})
    np.testing.assert_allclose(found.item(), value, rtol=2e-6)
    (slope,) = torch.autograd.grad(found, output)
    scale = np.abs(gradient).max()
    np.testing.assert_allclose(slope, np.asarray(gradient), rtol=1e-5, atol=1e-6 * scale)
    module = nsl.AdversarialRegularization(
        nn.Identity(),
        loss=name if keywords is None else getattr(losses, name)(**keywords),
        adv_config=nsl.make_adv_reg_config(multiplier=1.0, adv_step_size=0.05),
    )
    parts = module({"x": torch.from_numpy(y_pred), "label": y})
    np.testing.assert_allclose(parts.labeled_loss.item(), labeled, rtol=1e-5)
    np.testing.assert_allclose(parts.scaled_adversarial_loss.item(), adversarial, rtol=1e-5)
    assert not ignoring or parts.labeled_loss.item() < 0.99 * value  # NSL's divisor is another


def test_labels_meet_the_outputs_of_a_dict_as_in_nsl(originals: dict[str, Any]) -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {name: x @ torch.from_numpy(DICTS[name]) for name in ("b", "a")}

    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    module = nsl.AdversarialRegularization(
        Model(),
        label_keys=["first", "second"],
        adv_config=nsl.make_adv_reg_config(multiplier=0.0),
        loss=[loss, loss],
        loss_weights=[1.0, 10.0],
    )
    batch = {name: torch.from_numpy(DICTS[name]) for name in ("x", "first", "second")}
    assert module(batch).labeled_loss.item() == pytest.approx(originals["dicts"], rel=1e-6)
