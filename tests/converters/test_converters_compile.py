"""Converted models under torch.compile and torch.export, and without a copy to the host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from no_waiting import NoWaiting
from processes import SUPPORT
from torch import Tensor

from torchfgsm.converters import ConvertedModel, load
from torchfgsm.originals.environment import EnvironmentUnavailable
from torchfgsm.originals.process import Worker

pytestmark = [
    pytest.mark.live,
    pytest.mark.keras_3_suffices,
    pytest.mark.usefixtures("one_thread"),
]
WORKER = SUPPORT / "converter_sequences_worker.py"
KINDS = ("attention", "images", "steps")


class Models:
    """One TensorFlow process; each model is built and converted once."""

    def __init__(self, environment: str, folder: Path) -> None:
        self.worker, self.folder = Worker(environment, WORKER), folder
        self.made: dict[str, tuple[ConvertedModel, int]] = {}

    def get(self, kind: str) -> tuple[ConvertedModel, int]:
        """Returns the module and how many floats Keras trains."""
        if kind not in self.made:
            path = self.folder / f"{kind}.keras"
            reply = self.worker.call("build", kind=kind, path=str(path), seed=0)
            self.made[kind] = load(path, worker=self.worker), reply.values["parameters"]
        return self.made[kind]


@pytest.fixture(scope="module", params=["keras-2", "keras-3"])
def models(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Models]:
    try:
        models = Models(request.param, tmp_path_factory.mktemp("models"))
    except EnvironmentUnavailable as error:
        pytest.skip(str(error))
    yield models
    models.worker.close()


def draw(model: ConvertedModel, count: int) -> Tensor:
    shape = [n or 1 for n in model.annotation.inputs[0].shape]
    random = torch.Generator().manual_seed(count)
    return torch.rand(count, *shape, generator=random, requires_grad=True)


def output_and_gradient(model: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    y = model(x)
    (gradient,) = torch.autograd.grad((y * y).sum(), x)
    return y, gradient


# The loops of Keras 2 are those of "steps" and "embedded" too.


@pytest.mark.parametrize("kind", [*KINDS, "recurrent", "embedded"])
def test_models_agree_with_keras_and_train_all_its_weights(models: Models, kind: str) -> None:
    model, trainable = models.get(kind)
    assert model.verification, model.verification.to_text()
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trainable


@pytest.mark.parametrize("kind", [*KINDS, "recurrent"])
def test_no_number_is_copied_to_the_host(models: Models, kind: str) -> None:
    model, _ = models.get(kind)
    x = draw(model, 2)
    with NoWaiting():
        output_and_gradient(model, x)


# torch 2.6's compiler does what its own autograd warns of.
@pytest.mark.filterwarnings("ignore:.* should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_one_graph_compiles_for_two_batch_sizes(models: Models, kind: str) -> None:
    if kind == "attention" and torch.__version__ < "2.7":
        pytest.skip("torch 2.6 compiles no maximum of sizes")
    model, _ = models.get(kind)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for count in (2, 5):
        x = draw(model, count)
        expected = output_and_gradient(model, x)
        torch.testing.assert_close(output_and_gradient(compiled, x), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_export_keeps_the_batch_free(models: Models, kind: str) -> None:
    model, _ = models.get(kind)
    batch = torch.export.Dim("batch", min=2, max=64)
    x, shapes = draw(model, 3).detach(), (({0: batch},),)
    program = torch.export.export(model, (x,), dynamic_shapes=shapes, strict=False)
    x = draw(model, 5).detach()
    torch.testing.assert_close(program.module()(x), model(x))


def test_modules_are_named_after_the_layers(models: Models) -> None:
    model, _ = models.get("images")
    names = [name for name, _ in model.named_modules()]
    for layer in ("conv", "norm"):
        assert any(f"/{layer}/" in f"{name}/" for name in names), names
