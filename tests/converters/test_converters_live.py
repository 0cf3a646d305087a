"""Conversions judged by TensorFlow itself, in both Keras versions."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from planted_faults import Fault, ScaledGradient, ScaledInFloat32
from processes import SUPPORT
from torch import nn

from torchfgsm.converters import ConversionError, ConvertedModel, export_onnx, load
from torchfgsm.converters.exporting import exporter
from torchfgsm.converters.formats import needs
from torchfgsm.converters.torch_side.building import build
from torchfgsm.converters.verification.measuring import Question, measure, named
from torchfgsm.converters.verification.scaled import compare_scaled
from torchfgsm.converters.verification.verifying import verify_with_tensorflow
from torchfgsm.judging.comparison import compare
from torchfgsm.originals.environment import EnvironmentUnavailable
from torchfgsm.originals.process import Worker

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("one_thread")]
ZOO = SUPPORT / "converter_zoo_worker.py"
CONVERTED = (
    "activations",
    "batch_norms",
    "dict_ports",
    "dropout",
    "equal_biases",
    "frozen",
    "hidden_softmax",
    "nested",
    "pools",
    "preprocessing",
    "shared",
    "two_inputs",
    "two_outputs",
)


class Zoo:
    """One TensorFlow process that builds, converts and trains models; each model once."""

    def __init__(self, environment: str, folder: Path) -> None:
        self.keras = 2 if environment == "keras-2" else 3
        self.worker = Worker(environment, ZOO)
        self.folder = folder
        self.models: dict[str, ConvertedModel] = {}
        self.parameters: dict[str, int] = {}

    def build(self, kind: str, suffix: str = ".keras", **params: Any) -> Path:
        path = self.folder / f"{kind}{suffix}"
        if not path.exists():
            seed = None if kind == "equal_biases" else 0
            reply = self.worker.call("build", kind=kind, path=str(path), seed=seed, **params)
            self.parameters[kind] = reply.values["parameters"]
        return path

    def load(self, kind: str) -> ConvertedModel:
        """A copy of the converted model, so that a test may change it."""
        if kind not in self.models:
            self.models[kind] = load(self.build(kind), worker=self.worker)
        return copy.deepcopy(self.models[kind])


@pytest.fixture(scope="module", params=["keras-2", "keras-3"])
def zoo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zoo]:
    try:
        zoo = Zoo(request.param, tmp_path_factory.mktemp("models"))
    except EnvironmentUnavailable as error:
        pytest.skip(str(error))
    yield zoo
    zoo.worker.close()


@pytest.mark.parametrize("kind", CONVERTED)
def test_outputs_and_input_gradients_agree(zoo: Zoo, kind: str) -> None:
    model = zoo.load(kind)
    assert model.verification, model.verification.to_text()
    # Which gradients float64 decides, for rounding in float32, differs between processors.
    compared = {row.name.replace(", in float64", "") for row in model.verification.rows}
    for batch in ("random x5", "random x1", "kinks"):
        for name in model.input_names:
            assert f"{batch}: gradient {name}" in compared
    assert not model.training


@pytest.mark.keras_3_suffices
def test_gradients_agree_on_the_kinks(zoo: Zoo) -> None:
    """At the exact points where derivatives jump, as 0.0 and 1.0 pixels are."""
    points = np.array([-3, -2.5, -1, -0.5, 0, 0.5, 1, 2.5, 3, 6, 7])[:, None]
    model = load(zoo.build("kinks"), worker=zoo.worker, data=points)
    assert any(row.name == "data: gradient x" for row in model.verification.rows)


@pytest.mark.parametrize("kind", CONVERTED)
def test_every_trainable_keras_weight_is_one_parameter(zoo: Zoo, kind: str) -> None:
    model = zoo.load(kind)
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trainable) == zoo.parameters[kind]


def test_names_keep_the_models_own_order(zoo: Zoo) -> None:
    assert zoo.load("two_inputs").input_names == ("zeta", "alpha")
    model = zoo.load("dict_ports")
    assert (model.input_names, model.output_names) == (("zeta", "alpha"), ("second", "first"))
    zeta, alpha = torch.rand(2, 3, 4)
    outputs = model({"alpha": alpha, "zeta": zeta})
    assert list(outputs) == ["second", "first"]
    assert torch.equal(outputs["first"], model(zeta, alpha)["first"])
    assert not torch.equal(outputs["first"], model(alpha, zeta)["first"])


def test_heads_are_cut_or_the_reason_is_given(zoo: Zoo) -> None:
    assert "cut Softmax" in zoo.load("pools").logits
    assert "cut Sigmoid" in zoo.load("nested").logits
    assert "last operation is Add" in zoo.load("dropout").logits
    hidden = zoo.load("hidden_softmax")
    assert "before Reshape" in hidden.logits
    assert hidden.found_heads[0].axis == -2
    model = zoo.load("two_outputs")
    logits, plain = model(torch.rand(2, 5))
    assert torch.equal(logits, plain)


@pytest.mark.keras_3_suffices
def test_keep_head_gives_the_original_output(zoo: Zoo) -> None:
    kept = load(zoo.build("pools"), worker=zoo.worker, keep_head=True)
    x = torch.rand(3, 7, 9, 2)
    assert torch.equal(kept(x), zoo.load("pools")(x).softmax(dim=-1))
    assert "put back" in kept.logits


@pytest.mark.parametrize("kind", ["batch_norms", "frozen", "shared"])
def test_one_training_step_equals_keras(zoo: Zoo, kind: str) -> None:
    model = zoo.load(kind).train()
    random = np.random.default_rng(3)
    shape = (6, 6, 2) if kind == "shared" else (8, 8, 3)
    x, y = random.random((16, *shape), dtype=np.float32), random.integers(3, size=16)
    arrays: dict[str, Any] = {"input/image": x, "y": y}
    reply = zoo.worker.call("descend", arrays, path=str(zoo.build(kind)), rate=0.1)

    loss = F.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y))
    weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(loss, list(weights.values()))
    with torch.no_grad():
        for weight, gradient in zip(weights.values(), gradients, strict=True):
            weight.sub_(0.1 * gradient)
    ours = model.keras_arrays(dict(model.state_dict()))

    assert loss.item() == pytest.approx(reply.values["loss"], rel=1e-6)
    theirs = {n[7:]: a for n, a in reply.arrays.items() if n.startswith("weight/")}
    scales = {n: np.abs(a).max() for n, a in theirs.items()}
    result = compare(
        {n: a / scales[n] for n, a in theirs.items()},
        {n: a / scales[n] for n, a in ours.items()},
        atol=1e-6,
    )
    assert result, result.to_text()
    # Not a comparison of one thing with itself: the step moved the weights and the statistics.
    before = zoo.load(kind).keras_arrays(dict(zoo.load(kind).state_dict()))
    assert not compare(before, ours, rtol=1e-3)


def test_parameter_gradients_carry_keras_names_and_layouts(zoo: Zoo) -> None:
    model = zoo.load("shared").train()
    random = np.random.default_rng(4)
    x, y = random.random((4, 6, 6, 2), dtype=np.float32), random.integers(3, size=4)
    arrays: dict[str, Any] = {"input/image": x, "y": y}
    reply = zoo.worker.call("descend", arrays, path=str(zoo.build("shared")), rate=0.0)
    theirs = {n[9:]: a for n, a in reply.arrays.items() if n.startswith("gradient/")}

    loss = F.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y))
    weights = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss, list(weights.values()))
    ours = model.keras_arrays(dict(zip(weights, gradients, strict=True)))
    result = compare(theirs, ours, rtol=1e-5, atol=1e-6)
    assert result, result.to_text()


def test_equal_weights_are_not_confused(zoo: Zoo) -> None:
    """All biases are zero and of one shape: each must still be its own parameter and name."""
    model = zoo.load("equal_biases")
    names = [n for n, p in model.named_parameters() if not p.any()]
    assert len(names) == 4
    arrays = model.keras_arrays({n: torch.full((4,), float(i)) for i, n in enumerate(names)})
    assert [name.split("/")[-2] for name in arrays] == ["d0", "d1", "d2", "head"]
    x = torch.rand(2, 4)
    before = model(x)
    with torch.no_grad():
        model.get_parameter(names[3]).add_(1.0)
    assert torch.allclose(model(x), before + 1.0)


def test_dropout_lives_in_training_alone(zoo: Zoo) -> None:
    model = zoo.load("dropout")
    x = torch.rand(1000, 6)
    dropout = next(m for m in model.modules() if isinstance(m, nn.Dropout))
    assert dropout.p == pytest.approx(0.4)
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


def test_frozen_layers_stay_frozen(zoo: Zoo) -> None:
    model = zoo.load("frozen").train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    model(torch.rand(8, 8, 8, 3))
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    assert changed == {
        f"weights.norm{i}_moving_{what}" for i in (2, 3) for what in ("mean", "variance")
    }
    frozen = [n for n, p in model.named_parameters() if not p.requires_grad]
    assert {name.split("_")[0] for name in frozen} == {
        "weights.conv1", "weights.norm1", "weights.norm4",
    }  # fmt: skip


def test_noise_acts_in_training_alone(zoo: Zoo) -> None:
    model = zoo.load("noise")
    x = torch.rand(1000, 6)
    assert torch.equal(model(x), model(x))
    assert not torch.equal(model.train()(x), model(x))


def test_python_code_in_a_file_is_not_run(zoo: Zoo, tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    with pytest.raises(ConversionError, match=r"layer 'twice' holds Python code \(a Lambda\)"):
        export_onnx(zoo.build("lambda"), out, worker=zoo.worker)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.keras_3_suffices
@pytest.mark.parametrize("kind", ["batch_norms", "dict_ports", "shared"])
def test_an_exported_file_gives_the_same_model(zoo: Zoo, kind: str, tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    export_onnx(zoo.build(kind), out, worker=zoo.worker)
    model, again = zoo.load(kind), load(out)
    assert again.verification, again.verification.to_text()
    assert again.annotation == model.annotation
    assert again.logits == model.logits
    state = model.state_dict()
    assert all(torch.equal(t, state[n]) for n, t in again.state_dict().items())
    assert [p.requires_grad for p in again.parameters()] == [
        p.requires_grad for p in model.parameters()
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_h5_and_saved_model_give_the_same_values(zoo: Zoo) -> None:
    x = torch.rand(3, 8, 8, 3)
    expected = zoo.load("batch_norms")(x)
    h5 = load(zoo.build("batch_norms", ".h5"), worker=zoo.worker)
    assert torch.equal(h5(x), expected)
    export = {} if zoo.keras == 2 else {"export": True}
    folder = zoo.build("batch_norms", "_saved_model", **export)
    saved = load(folder, worker=zoo.worker)
    assert saved.verification
    if zoo.keras == 2:
        assert torch.equal(saved(x), expected)
        assert torch.isfinite(saved.train()(x)).all()
    else:
        torch.testing.assert_close(saved(x), expected)
        with pytest.raises(ConversionError, match="graph is the one for inference"):
            saved.train()


@pytest.mark.keras_3_suffices
def test_the_graph_of_a_saved_model_is_judged_in_float64(zoo: Zoo) -> None:
    """Its batch normalizations too, which TensorFlow's fused operation has in float32 alone."""
    export = {} if zoo.keras == 2 else {"export": True}
    folder = zoo.build("batch_norms", "_graph", **export)
    (folder / "keras_metadata.pb").unlink(missing_ok=True)
    assert needs(folder)[1] == "saved_model"
    with exporter(folder, zoo.worker) as source:
        graph, annotation = source.export()
        model = build(graph, annotation)
        sound = verify_with_tensorflow(model, source, None, graph)
        assert sound, sound.to_text()
        assert "in float32 alone" not in sound.title
        images = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
        question = Question.about(model, {model.input_names[0]: images})
        objectives = [objective.to_dict() for objective in question.objectives]
        reply = source.call(
            "evaluate", question.arrays(), objectives=objectives, precision="float64"
        )
    truth = named(model, reply.arrays)
    ours = measure(copy.deepcopy(model).double(), question.in_precision("float64"))
    assert all(array.dtype == np.float64 for array in truth.values())
    assert compare_scaled(truth, ours, 1e-7, "")


def test_the_users_data_are_compared_too(zoo: Zoo) -> None:
    path = zoo.build("two_inputs")
    data = {"zeta": np.ones((3, 4)), "alpha": np.zeros((3, 4)), "label": np.zeros(3)}
    model = load(path, worker=zoo.worker, data=data)
    assert any(row.name.startswith("data: gradient zeta") for row in model.verification.rows)
    for wrong, message in (
        ({"zeta": np.ones((3, 4))}, "zeta.*alpha"),
        ({"zeta": np.ones((3, 5)), "alpha": np.ones((3, 4))}, r"\(N, 4\), N > 0, got \(3, 5\)"),
        (np.ones((3, 4)), "dict of"),
    ):
        with pytest.raises(ConversionError, match=message):
            load(path, worker=zoo.worker, data=wrong)


@pytest.mark.keras_3_suffices
def test_planted_faults_are_caught(zoo: Zoo) -> None:
    path = zoo.build("batch_norms")
    with exporter(path, zoo.worker) as source:
        source.export()

        def check(model: ConvertedModel) -> Any:
            return verify_with_tensorflow(model, source, None)

        assert check(zoo.load("batch_norms"))
        faults = {"swap": lambda x: x.flip(-1), "gradient": ScaledGradient.apply}
        for fault in faults.values():
            model = zoo.load("batch_norms")
            model.network = Fault(model.network, fault)
            assert not check(model)
        model = zoo.load("batch_norms")
        model.network = Fault(model.network, ScaledInFloat32.apply)
        assert not check(model)
        model = zoo.load("batch_norms")
        with torch.no_grad():
            next(model.parameters()).view(-1)[0] *= 1.001
        assert not check(model)
        assert all("random" in row.name or "kinks" in row.name for row in check(model).failures)


@pytest.mark.keras_3_suffices
def test_the_module_behaves_like_a_module(zoo: Zoo) -> None:
    model = zoo.load("batch_norms")
    x = torch.rand(2, 8, 8, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(x).sum(), x)
    assert gradient.shape == x.shape
    assert all(p.grad is None for p in model.parameters())
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again(x), model(x))
    assert model.double()(x.double()).dtype == torch.float64
    with pytest.raises(ValueError, match=r"expected 1 inputs \['image'\], got 2"):
        model(x, x)
    with pytest.raises(ValueError, match="expected the inputs"):
        model({"picture": x})
