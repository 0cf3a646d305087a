"""The two training losses of an explanation are those of the dialects, choice by choice."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from toy_models import batch, mlp, noisy, one_hot

from torchfgsm import Weighting, adversarial_loss, nsl
from torchfgsm.cleverhans import v3
from torchfgsm.explanation.explaining import explain
from torchfgsm.explanation.result import TrainingEffect, TrainingExplanation
from torchfgsm.libraries.configuration import Configuration
from torchfgsm.losses import CategoricalCrossentropy

pytestmark = pytest.mark.usefixtures("one_thread")

Run = tuple[float, Tensor]


def run(loss: Tensor, model: nn.Module) -> Run:
    found = torch.autograd.grad(loss, list(model.parameters()))
    return float(loss.detach()), torch.cat([g.flatten().double() for g in found])


def nsl_run(model: nn.Module, x: Tensor, y: Tensor, weight: Tensor | None, **options: Any) -> Run:
    """NSL's own training step: `nsl.AdversarialRegularization`."""
    smoothing = options.pop("label_smoothing", 0.0)
    copied = copy.deepcopy(model)
    keras = nsl.AdversarialRegularization(
        copied,
        label_keys=["label"],
        sample_weight_key="weight",
        adv_config=nsl.make_adv_reg_config(**options),
        loss=CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing),
    )
    torch.manual_seed(0)
    given = {"x": x, "label": one_hot(y, x.dtype)}
    if weight is not None:
        given["weight"] = weight[:, None]
    return run(keras(given).loss, copied)


def cleverhans_run(model: nn.Module, x: Tensor, y: Tensor, **options: Any) -> Run:
    """CleverHans 3's own training loss: `v3.CrossEntropy`."""
    choices = {n: options.pop(n) for n in ("smoothing", "pass_y", "adv_coeff") if n in options}
    copied = copy.deepcopy(model)
    loss = v3.CrossEntropy(
        copied, attack=v3.FastGradientMethod(copied), attack_params=options, **choices
    )
    torch.manual_seed(0)
    return run(loss.fprop(x, one_hot(y, x.dtype)), copied)


def explained(model: nn.Module, dtype: torch.dtype, a: Any, b: Any, **options: Any) -> Any:
    x, y = batch(dtype)
    found = explain(model, x, y, a=a, b=b, epsilons=(), **options).training
    assert isinstance(found, TrainingExplanation)
    return found


def effect(explanation: TrainingExplanation, name: str) -> TrainingEffect:
    (found,) = (effect for effect in explanation.effects if effect.name == name)
    return found


def away(new: Tensor, old: Tensor) -> float:
    return float((new - old).norm() / old.norm())


SIDES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "defaults": ({}, {}),
    "label smoothing": ({"label_smoothing": 0.2}, {"smoothing": 0.1, "ord": 2}),
    "labels given": ({"adv_step_size": 0.1}, {"pass_y": True, "ord": 2, "smoothing": 0.3}),
    "weights": ({"multiplier": 2.0, "adv_grad_norm": "infinity"}, {"adv_coeff": 0.9, "eps": 0.1}),
    "adversarial only": ({}, {"adv_coeff": 1.0}),
}


@pytest.mark.parametrize("kind", ["mlp", "noisy", "noisy in eval mode"])
@pytest.mark.parametrize("name", SIDES)
def test_sides_are_the_dialects_training_losses(name: str, kind: str) -> None:
    dtype = torch.float64 if kind == "mlp" else torch.float32
    model = mlp(dtype) if kind == "mlp" else noisy(dtype)
    if kind == "noisy in eval mode":
        model.eval()
    options = SIDES[name]
    a, b = Configuration.of("nsl", options[0]), Configuration.of("cleverhans3", options[1])
    found = explained(model, dtype, a, b)
    if kind == "noisy in eval mode":
        model.train()
    x, y = batch(dtype)
    sides = (
        nsl_run(model, x, y, None, **options[0]),
        cleverhans_run(model, x, y, **options[1]),
    )
    exact = 1e-12 if kind == "mlp" else 1e-5
    assert found.losses == pytest.approx([side[0] for side in sides], rel=exact)
    assert found.gradient == pytest.approx(away(sides[1][1], sides[0][1]), rel=exact * 10)
    # The best factor by which b's gradient comes near a's.
    new, old = sides[1][1], sides[0][1]
    cosine = float(new @ old / (new.norm() * old.norm()))
    assert found.scaled == pytest.approx((1 - cosine**2) ** 0.5, rel=exact * 10)


def test_sample_weights_count_on_the_side_of_nsl() -> None:
    weight = torch.tensor([0.0, 1.0, 2.0, 0.0, 1.0, 3.0], dtype=torch.float64)
    model, (x, y) = mlp(), batch()
    a, b = Configuration.of("nsl", {"adv_step_size": 0.1}), Configuration.of("cleverhans3")
    found = explained(model, torch.float64, a, b, sample_weight=weight)
    weighted, plain = (nsl_run(model, x, y, w, adv_step_size=0.1) for w in (weight, None))
    assert found.losses[0] == pytest.approx(weighted[0], rel=1e-12)
    weights = effect(found, "sample_weight")
    assert weights.values == ("given", None)
    assert weights.loss_from_a == pytest.approx(plain[0] - weighted[0])
    assert weights.gradient_from_a == pytest.approx(away(plain[1], weighted[1]))
    reverse = explained(model, torch.float64, b, a, sample_weight=weight)
    assert effect(reverse, "sample_weight").loss_from_b == weights.loss_from_a


def test_weights_of_one_ratio_are_a_common_factor() -> None:
    # multiplier = adv_coeff / (1 - adv_coeff): what a learning rate can undo.
    a = Configuration.of("nsl", {"multiplier": 1.5, "adv_grad_norm": "infinity",
                                 "adv_step_size": 0.1, "reduction": "sum"})  # fmt: skip
    b = Configuration.of("cleverhans3", {"adv_coeff": 0.6, "eps": 0.1, "pass_y": True})
    found = explained(mlp(), torch.float64, a, b)
    weighting = effect(found, "weighting")
    assert weighting.values == ("1 : 1.5", "0.4 : 0.6")
    assert weighting.gradient_from_a == pytest.approx(0.6, rel=1e-12)
    assert weighting.gradient_from_b == pytest.approx(1.5, rel=1e-12)
    assert weighting.scaled_from_a == pytest.approx(0, abs=1e-12)
    assert found.scaled == pytest.approx(0, abs=1e-12)
    assert found.losses[1] == pytest.approx(0.4 * found.losses[0])
    assert found.remainder == pytest.approx(0, abs=1e-12)


def test_the_second_order_term_alone() -> None:
    options = {"eps": 0.3, "ord": 2, "pass_y": True}
    a = Configuration.of("cleverhans3", {**options, "through_perturbation": False})
    b = Configuration.of("cleverhans3", options)
    found = explained(mlp(), torch.float64, a, b)
    model, (x, y) = mlp(), batch()
    runs = [
        run(
            adversarial_loss(model, x, y, recipe=side.recipe, weighting=Weighting(0.5, 0.5)).loss,
            model,
        )
        for side in (a, b)
    ]
    (only,) = found.effects
    assert only.name == "through_perturbation"
    assert only.loss_from_a == 0
    assert only.gradient_from_a == pytest.approx(away(runs[1][1], runs[0][1]), rel=1e-12)
    assert only.gradient_from_a > 1e-3
    assert found.remainder == 0


def test_the_attack_of_cleverhans_takes_labels_without_smoothing() -> None:
    both: dict[str, Any] = {"adv_grad_norm": "l2", "adv_step_size": 0.5, "label_smoothing": 0.4}
    a = Configuration.of("nsl", both)
    b = Configuration.of("cleverhans3", {"ord": 2, "eps": 0.5, "smoothing": 0.4, "pass_y": True})
    found = explained(mlp(), torch.float64, a, b)
    attack = effect(found, "smoothed_attack")
    assert attack.values == (True, False)
    assert attack.gradient_from_a > 1e-4
    plain = dataclasses.replace(a, label_smoothing=0.0)
    names = {e.name for e in explained(mlp(), torch.float64, plain, "cleverhans3").effects}
    assert names >= {"weighting", "labels", "norm", "step", "through_perturbation", "model_mode"}
    assert "smoothed_attack" not in names


def test_batchnorm_shows_in_the_mode_of_the_attack() -> None:
    a = Configuration.of("nsl", {"adv_step_size": 0.5})
    b = Configuration.of("nsl", {"adv_step_size": 0.5, "model_mode": "eval"})
    found = explained(noisy(), torch.float32, a, b)
    (mode,) = found.effects
    assert mode.values == ("keep_and_update", "eval")
    assert mode.gradient_from_a > 1e-3


def test_labels_smoothed_for_dense_and_binary_outputs() -> None:
    x, y = batch()
    # The mean over the positions, as of the default loss without smoothing.
    dense = nn.Sequential(nn.Linear(4, 6), nn.Unflatten(1, (3, 2))).double()
    labels = torch.stack([y, (y + 1) % 3], dim=1)
    binary = nn.Linear(4, 1).double()
    yes = (y > 0).double()
    smooth = 0.8 * yes + 0.1
    expected = (
        (dense, labels, functional.cross_entropy(dense(x), labels, label_smoothing=0.2)),
        (binary, yes, functional.binary_cross_entropy_with_logits(binary(x)[:, 0], smooth)),
    )
    side = Configuration.of("nsl", {"multiplier": 0.0, "label_smoothing": 0.2})
    for model, given, loss in expected:
        found = explain(model, x, given, a=side, b="nsl", epsilons=()).training
        assert found is not None
        assert found.losses[0] == pytest.approx(float(loss.detach()))


def test_models_without_training_have_no_explanation_of_it() -> None:
    model, (x, y) = mlp(), batch()
    assert explain(lambda x: model(x), x, y, a="nsl", b="nsl", epsilons=()).training is None
    model.requires_grad_(False)
    assert explain(model, x, y, a="nsl", b="nsl", epsilons=()).training is None
    tf2 = Configuration.of("cleverhans-tf2", {"eps": 0.1, "norm": 2})
    model.requires_grad_(True)
    assert explain(model, x, y, a="nsl", b=tf2, epsilons=()).training is None


def test_a_model_that_knows_inference_alone_is_explained_in_eval_mode() -> None:
    class Inference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = mlp()
            self.inner.eval()
            self.training = False

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.inner(x)
            return output

        def train(self, mode: bool = True) -> Inference:
            if mode:
                raise ValueError("inference only")
            return super().train(mode)

    found = explained(Inference(), torch.float64, "nsl", "cleverhans3")
    same = explained(mlp().eval(), torch.float64, "nsl", "cleverhans3")
    assert found.losses == same.losses


def test_the_batch_is_the_first() -> None:
    model, (x, y) = mlp(), batch(size=7)
    found = explain(model, x, y, a="nsl", b="cleverhans3", batch_size=3, epsilons=()).training
    first = explain(model, x[:3], y[:3], a="nsl", b="cleverhans3", epsilons=()).training
    assert found == first
