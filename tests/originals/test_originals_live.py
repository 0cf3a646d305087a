"""Each original, live: its perturbation agrees with the closed form from its own gradient.

Creates the environments on first use, or takes those named by TORCHFGSM_PYTHON_...
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from original_cases import IMAGES, RANDOM, Array, ModelPath, X, Y, one_hot, unit_l2, zoo

from torchfgsm import originals
from torchfgsm.originals import Worker, WorkerError
from torchfgsm.originals.cleverhans_torch import cleverhans_torch

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


@pytest.fixture(scope="module")
def cleverhans_tf2() -> Iterator[Worker]:
    with originals.start("cleverhans-tf2") as worker:
        yield worker


def test_versions_are_those_of_the_table(
    nsl: Worker, cleverhans3: Worker, cleverhans_tf2: Worker
) -> None:
    found = [worker.call("versions").values for worker in (nsl, cleverhans3, cleverhans_tf2)]
    assert [(v["library"], v["library_version"]) for v in found] == [
        ("nsl", "1.4.0"),
        ("cleverhans3", "3.1.0"),
        ("cleverhans-tf2", "4.0.0"),
    ]
    assert {v["tensorflow"] for v in found} == {"2.21.0"}


def test_signatures(nsl: Worker, cleverhans3: Worker, cleverhans_tf2: Worker) -> None:
    config = nsl.call("signatures").values["AdvNeighborConfig"]
    assert config[1] == ["adv_step_size", "POSITIONAL_OR_KEYWORD", "0.001"]
    parameters = cleverhans3.call("signatures").values["FastGradientMethod.parse_params"]
    assert ["ord", "POSITIONAL_OR_KEYWORD", "inf"] in parameters
    function = cleverhans_tf2.call("signatures").values["fast_gradient_method"]
    required = [name for name, _, default in function if default is None]
    assert required == ["model_fn", "x", "eps", "norm"]


@pytest.mark.parametrize(
    ("kind", "cut", "suffix"),
    [
        ("mlp", "softmax of layer head cut off", ".keras"),
        ("softmax_layer", "softmax of layer softmax cut off", ".h5"),
        ("binary", "sigmoid of layer head cut off", ".keras"),
        ("logits", "no softmax or sigmoid at the end: taken as logits", ""),
    ],
)
def test_the_head_is_cut_and_only_the_head(
    nsl: Worker, model: ModelPath, kind: str, cut: str, suffix: str
) -> None:
    path = model(kind, suffix)
    loaded = nsl.call("load", model=path).values
    assert loaded["logits"] == cut
    assert loaded["input_names"] == ["x"]
    assert loaded["weights"][0] == "hidden/kernel:0"
    outputs = {
        output: nsl.call("oracle", {"x/any": X}, model=path, output=output, want=["logits"])
        for output in ("logits", "probabilities")
    }
    logits = torch.from_numpy(outputs["logits"].arrays["logits"])
    heads = {"softmax": logits.softmax(1), "sigmoid": logits.sigmoid(), "no": logits}
    expected = heads[cut.split()[0]].numpy()
    assert logits.dtype == torch.float64
    np.testing.assert_allclose(outputs["probabilities"].arrays["logits"], expected, rtol=1e-13)


@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_nsl_at_its_defaults(nsl: Worker, model: ModelPath, output: str) -> None:
    arrays = {"x/x": X, "y": Y}
    reply = nsl.call("perturb", arrays, model=model("mlp"), output=output)
    gradient = reply.arrays["gradient/x"]
    np.testing.assert_allclose(
        reply.arrays["adv/x"], X + 0.001 * unit_l2(gradient), rtol=0, atol=1.2e-7
    )
    judge = nsl.call("oracle", arrays, model=model("mlp"), reduction="mean").arrays
    np.testing.assert_allclose(gradient, judge["gradient/x"], rtol=1e-4, atol=1e-7)
    assert reply.arrays["loss"] == pytest.approx(judge["loss"], rel=1e-6)
    assert reply.arrays["adv/x"].dtype == gradient.dtype == np.float32


def test_nsl_perturbs_two_inputs_jointly(nsl: Worker, model: ModelPath) -> None:
    left = RANDOM.random((3, 5)).astype(np.float32)
    right = RANDOM.random((3, 4, 4, 1)).astype(np.float32)
    arrays = {
        "x/right": right,
        "x/left": left,
        "y": np.array([0, 1, 2]),
        "feature_mask/left": np.array([1, 0, 1, 1, 1], np.float32),
        "clip_value_max/right": np.array(0.9, np.float32),
    }
    params = {"adv_step_size": 0.2}
    reply = nsl.call("perturb", arrays, model=model("two_inputs"), params=params).arrays
    masked = reply["gradient/left"] * arrays["feature_mask/left"]
    joint = np.concatenate([masked, reply["gradient/right"].reshape(3, -1)], axis=1)
    step = 0.2 * unit_l2(joint)
    np.testing.assert_allclose(reply["adv/left"], left + step[:, :5], rtol=0, atol=2e-7)
    moved = np.minimum(right + step[:, 5:].reshape(right.shape), 0.9)
    np.testing.assert_allclose(reply["adv/right"], moved, rtol=0, atol=2e-7)


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        ({"eps": 0.3, "norm": np.inf}, lambda g: np.float32(0.3) * np.sign(g)),
        ({"eps": 0.3, "norm": 2}, lambda g: 0.3 * unit_l2(g)),
        ({"eps": 0.3, "norm": 2, "targeted": True}, lambda g: 0.3 * unit_l2(g)),
    ],
)
def test_cleverhans_tf2(
    cleverhans_tf2: Worker,
    nsl: Worker,
    model: ModelPath,
    attack: dict[str, Any],
    expected: Callable[[Array], Array],
) -> None:
    params = {"attack": "fast_gradient_method", **attack}
    reply = cleverhans_tf2.call("perturb", {"x/x": X}, model=model("mlp"), params=params).arrays
    gradient = reply["gradient/x"]
    np.testing.assert_allclose(reply["adv/x"], X + expected(gradient), rtol=0, atol=1.2e-7)
    arrays, want = {"x/x": X, "y": reply["labels"]}, ["input_gradient", "losses", "logits"]
    judge = nsl.call("oracle", arrays, model=model("mlp"), want=want).arrays
    sign = -1 if attack.get("targeted") else 1
    np.testing.assert_array_equal(reply["labels"], judge["logits"].argmax(1))
    np.testing.assert_allclose(gradient, sign * judge["gradient/x"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(reply["loss"], sign * judge["losses"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_cleverhans3_at_its_defaults(
    cleverhans3: Worker, nsl: Worker, model: ModelPath, suffix: str
) -> None:
    path = model("cnn", suffix)
    params = {"attack": "FastGradientMethod"}
    reply = cleverhans3.call("perturb", {"x/x": IMAGES}, model=path, params=params).arrays
    gradient = reply["gradient/x"]
    np.testing.assert_array_equal(
        reply["adv/x"], IMAGES + np.float32(0.3) * np.sign(gradient, dtype=np.float32)
    )
    loss = {"class": "CategoricalCrossentropy"}
    arrays = {"x/x": IMAGES, "y": reply["labels"]}
    want = ["input_gradient", "losses", "logits"]
    judge = nsl.call("oracle", arrays, model=path, loss=loss, want=want).arrays
    np.testing.assert_array_equal(reply["labels"], one_hot(judge["logits"].argmax(1), 5))
    np.testing.assert_allclose(gradient, judge["gradient/x"], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(reply["loss"], judge["losses"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("attack", ["ProjectedGradientDescent", "BasicIterativeMethod"])
def test_cleverhans3_iterates_inside_its_ball(
    cleverhans3: Worker, model: ModelPath, attack: str
) -> None:
    params = {"attack": attack, "eps": 0.1, "eps_iter": 0.03, "nb_iter": 4, "sanity_checks": False}
    bounds = {"clip_min": np.zeros((1, 6)), "clip_max": np.full((1, 6), 0.95)}
    arrays = {"x/x": X, "y_target": one_hot(Y, 4), **bounds}
    request = {"model": model("mlp"), "params": params, "seed": 3}
    first, again = (cleverhans3.call("perturb", arrays, **request).arrays for _ in range(2))
    assert np.abs(first["adv/x"] - X)[X < 0.95].max() <= 0.1 + 1e-7
    assert first["adv/x"].max() <= np.float32(0.95)
    assert np.all(first["loss"] < 0)  # towards the target
    np.testing.assert_array_equal(first["adv/x"], again["adv/x"])


def test_probabilities_given_to_cleverhans_are_taken_as_logits(
    cleverhans3: Worker, cleverhans_tf2: Worker, model: ModelPath
) -> None:
    request = {"model": model("mlp"), "output": "probabilities"}
    params: dict[str, Any] = {"attack": "FastGradientMethod"}
    three = cleverhans3.call("perturb", {"x/x": X}, params=params, **request).arrays
    params = {"attack": "fast_gradient_method", "eps": 0.3, "norm": np.inf}
    four = cleverhans_tf2.call("perturb", {"x/x": X}, params=params, **request).arrays
    np.testing.assert_allclose(three["gradient/x"], four["gradient/x"], rtol=1e-4, atol=1e-7)
    # A softmax of four probabilities in [0, 1] leaves the loss near log 4.
    assert np.all((three["loss"] > 0.7) & (three["loss"] < 1.75))


def test_directions_and_projections(
    nsl: Worker, cleverhans3: Worker, cleverhans_tf2: Worker
) -> None:
    gradient = np.array([[3.0, -4.0, 0.0], [1.0, 2.0, -2.0]], np.float32)
    arrays = {"g/x": gradient}
    for worker, norms in ((nsl, ("infinity", "l2", "l1")), (cleverhans3, (np.inf, 2, 1))):
        linf, l2, l1 = (
            worker.call("function", arrays, params={"function": "direction", "norm": n}).arrays[
                "result/x"
            ]
            for n in norms
        )
        np.testing.assert_array_equal(linf, np.sign(gradient))
        np.testing.assert_allclose(l2, unit_l2(gradient), rtol=1e-6)
        np.testing.assert_array_equal(l1, np.array([[0, -1, 0], [0, 0.5, -0.5]]))
        options = {"function": "project", "norm": norms[1], "radius": 3.5}
        ball = worker.call("function", arrays, params=options)
        expected = gradient * np.array([[0.7], [1.0]])
        np.testing.assert_allclose(ball.arrays["result/x"], expected, rtol=1e-6)
    options = {"function": "project", "norm": np.inf, "radius": 1.5}
    box = cleverhans_tf2.call("function", arrays, params=options)
    np.testing.assert_array_equal(box.arrays["result/x"], np.clip(gradient, -1.5, 1.5))


@pytest.mark.parametrize(
    ("method", "arrays", "request_", "kind", "text"),
    [
        ("perturb", {"x/x": X, "y": Y}, {"model": "/no/model.keras"}, "FileNotFoundError", "/no"),
        ("perturb", {"x/x": X}, {}, "ValueError", "expected labels: an array y"),
        ("perturb", {"y": Y}, {}, "ValueError", "expected inputs"),
        ("perturb", {"x/x": X, "y": Y}, {"output": "probs"}, "ValueError", "got 'probs'"),
        ("perturb", {"x/x": X, "y": Y}, {"loss": {"class": "No"}}, "ValueError", "got 'No'"),
        ("perturb", {"x/x": X, "y": Y}, {"params": {"eps": 1}}, "TypeError", "'eps'"),
        ("oracle", {"x/x": X, "y": Y}, {"want": ["all"]}, "ValueError", "expected want out of"),
    ],
)
def test_bad_requests_are_told_and_the_worker_lives_on(
    nsl: Worker,
    model: ModelPath,
    method: str,
    arrays: dict[str, Array],
    request_: dict[str, Any],
    kind: str,
    text: str,
) -> None:
    with pytest.raises(WorkerError, match=text) as caught:
        nsl.call(method, arrays, **{"model": model("mlp"), **request_})
    assert caught.value.kind == kind
    assert nsl.call("versions").values["library"] == "nsl"


def test_cleverhans_refuses_what_it_refuses(
    cleverhans3: Worker, cleverhans_tf2: Worker, model: ModelPath
) -> None:
    two = {"x/left": np.zeros((1, 5)), "x/right": np.zeros((1, 4, 4, 1))}
    fgsm = {"attack": "fast_gradient_method", "eps": 0.1, "norm": 2}
    for worker, params in ((cleverhans3, {"attack": "MadryEtAl"}), (cleverhans_tf2, fgsm)):
        with pytest.raises(WorkerError, match="attacks models with one input"):
            worker.call("perturb", two, model=model("two_inputs"), params=params)
    with pytest.raises(WorkerError, match="expected an attack out of"):
        cleverhans3.call("perturb", {"x/x": X}, model=model("mlp"), params={"attack": "SPSA"})


def test_cleverhans_tf2_answers_in_float32(cleverhans_tf2: Worker, model: ModelPath) -> None:
    params = {"attack": "fast_gradient_method", "eps": 0.1, "norm": 2}
    request = {"model": model("mlp"), "params": params, "dtype": "float64"}
    reply = cleverhans_tf2.call("perturb", {"x/x": X}, **request).arrays
    assert reply["adv/x"].dtype == reply["gradient/x"].dtype == np.float32


def test_cleverhans_torch_runs_here_and_leaves_no_trace() -> None:
    path, modules = list(sys.path), set(sys.modules)
    original = cleverhans_torch()
    assert original.version == "4.0.0"
    assert sys.path == path
    assert not [n for n in set(sys.modules) - modules if n.split(".")[0] == "cleverhans"]
    weight = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    x = torch.tensor([[0.2, 0.4]])

    def linear(batch: torch.Tensor) -> torch.Tensor:
        return batch @ weight.T

    adversarial = original.fast_gradient_method(linear, x, 0.1, np.inf, y=torch.tensor([0]))
    # d loss / d x = (p1) * (w1 - w0) = p1 * (-0.5, 5)
    torch.testing.assert_close(adversarial.detach(), x + 0.1 * torch.tensor([[-1.0, 1.0]]))
