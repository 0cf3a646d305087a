"""The training losses and steps of the originals, and the float64 judge, live.

Creates the environments on first use, or takes those named by TORCHFGSM_PYTHON_...
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from original_cases import CLASSES, IMAGES, ModelPath, X, Y, one_hot, zoo

from torchfgsm import originals
from torchfgsm.originals import Worker

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelPath]:
    with zoo(tmp_path_factory.mktemp("zoo")) as path_of:
        yield path_of


@pytest.fixture(scope="module")
def nsl() -> Iterator[Worker]:
    with originals.start("nsl") as worker:
        yield worker


@pytest.fixture(scope="module")
def cleverhans3() -> Iterator[Worker]:
    with originals.start("cleverhans3") as worker:
        yield worker


def test_the_training_losses_of_nsl_and_cleverhans3_are_one_another(
    nsl: Worker, cleverhans3: Worker, model: ModelPath
) -> None:
    # NSL's multiplier is a / (1 - a), and its loss CleverHans' / (1 - a).
    params: dict[str, Any] = {
        "multiplier": 1 / 3,
        "adv_grad_norm": "infinity",
        "adv_step_size": 0.1,
    }
    left = nsl.call("train", {"x/x": X, "y": Y}, model=model("mlp"), params=params)
    params = {
        "attack": "FastGradientMethod",
        "attack_params": {"eps": 0.1},
        "pass_y": True,
        "adv_coeff": 0.25,
    }
    right = cleverhans3.call(
        "train", {"x/x": X, "y": one_hot(Y, 4)}, model=model("mlp"), params=params
    )
    values = right.values
    mixed = 0.75 * values["clean_loss"] + 0.25 * values["adversarial_loss"]
    assert values["loss"] == pytest.approx(mixed, rel=1e-6)
    assert left.values["loss"] == pytest.approx(values["loss"] / 0.75, rel=1e-6)
    assert left.values["labeled_loss"] == pytest.approx(values["clean_loss"], rel=1e-6)
    adversarial = left.values["scaled_adversarial_loss"] * 3
    assert adversarial == pytest.approx(values["adversarial_loss"], rel=1e-6)
    assert set(left.arrays) == set(right.arrays)
    for name, gradient in left.arrays.items():
        np.testing.assert_allclose(gradient, right.arrays[name] / 0.75, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_one_step_of_nsl(nsl: Worker, model: ModelPath, training: bool) -> None:
    arrays = {"x/x": IMAGES, "y": CLASSES}
    request = {"model": model("cnn"), "training": training, "seed": 5}
    stay, go = (
        nsl.call("train", arrays, optimizer={"sgd": rate}, **request).arrays for rate in (0.0, 0.5)
    )
    trainable = {name[5:] for name in stay if name.startswith("grad/")}
    assert len(trainable) == 8
    for name in trainable:
        expected = stay[f"after/{name}"] - np.float32(0.5) * go[f"grad/{name}"]
        np.testing.assert_allclose(go[f"after/{name}"], expected, rtol=0, atol=1e-6)
    # The moving statistics follow the flag alone; with rate 0 they show whether they moved.
    names = ("after/norm1/moving_mean:0", "after/norm1/moving_variance:0")
    before = nsl.call("train", arrays, optimizer={"sgd": 0.0}, model=model("cnn")).arrays
    for name in names:
        assert np.array_equal(stay[name], before[name]) != training


def test_one_step_of_cleverhans3_leaves_the_moving_statistics(
    cleverhans3: Worker, model: ModelPath
) -> None:
    arrays = {"x/x": IMAGES, "y": one_hot(CLASSES, 5)}
    request: dict[str, Any] = {"model": model("cnn"), "training": True, "seed": 5}
    request["params"] = {"attack": "FastGradientMethod", "smoothing": 0.1, "weight_decay": 0.01}
    stay, go = (
        cleverhans3.call("train", arrays, optimizer={"sgd": rate}, **request).arrays
        for rate in (0.0, 0.5)
    )
    assert not np.array_equal(stay["after/head/kernel:0"], go["after/head/kernel:0"])
    for name in ("after/norm1/moving_mean:0", "after/norm1/moving_variance:0"):
        np.testing.assert_array_equal(stay[name], go[name])


def test_layer_losses_are_counted_and_the_model_stays_as_it_is(
    nsl: Worker, model: ModelPath
) -> None:
    arrays = {"x/x": X, "y": Y, "w": np.ones((5, 1), np.float32)}
    path = model("regularized")
    before = nsl.call("perturb", arrays, model=path).arrays
    values = nsl.call("train", arrays, model=path, optimizer={"sgd": 1.0}).values
    parts = values["labeled_loss"] + values["scaled_adversarial_loss"]
    assert 0.01 < values["loss"] - parts < 1
    after = nsl.call("perturb", arrays, model=path).arrays
    np.testing.assert_array_equal(before["adv/x"], after["adv/x"])


def test_the_judge_is_the_closed_form_of_a_linear_model(nsl: Worker, model: ModelPath) -> None:
    path = model("linear")
    after = nsl.call("train", {"x/x": X, "y": Y}, model=path, optimizer={"sgd": 0.0}).arrays
    weight = after["after/head/kernel:0"].astype(np.float64)
    judge = nsl.call(
        "oracle", {"x/x": X, "y": Y}, model=path, want=["input_gradient", "logits"]
    ).arrays
    logits = X.astype(np.float64) @ weight + after["after/head/bias:0"]
    np.testing.assert_allclose(judge["logits"], logits, rtol=1e-13)
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = (softmax - np.eye(4)[Y]) @ weight.T
    np.testing.assert_allclose(judge["gradient/x"], expected, rtol=1e-12, atol=1e-15)


def test_nsl_in_float64_is_the_judge_itself(nsl: Worker, model: ModelPath) -> None:
    arrays = {"x/x": IMAGES, "y": CLASSES, "w": np.array([1.0, 0.5, 2.0, 0.0])}
    loss = {"class": "SparseCategoricalCrossentropy", "reduction": "sum"}
    reply = nsl.call("perturb", arrays, model=model("cnn"), dtype="float64", loss=loss)
    judge = nsl.call("oracle", arrays, model=model("cnn")).arrays
    np.testing.assert_allclose(
        reply.arrays["gradient/x"], judge["gradient/x"], rtol=1e-10, atol=1e-14
    )
    assert reply.arrays["adv/x"].dtype == np.float64
