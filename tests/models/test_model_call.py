"""How a model is called: its input stays as it is, features by name, outputs in their own types."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy_models import batch, mlp

import torchfgsm
from torchfgsm import Recipe, Weighting, nsl
from torchfgsm.cleverhans import tf2, v3
from torchfgsm.cleverhans import torch as port
from torchfgsm.losses import CategoricalCrossentropy
from torchfgsm.models.calling import call_model, detached, takes_by_name

KEEP, EVAL = Recipe(step=0.1, model_mode="keep"), Recipe(step=0.1)
FREE = Recipe(step=0.1, iterations=2, epsilon=0.1, random_start="uniform")


class Shifted(nn.Module):
    """Scales its input, into which it writes where that is asked for."""

    def __init__(self, *, writes: bool) -> None:
        super().__init__()
        self.inner = mlp()
        self.writes = writes

    def forward(self, x: Tensor) -> Tensor:
        x = x.sub_(0.5).div_(0.25) if self.writes else (x - 0.5) / 0.25
        found: Tensor = self.inner(x)
        return found


def one_hot(y: Tensor) -> Tensor:
    return F.one_hot(y, 3).double()


def regularized(model: Any, x: Tensor, y: Tensor) -> Tensor:
    wrapped = nsl.AdversarialRegularization(
        model, loss=CategoricalCrossentropy(from_logits=True), adv_config=nsl.make_adv_reg_config()
    )
    found: Tensor = wrapped({"x": x, "label": one_hot(y)}).loss
    return found.detach()


def training(function: Callable[..., Any], recipe: Recipe) -> Callable[..., Any]:
    def run(model: Any, x: Tensor, y: Tensor) -> list[Tensor]:
        found = function(model, x, y, recipe=recipe, weighting=Weighting(1.0, 1.0))
        return [found.loss.detach(), found.adversarial]

    return run


CALLS: dict[str, Callable[[Any, Tensor, Tensor], Any]] = {
    "fgsm": lambda m, x, y: torchfgsm.fgsm(m, x, y, eps=0.1),
    "predicted": lambda m, x, y: torchfgsm.pgd(m, x, eps=0.1),
    "evaluate": lambda m, x, y: torch.tensor(
        torchfgsm.evaluate(m, [(x, y)], recipe=EVAL).adversarial_loss
    ),
    "loss": training(torchfgsm.adversarial_loss, KEEP),
    "step": training(torchfgsm.adversarial_step, KEEP),
    "loss, apart": training(torchfgsm.adversarial_loss, FREE),
    "step, apart": training(torchfgsm.adversarial_step, FREE),
    "nsl": regularized,
    "nsl function": lambda m, x, y: nsl.adversarial_loss(
        x, one_hot(y), m, CategoricalCrossentropy(from_logits=True)
    ).detach(),
    "cleverhans 3": lambda m, x, y: v3.FastGradientMethod(m).generate(x, eps=0.1),
    "cleverhans 3 loss": lambda m, x, y: v3.CrossEntropy(m).fprop(x, one_hot(y)).detach(),
    "cleverhans tf2": lambda m, x, y: tf2.fast_gradient_method(m, x, 0.1, np.inf),
    "cleverhans torch": lambda m, x, y: port.projected_gradient_descent(
        m, x, 0.1, 0.05, 3, np.inf, sanity_checks=False
    ),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("train", [False, True])
def test_a_model_that_writes_into_its_input_changes_nothing(name: str, train: bool) -> None:
    found = []
    for writes in (False, True):
        x, y = batch()
        before = x.clone()
        torch.manual_seed(3)
        result = CALLS[name](Shifted(writes=writes).train(train), x, y)
        found.append(result if isinstance(result, list) else [result])
        assert torch.equal(x, before)
    for plain, wrote in zip(*found, strict=True):
        assert torch.equal(plain, wrote)


def test_integers_beside_the_features_stay_too() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = mlp()

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            found: Tensor = self.inner(x * mask.neg_().add_(1))
            return found

    (x, y), mask = batch(), torch.zeros(6, 1, dtype=torch.int64)
    found = torchfgsm.fgsm(Masked(), {"x": x, "mask": mask}, y, eps=0.1)
    assert not mask.any()
    assert torch.equal(found["x"], torchfgsm.fgsm(mlp(), x, y, eps=0.1))


def test_an_error_of_the_models_own_is_not_hidden() -> None:
    def model(x: Tensor) -> Tensor:
        raise RuntimeError("of the model")

    with pytest.raises(RuntimeError, match="of the model"):
        torchfgsm.fgsm(model, *batch(), eps=0.1)


class Named(nn.Module):
    def forward(self, first: Tensor, second: Tensor, scale: float = 1.0) -> Tensor:
        return first - second * scale


class OfDict(nn.Module):
    def forward(self, features: dict[str, Tensor]) -> Tensor:
        return features["first"] - features["second"]


class Open(nn.Module):
    def forward(self, **features: Tensor) -> Tensor:
        return features["first"] - features["second"]


class Half(nn.Module):
    def forward(self, first: Tensor, **others: Tensor) -> Tensor:
        return first - others["second"]


class Wrapper(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


@pytest.mark.parametrize(
    ("model", "by_name"),
    [
        (Named(), True),
        (Open(), True),
        (Half(), True),
        (Wrapper(Named()), True),
        (nn.DataParallel(Named()), True),
        (OfDict(), False),
        (Wrapper(OfDict()), False),
    ],
)
def test_a_dicts_features_go_by_keyword_where_forward_names_them(
    model: nn.Module, by_name: bool
) -> None:
    features = {"second": torch.tensor([1.0]), "first": torch.tensor([3.0])}
    assert takes_by_name(model, features) is by_name
    assert float(call_model(model, features)) == 2.0


def test_missing_and_unknown_names_leave_the_dict_as_it_is() -> None:
    assert not takes_by_name(Named(), {"first": 1})
    assert not takes_by_name(Named(), {"first": 1, "second": 2, "third": 3})
    assert not takes_by_name(Named().forward, {"first": 1, "second": 2})  # no module


class Pair(NamedTuple):
    logits: Tensor
    rest: Tensor


class Output(collections.OrderedDict[str, Tensor]):
    """Of the kind of Hugging Face's `ModelOutput`: entries are attributes, too."""

    logits: Tensor

    def __setitem__(self, name: str, value: Tensor) -> None:
        super().__setitem__(name, value)
        super().__setattr__(name, value)


@dataclasses.dataclass(frozen=True)
class Record:
    logits: Tensor
    note: str = "kept"


def outputs(kind: str, logits: Tensor) -> Any:
    if kind == "dict":
        return {"logits": logits, "deep": [logits, (logits, None)]}
    if kind == "output":
        found = Output()
        found["logits"] = logits
        return found
    return Pair(logits, logits) if kind == "tuple" else Record(logits)


class Structured(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.inner = mlp()
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        return outputs(self.kind, self.inner(x))


def loss(output: Any, y: Tensor) -> Tensor:
    logits = output["logits"] if isinstance(output, dict) else output.logits
    return F.cross_entropy(logits, y, reduction="none")


def test_an_output_keeps_its_type_without_its_graph() -> None:
    w = torch.ones(2, requires_grad=True) * 2
    found = detached(outputs("output", w))
    assert type(found) is Output
    assert found.logits is found["logits"]
    assert not found.logits.requires_grad
    pair, record = detached(outputs("tuple", w)), detached(outputs("record", w))
    assert type(pair) is Pair
    assert type(record) is Record
    assert record.note == "kept"
    deep = detached(outputs("dict", w))
    assert type(deep["deep"][1]) is tuple
    tensors = (*pair, record.logits, deep["logits"], deep["deep"][0], deep["deep"][1][0])
    assert not any(tensor.requires_grad for tensor in tensors)
    assert w.requires_grad


@pytest.mark.parametrize("kind", ["dict", "output", "tuple", "record"])
def test_evaluate_explain_and_training_take_structures_with_a_loss(kind: str) -> None:
    (x, y), model = batch(), Structured(kind)
    found = torchfgsm.evaluate(model, [(x, y)], recipe=EVAL, loss_fn=loss)
    wanted = torchfgsm.evaluate(mlp(), [(x, y)], recipe=EVAL)
    assert found.clean_accuracy is None
    assert found.adversarial_accuracy is None
    assert "whose classes only loss_fn knows" in str(found)
    assert found.adversarial_loss == pytest.approx(wanted.adversarial_loss, rel=1e-12)
    trained = torchfgsm.adversarial_loss(
        model, x, y, recipe=EVAL, weighting=Weighting(1.0, 1.0), loss_fn=loss
    )
    assert type(trained.output) is type(outputs(kind, x))
    of_one = Recipe(step=0.1, labels="given")
    of_two = Recipe(step=0.1, labels="given", norm="l2")
    report = torchfgsm.explain(model, x, y, a=of_one, b=of_two, loss_fn=loss)
    plain = torchfgsm.explain(mlp(), x, y, a=of_one, b=of_two, loss_fn=F.cross_entropy)
    for name in plain.a.perturbations:
        assert np.allclose(report.a.perturbations[name], plain.a.perturbations[name], atol=1e-12)
    assert report.a.loss == pytest.approx(plain.a.loss, rel=1e-12)


def test_structures_without_a_loss_are_refused() -> None:
    with pytest.raises(TypeError, match="loss_fn"):
        torchfgsm.evaluate(Structured("dict"), [batch()], recipe=EVAL)
