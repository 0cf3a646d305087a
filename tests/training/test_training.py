"""Adversarial training: the loss and the step agree with each other and with both dialects."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from no_waiting import NoWaiting
from torch import Tensor, nn

from torchfgsm import Recipe, Weighting, adversarial_loss, adversarial_step
from torchfgsm.cleverhans import v3
from torchfgsm.losses import SparseCategoricalCrossentropy
from torchfgsm.nsl import AdvNeighborConfig, AdvRegConfig
from torchfgsm.nsl.keras import AdversarialRegularization

NSL = dataclasses.replace(Recipe.nsl(), model_mode="keep_and_update")
KEPT = dataclasses.replace(Recipe.cleverhans3(eps=0.1), model_mode="keep")
WEIGHTING = Weighting.from_nsl(0.3)


def network(dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(dropout),
        nn.Flatten(), nn.Linear(4 * 4 * 4, 3),
    ).double()  # fmt: skip


def batch(count: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(count, 2, 6, 6, dtype=torch.float64, generator=generator)
    return x, torch.randint(3, (count,), generator=generator)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


def both(dropout: float = 0.0, **arguments: Any) -> tuple[Any, Any]:
    """Gradients, statistics and results of the loss and of the step, from one start."""
    found = []
    for step in (False, True):
        model, (x, y) = network(dropout), batch()
        torch.manual_seed(2)
        if step:
            result = adversarial_step(model, x, y, **arguments)
        else:
            result = adversarial_loss(model, x, y, **arguments)
            torch.autograd.backward(result.loss)
        found.append((gradients(model), dict(model.named_buffers()), result))
    return found[0], found[1]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("norm", ["l2", "infinity", "l1"])
def test_the_step_has_the_gradients_of_the_loss_bit_by_bit(norm: str, dropout: float) -> None:
    recipe = dataclasses.replace(
        Recipe.nsl(0.1, norm, clip_value_min=0.0), model_mode="keep_and_update"
    )
    loss, step = both(dropout, recipe=recipe, weighting=WEIGHTING)
    assert same(loss[0], step[0])
    assert same(loss[1], step[1])
    assert torch.equal(loss[2].adversarial, step[2].adversarial)
    assert loss[2].loss == step[2].loss
    assert not step[2].loss.requires_grad
    assert loss[1]["1.num_batches_tracked"] == 2


CASES: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    "NSL": ({"recipe": NSL}, (2, 2)),
    "CleverHans in the model's mode": ({"recipe": KEPT}, (2, 2)),
    "own prediction": ({"recipe": KEPT, "pass_y": False}, (2, 3)),
    "another loss of the attack": (
        {"recipe": KEPT, "loss_fn": nn.CrossEntropyLoss(label_smoothing=0.1),
         "attack_loss_fn": nn.CrossEntropyLoss(reduction="none")}, (2, 3)),
    "weights that the attack does not see": (
        {"recipe": KEPT, "sample_weight": torch.tensor([1.0, 2, 0, 1, 1])}, (2, 3)),
    "weights that it sees": (
        {"recipe": NSL, "sample_weight": torch.tensor([1.0, 2, 0.5, 1, 1])}, (2, 2)),
    "attack in eval mode": ({"recipe": Recipe.nsl(0.1)}, (3, 3)),
    "three steps": (
        {"recipe": dataclasses.replace(NSL, iterations=3, epsilon=0.2, step=0.1)}, (4, 4)),
    "random start": (
        {"recipe": dataclasses.replace(KEPT, random_start="uniform", epsilon=0.1)}, (3, 3)),
    "targets": (
        {"recipe": dataclasses.replace(KEPT, targeted=True),
         "target": torch.tensor([0, 0, 1, 2, 2])}, (2, 3)),
    "adversarial only": ({"recipe": NSL, "weighting": Weighting(0.0, 1.0)}, (2, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_step_makes_the_passes_that_it_needs(name: str) -> None:
    arguments, (forwards, backwards) = CASES[name]
    loss, step = both(**{"weighting": WEIGHTING, **arguments})
    assert (step[2].forwards, step[2].backwards) == (forwards, backwards)
    assert torch.allclose(loss[2].adversarial, step[2].adversarial, rtol=0, atol=1e-14)
    for key in loss[0]:
        assert torch.allclose(loss[0][key], step[0][key], rtol=1e-12, atol=1e-14), key
    assert same(loss[1], step[1])


@pytest.mark.parametrize("name", CASES)
def test_the_passes_are_those_of_the_model(name: str) -> None:
    arguments, expected = CASES[name]
    model, (x, y) = network(), batch()
    passes: list[str] = []
    model.register_forward_hook(lambda *_: passes.append("forward"))
    model[5].register_full_backward_hook(lambda *_: passes.append("backward"))
    adversarial_step(model, x, y, **{"weighting": WEIGHTING, **arguments})
    assert (passes.count("forward"), passes.count("backward")) == expected


@pytest.mark.parametrize("norm", ["infinity", "l2", "l1"])
def test_nsl_has_the_same_loss_and_gradients(norm: str) -> None:
    x, y = batch()
    weights = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0], dtype=torch.float64)
    model = network()
    regularised = AdversarialRegularization(
        model,
        sample_weight_key="weight",
        adv_config=AdvRegConfig(0.3, AdvNeighborConfig(adv_step_size=0.1, adv_grad_norm=norm)),
        loss=SparseCategoricalCrossentropy(from_logits=True),
    )
    losses = regularised({"x": x, "label": y, "weight": weights})
    losses.loss.backward()
    ours = network()
    recipe = dataclasses.replace(Recipe.nsl(0.1, norm), model_mode="keep_and_update")
    result = adversarial_step(ours, x, y, recipe=recipe, weighting=WEIGHTING, sample_weight=weights)
    assert torch.allclose(result.loss, losses.loss, rtol=1e-13)
    expected, actual = gradients(model), gradients(ours)
    assert all(torch.allclose(actual[n], expected[n], rtol=1e-12, atol=1e-15) for n in expected)
    assert same(dict(model.named_buffers()), dict(ours.named_buffers()))


@pytest.mark.parametrize("order", [torch.inf, 2])
@pytest.mark.parametrize("pass_y", [True, False])
def test_cleverhans_has_the_same_loss_and_gradients(order: float, pass_y: bool) -> None:
    """Under L2 with the second-order term, which the step refuses."""
    x, y = batch()
    rows = F.one_hot(y, 3).double()
    model, ours = network(), network()
    attack = v3.FastGradientMethod(model)
    parameters = {"eps": 0.1, "ord": order, "clip_min": 0.0, "clip_max": 1.0}
    loss = v3.CrossEntropy(model, attack=attack, pass_y=pass_y, attack_params=parameters,
                           adv_coeff=0.4)  # fmt: skip
    torch.autograd.backward(loss.fprop(x, rows))
    recipe = Recipe.cleverhans3(eps=0.1, ord=order, clip_min=0.0, clip_max=1.0)
    weighting = Weighting.from_cleverhans(0.4)
    arguments: dict[str, Any] = {"recipe": recipe, "weighting": weighting, "pass_y": pass_y}
    if order == 2:
        with pytest.raises(ValueError, match=r"through_perturbation.*adversarial_loss"):
            adversarial_step(ours, x, rows, **arguments)
        assert not gradients(ours)
        torch.autograd.backward(adversarial_loss(ours, x, rows, **arguments).loss)
    else:
        adversarial_step(ours, x, rows, **arguments)
    expected, actual = gradients(model), gradients(ours)
    assert all(torch.allclose(actual[n], expected[n], rtol=1e-10, atol=1e-14) for n in expected)
    if order == 2:
        first = dataclasses.replace(recipe, through_perturbation=False)
        plain = network()
        adversarial_step(plain, x, rows, **{**arguments, "recipe": first})
        assert not torch.allclose(gradients(plain)["0.weight"], expected["0.weight"], rtol=1e-4)


def test_the_memory_format_is_kept() -> None:
    """No copy in another layout: the model sees channels_last in both passes."""
    x, y = batch()
    x = x.to(memory_format=torch.channels_last)
    model = network().to(memory_format=torch.channels_last)
    seen: list[bool] = []
    model.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    for recipe in (NSL, Recipe.cleverhans3(eps=0.1)):
        result = adversarial_step(model, x, y, recipe=recipe, weighting=WEIGHTING)
        assert result.adversarial.is_contiguous(memory_format=torch.channels_last)
        assert not result.adversarial.is_contiguous()
    assert seen == [True] * 5


@pytest.mark.parametrize("name", [name for name in CASES if "random" not in name])
def test_without_looking_at_values_the_step_never_waits_for_the_device(name: str) -> None:
    """What a CUDA graph of a whole step needs."""
    arguments, _ = CASES[name]
    model, (x, y) = network(), batch()
    with NoWaiting():
        adversarial_step(model, x, y, validate=False, **{"weighting": WEIGHTING, **arguments})
    assert gradients(model)
