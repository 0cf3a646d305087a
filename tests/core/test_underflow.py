"""Attacks on float16 models move what float32 moves, in the same direction."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy_models import noise

from torchfgsm import Recipe, Weighting, adversarial_step, attack, evaluate, fgsm
from torchfgsm.cleverhans.torch import fast_gradient_method


def confident() -> tuple[nn.Linear, Tensor, Tensor]:
    """A model that is sure of its labels, by margins of up to 14, with small weights.

    Float32 has all of the gradients, of 1e-8 and more. Float16 rounds most of them to 0.
    """
    model, x = nn.Linear(6, 3), noise(200, 6) * 128
    with torch.no_grad():
        model.weight.copy_(noise(3, 6, seed=1) * 0.02)
        model.bias.zero_()
        best, second = model(x).topk(2, dim=1).values.T
        x = x[(best - second > 3) & (best - second < 14)][:40]
        return model, x, model(x).argmax(1)


def truth(model: nn.Linear, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of the cross-entropy in float64; p - 1 of the true class from the others' p."""
    output = model.weight.detach().double() @ x.double().T
    log_p = output.T.log_softmax(1)
    others = log_p.clone().scatter_(1, y[:, None], -torch.inf)
    slopes = others.exp()
    slopes = slopes.scatter(1, y[:, None], -slopes.sum(1, keepdim=True))
    return slopes @ model.weight.detach().double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_confident_example_moves_as_in_float64(dtype: torch.dtype) -> None:
    model, x, y = confident()
    gradient = truth(model, x, y)
    assert float((gradient.abs() < 3e-8).double().mean()) > 0.02  # float16 rounds these to 0
    with torch.autocast("cpu", torch.float16, enabled=dtype is torch.float16):
        moved = fgsm(model, x, y, eps=0.1) - x
        lengths = (fgsm(model, x, y, eps=0.1, norm="l2") - x).norm(dim=1)
    right = (moved.sign() == gradient.sign()).double().mean()
    assert float(right) > 0.97  # products of float16 round
    assert float((moved != 0).double().mean()) > 0.99
    torch.testing.assert_close(lengths, torch.full((len(x),), 0.1), rtol=1e-3, atol=0)


def test_a_half_model_moves_what_float32_moves() -> None:
    model, x, y = confident()
    expected = (fgsm(model, x, y, eps=4.0) - x).sign()
    found = fgsm(model.half(), x.half(), y, eps=4.0)
    assert found.dtype is torch.float16
    assert float(((found - x.half()).sign() == expected).double().mean()) > 0.97


def test_evaluation_under_autocast_finds_the_accuracy_of_float32() -> None:
    model, x, y = confident()
    recipe = Recipe(step=100.0)
    expected = evaluate(model, [(x, y)], recipe=recipe).adversarial_accuracy
    with torch.autocast("cpu", torch.float16):
        found = evaluate(model, [(x, y)], recipe=recipe).adversarial_accuracy
    assert found == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("guard", [0.0, 1e-12, 1.0])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_guard_sees_the_gradient_of_its_own_size(guard: float, reduction: Any) -> None:
    model, x, y = confident()
    recipe = Recipe(step=0.1, norm="l2", guard=guard, reduction=reduction)
    expected = attack(model, x, y, recipe=recipe)
    with torch.autocast("cpu", torch.float16):
        found = attack(model, x, y, recipe=recipe)
    torch.testing.assert_close(found - x, expected - x, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("scaled", [False, True])
def test_the_own_pass_of_a_training_step_is_scaled(scaled: bool) -> None:
    model, x, y = confident()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**15) if scaled else None
    # In training mode and attacked in eval mode: the attack has a pass of its own.
    with torch.autocast("cpu", torch.float16):
        step = adversarial_step(
            nn.Sequential(model, nn.Dropout(0.5)).train(), x, y, scaler=scaler,
            recipe=Recipe.nsl(0.1, "infinity"), weighting=Weighting.from_nsl(0.2),
            loss_fn=lambda output, y: F.cross_entropy(output.float(), y, reduction="none"),
        )  # fmt: skip
    assert float((step.adversarial != x).double().mean()) > 0.99


def test_outputs_in_float32_are_scaled_where_the_middle_is_autocast() -> None:
    model, x, y = confident()
    widened = nn.Sequential(model, Widen())
    with torch.autocast("cpu", torch.float16):
        moved = fgsm(widened, x, y, eps=0.1) != x
    assert float(moved.double().mean()) > 0.99


class Widen(nn.Module):
    """Gives its input in float32, as many models do with logits."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float()


class Summed(nn.Module):
    """Gives one number for all examples."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum()


@pytest.mark.parametrize("end", [nn.Flatten(0), Summed(), nn.Unflatten(1, (3, 1))])
def test_outputs_of_every_shape(end: nn.Module) -> None:
    model, x, y = confident()
    with torch.autocast("cpu", torch.float16):
        found = fgsm(
            nn.Sequential(model, end), x, y, eps=0.1, loss_fn=lambda output, y: torch.sum(output)
        )
    expected = x + 0.1 * model.weight.sum(0).sign()
    assert torch.equal(found, expected)


def test_examples_that_see_each_other_share_one_factor() -> None:
    """In training mode BatchNorm mixes the examples: a factor for each would turn the gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).train()
    x = noise(16, 6)
    y = model(x).argmax(1)
    with torch.no_grad():
        list(model.parameters())[-2].mul_(4)
    recipe = Recipe(step=0.1, norm="l2", model_mode="keep")
    expected = attack(model, x, y, recipe=recipe) - x
    with torch.autocast("cpu", torch.float16):
        found = attack(model, x, y, recipe=recipe) - x
    cosines = F.cosine_similarity(expected, found)
    assert float(cosines.min()) > 0.98


def test_cleverhans_port_rounds_as_the_original() -> None:
    model, x, y = confident()
    with torch.autocast("cpu", torch.float16):
        found = fast_gradient_method(model, x, 0.1, float("inf"), y=y)
    still = (found == x).all(1)
    assert bool(still.any())  # its loss is below what float16 holds
