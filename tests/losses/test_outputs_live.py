"""Converted models whose head was cut: losses and accuracies as Keras and NSL have them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import SUPPORT

import torchfgsm
from torchfgsm import Recipe, Weighting, converters, nsl
from torchfgsm.converters.exporting import WORKER as WORKER_OF_EXPORT
from torchfgsm.originals.environment import EnvironmentUnavailable, python_for
from torchfgsm.originals.process import Worker

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("one_thread")]

WORKER = SUPPORT / "keras_outputs_worker.py"
LOSSES = {
    "softmax-sparse": "sparse_categorical_crossentropy",
    "softmax-mse": "mse",
    "softmax-binary": "binary_crossentropy",
    "sigmoid-binary": "binary_crossentropy",
    "sigmoid-categorical": "categorical_crossentropy",
    "sigmoid-one": "binary_crossentropy",
    "pictures-sparse": "sparse_categorical_crossentropy",
    "pictures-binary": "binary_crossentropy",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Worker]]:
    folder = tmp_path_factory.mktemp("outputs")
    try:
        python = str(python_for("keras-2"))
    except EnvironmentUnavailable as error:
        pytest.skip(str(error))
    done = subprocess.run(
        [python, str(WORKER), str(folder)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    worker = Worker("keras-2", WORKER_OF_EXPORT)
    yield folder, worker
    worker.close()


@pytest.mark.parametrize("case", LOSSES)
def test_losses_follow_the_model_as_in_keras(models: tuple[Path, Worker], case: str) -> None:
    folder, worker = models
    model = converters.load(folder / f"{case}.keras", worker=worker, verify=False)
    with np.load(folder / f"{case}.npz") as file:
        kept = {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}
    config = nsl.make_adv_reg_config(multiplier=1.0, adv_step_size=0.01)
    wrapped = nsl.AdversarialRegularization(model, adv_config=config, loss=LOSSES[case])
    found = wrapped({"x": kept["x"], "label": kept["y"]})
    for name, value in (("labeled", found.labeled_loss),
                        ("adversarial", found.scaled_adversarial_loss)):  # fmt: skip
        torch.testing.assert_close(
            value.double(), kept[name].double(), rtol=1e-4, atol=1e-6, msg=f"{case} {name}"
        )
    torch.testing.assert_close(kept["labeled"], kept["loss"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", [
    "softmax-sparse", "sigmoid-binary", "sigmoid-one", "pictures-sparse", "pictures-binary",
])  # fmt: skip
def test_the_default_loss_and_the_accuracy_are_those_of_keras(
    models: tuple[Path, Worker], case: str
) -> None:
    folder, worker = models
    model = converters.load(folder / f"{case}.keras", worker=worker, verify=False)
    with np.load(folder / f"{case}.npz") as file:
        x, y = torch.from_numpy(file["x"]), torch.from_numpy(file["y"])
        loss, accuracy = float(file["loss"]), float(file["accuracy"])
    recipe = Recipe(step=0.01)
    step = torchfgsm.adversarial_step(model, x, y, recipe=recipe, weighting=Weighting(1.0, 1.0))
    assert float(step.clean_loss or 0) == pytest.approx(loss, rel=1e-4)
    report = torchfgsm.evaluate(model, [(x, y)], recipe=recipe)
    assert report.clean_loss == pytest.approx(loss, rel=1e-4)
    if case == "sigmoid-binary":  # Keras compares the largest entries; each label counts here
        assert report.clean_accuracy == float(((model(x) > 0) == (y > 0.5)).double().mean())
    else:
        assert report.clean_accuracy == pytest.approx(accuracy, rel=1e-6)
