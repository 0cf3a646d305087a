"""Verification against TensorFlow: what it compares, and that each planted fault is caught."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import SUPPORT
from torch import Tensor, nn

pytest.importorskip("onnx2torch")

from planted_faults import Fault, ScaledGradient

from torchfgsm.converters import ConversionError, ConvertedModel
from torchfgsm.converters.exporting import Exporter
from torchfgsm.converters.onnx_side.graph import constants, set_constant
from torchfgsm.converters.ops.noise import is_noise
from torchfgsm.converters.ops.normalization import KerasBatchNorm
from torchfgsm.converters.torch_side.building import build
from torchfgsm.converters.verification.training_check import verify_training
from torchfgsm.converters.verification.verifying import verify_with_tensorflow
from torchfgsm.judging.comparison import Comparison
from torchfgsm.originals.environment import EnvironmentUnavailable
from torchfgsm.originals.process import Worker

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("one_thread")]
WORKER = SUPPORT / "verification_worker.py"


class Case:
    """A model that the worker has exported last, and its module."""

    def __init__(self, worker: Worker, folder: Path, kind: str, precision: str) -> None:
        path = folder / f"{kind}.keras"
        if not path.exists():
            worker.call("build", kind=kind, path=str(path))
        self.worker = worker
        self.exporter = Exporter(worker, path, "keras")
        dtype = getattr(torch, precision)
        self.exporter.options = replace(self.exporter.options, dtype=dtype)
        self.graph, annotation = self.exporter.export()
        self.model = build(self.graph, annotation)

    def verify(self, model: ConvertedModel | None = None, graph: Any = None) -> Comparison:
        return verify_with_tensorflow(model or self.model, self.exporter, None, graph or self.graph)


@pytest.fixture(scope="module", params=["keras-2", "keras-3"])
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Case]]:
    try:
        worker = Worker(request.param, WORKER)
    except EnvironmentUnavailable as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("models")

    # One alone: the worker judges the model that it has exported last.
    @functools.lru_cache(maxsize=1)
    def export(kind: str, precision: str = "float32") -> Case:
        return Case(worker, folder, kind, precision)

    yield export
    worker.close()


def _failed(comparison: Comparison) -> set[str]:
    """Returns the kinds of arrays that failed: output, logits, gradient."""
    return {row.name.split(": ", 1)[1].split()[0] for row in comparison.failures}


@pytest.mark.keras_3_suffices
def test_faults_of_inference_are_caught(case: Callable[..., Case]) -> None:
    image = case("image")
    sound = image.verify()
    assert sound, sound.to_text()
    names = {row.name for row in sound.rows}
    for batch in ("random x5", "random x1", "kinks"):
        assert f"{batch}: logits {image.model.output_names[0]}" in names
        assert any(name.startswith(f"{batch}: gradient") for name in names) or any(
            name.startswith(f"{batch}, in float64: gradient") for name in names
        )
        assert f"{batch}, ONNX file: output {image.model.output_names[0]}" in names

    def broken(**fault: Any) -> set[str]:
        model = copy.deepcopy(image.model)
        model.network = Fault(model.network, **fault)
        return _failed(image.verify(model))

    assert broken(behind=lambda y: (y[0].softmax(-1),)) >= {"output", "logits"}
    model = copy.deepcopy(image.model)
    with torch.no_grad():
        model.get_parameter(f"weights.{_found(model, 'head_bias')}").zero_()
    assert _failed(image.verify(model)) >= {"output", "logits"}


@pytest.mark.keras_3_suffices
def test_a_file_that_computes_something_else_is_caught(case: Callable[..., Case]) -> None:
    image = case("image")
    half = copy.deepcopy(image.graph)
    weight = next(w.tensor for w in image.model.annotation.weights if "head" in w.name)
    array = constants(half)[weight]
    kept = [t for t in half.graph.initializer if t.name != weight]
    del half.graph.initializer[:]
    half.graph.initializer.extend(kept)
    set_constant(half, weight, array * np.float32(1.001))
    failures = image.verify(graph=half).failures
    assert failures
    assert all("ONNX file" in row.name and row.tolerance_needed > 1e-5 for row in failures)


def test_a_training_step_equals_keras(case: Callable[..., Case]) -> None:
    image = case("image")
    before = image.worker.call("weights").arrays
    state = {name: t.clone() for name, t in image.model.state_dict().items()}
    result = verify_training(image.model, image.exporter)
    assert result, result.to_text()
    names = {row.name.replace("in float64: ", "") for row in result.rows}
    for weight in image.model.annotation.weights:
        assert {f"step {n}: {weight.name}" for n in (1, 3)} <= names
        assert (f"gradient: {weight.name}" in names) == weight.trainable
    assert {"step 1: loss", "step 3: loss", "noise: drop"} <= names
    # Neither side keeps anything of it.
    after = image.worker.call("weights").arrays
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert all(torch.equal(t, state[name]) for name, t in image.model.state_dict().items())
    assert not image.model.training


@pytest.mark.keras_3_suffices
def test_faults_of_training_are_caught(case: Callable[..., Case]) -> None:
    image = case("image")

    def failed(model: ConvertedModel) -> set[str]:
        rows = verify_training(model, image.exporter).failures
        return {row.name.removeprefix("in float64: ").removesuffix(":0") for row in rows}

    model = copy.deepcopy(image.model)
    norm = _only(model, KerasBatchNorm)
    norm.unbiased = not norm.unbiased
    assert {name.split("/")[-1] for name in failed(model)} == {"moving_variance"}

    model = copy.deepcopy(image.model)
    _only(model, KerasBatchNorm).momentum = 0.99
    moved = {"moving_mean", "moving_variance"}
    assert {name.split("/")[-1] for name in failed(model)} == moved

    model = copy.deepcopy(image.model)
    drop: Any = next(m for m in model.modules() if is_noise(m))
    drop.p = 0.0
    assert failed(model) == {"noise: drop"}

    model = copy.deepcopy(image.model)
    _untie(model, _found(model, "shared_kernel"))
    assert any("gradient: shared" in name for name in failed(model))

    model = copy.deepcopy(image.model)
    model.annotation = replace(model.annotation, penalties=())
    assert {"step 1: loss"} < failed(model)
    assert image.verify(model)


def _only(model: nn.Module, kind: type) -> Any:
    (found,) = (module for module in model.modules() if isinstance(module, kind))
    return found


def _found(model: ConvertedModel, part: str) -> str:
    return next(name for name, _ in model.weights.named_parameters() if name.startswith(part))


def _untie(model: ConvertedModel, name: str) -> None:
    """Lets one of the two uses of a weight take a copy that does not train."""
    graph: Any = model.network
    weights = [weight.tensor for weight in model.annotation.weights]
    place = len(model.input_names) + weights.index(model._names[name].tensor)
    node = [n for n in graph.graph.nodes if n.op == "placeholder"][place]
    user = next(iter(node.users))
    with graph.graph.inserting_before(user):
        copied = graph.graph.call_method("detach", (node,))
    user.replace_input_with(node, copied)
    graph.recompile()


@pytest.mark.keras_3_suffices
def test_heads_behind_a_transpose_and_outputs_without_an_input(case: Callable[..., Case]) -> None:
    axes = case("axes")
    result = axes.verify()
    assert result, result.to_text()
    names = {row.name for row in result.rows}
    assert any("gradient unused" in name for name in names)
    model = copy.deepcopy(axes.model)
    model.network = _SecondInputLost(model.network)
    assert not axes.verify(model)


class _SecondInputLost(nn.Module):
    """Two inputs, the second one lost."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, x: Tensor, unused: Tensor, *weights: Tensor) -> Any:
        return self.graph(x, unused.detach(), *weights)


def test_whole_numbers_have_no_gradient(case: Callable[..., Case]) -> None:
    indices = case("indices")
    result = indices.verify()
    assert result, result.to_text()
    assert "no input gradient exists" in result.title
    assert not any("gradient" in row.name for row in result.rows)
    trained = verify_training(indices.model, indices.exporter)
    assert trained, trained.to_text()
    assert any(row.name.startswith("gradient: table") for row in trained.rows)


@pytest.mark.keras_3_suffices
def test_without_float64_the_verdict_says_so(case: Callable[..., Case]) -> None:
    volume = case("volume")
    result = volume.verify()
    assert result, result.to_text()
    assert "in float32 alone" in result.title
    model = copy.deepcopy(volume.model)
    model.network = Fault(model.network, before=ScaledGradient.apply)
    assert _failed(volume.verify(model)) == {"gradient"}
    trained = verify_training(volume.model, volume.exporter)
    assert trained, trained.to_text()
    assert "in float32 alone" in trained.title


@pytest.mark.keras_3_suffices
def test_a_model_in_float64_is_compared_in_float64(case: Callable[..., Case]) -> None:
    image = case("image", "float64")
    result = image.verify()
    assert result, result.to_text()
    assert all(row.atol <= 1e-12 for row in result.rows if "ONNX file" not in row.name)
    trained = verify_training(image.model, image.exporter)
    assert trained, trained.to_text()
    model = copy.deepcopy(image.model)
    with torch.no_grad():
        model.get_parameter(f"weights.{_found(model, 'shared_kernel')}").mul_(1 + 1e-9)
    assert not image.verify(model)


def test_training_that_was_not_converted_is_refused(case: Callable[..., Case]) -> None:
    indices = case("indices")
    sound = indices.model.annotation
    for annotation, message in (
        (replace(sound, only_inference=("GaussianNoise 'noise'",)), "got GaussianNoise 'noise'"),
        (replace(sound, lost=("the constraint of 'dense'",)), "lost were: the constraint of 'de"),
    ):
        model = copy.deepcopy(indices.model)
        model.annotation = annotation
        with pytest.raises(ConversionError, match=message):
            verify_training(model, indices.exporter)
    graph_alone = replace(indices.exporter, format="saved_model")
    with pytest.raises(ConversionError, match=r"give the \.keras file"):
        verify_training(indices.model, graph_alone)
