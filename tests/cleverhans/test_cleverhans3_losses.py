"""`torchfgsm.cleverhans.v3`: training losses as CleverHans 3.1.0 has them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy_models import Counting, batch, mlp, one_hot

from torchfgsm.cleverhans import tf2, v3


def smooth_ce(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(x), labels)


def setting() -> tuple[nn.Sequential, Tensor, Tensor]:
    model, (x, y) = mlp(), batch()
    return model, x, one_hot(y)


def test_without_an_attack_it_is_the_mean_cross_entropy() -> None:
    model, x, y = setting()
    torch.testing.assert_close(v3.CrossEntropy(model).fprop(x, y), smooth_ce(model, x, y))
    smoothed = v3.CrossEntropy(model, smoothing=0.3).fprop(x, y)
    torch.testing.assert_close(smoothed, smooth_ce(model, x, 0.7 * y + 0.1))


@pytest.mark.parametrize("adv_coeff", [0.25, 0.5, 1.5])
def test_clean_and_adversarial_losses_are_weighted(adv_coeff: float) -> None:
    model, x, y = setting()
    attack = v3.FastGradientMethod(model)
    loss = v3.CrossEntropy(
        model, attack=attack, adv_coeff=adv_coeff, attack_params={"eps": 0.1}
    ).fprop(x, y)
    adversarial = attack.generate(x, eps=0.1)
    expected = (1 - adv_coeff) * smooth_ce(model, x, y)
    expected = expected + adv_coeff * smooth_ce(model, adversarial, y)
    torch.testing.assert_close(loss, expected)


def test_defaults_are_half_and_half_against_the_prediction_with_eps_0_3() -> None:
    model, x, y = setting()
    loss = v3.CrossEntropy(model, attack=v3.FastGradientMethod(model)).fprop(x, y)
    adversarial = x + 0.3 * torch.sign(v3.FastGradientMethod(model).generate(x) - x)
    torch.testing.assert_close(
        loss, (smooth_ce(model, x, y) + smooth_ce(model, adversarial, y)) / 2
    )


def test_pass_y_gives_the_attack_the_unsmoothed_labels() -> None:
    model, x, y = setting()
    seen: list[Tensor | None] = []

    class Spy(v3.FastGradientMethod):
        def parse_params(self, **kwargs: Any) -> bool:  # type: ignore[override]
            seen.append(kwargs.get("y"))
            return super().parse_params(**kwargs)

    for pass_y in (True, False):
        v3.CrossEntropy(model, smoothing=0.3, attack=Spy(model), pass_y=pass_y).fprop(x, y)
    assert seen[0] is not None
    assert torch.equal(seen[0], y)
    assert seen[1] is None


@pytest.mark.parametrize(
    ("kwargs", "modes"),
    [
        ({}, [False, True, True]),  # attack in eval mode, then clean, then adversarial
        ({"pass_y": True}, [False, True, True]),
        ({"adv_coeff": 1.0}, [False, True]),  # the clean forward pass is left out
        ({"adv_coeff": 0.0}, [False, True, True]),
    ],
)
def test_forward_passes_and_their_modes(kwargs: dict[str, Any], modes: list[bool]) -> None:
    inner, x, y = setting()
    model = Counting(inner)
    model.train()
    v3.CrossEntropy(model, attack=v3.FastGradientMethod(model), **kwargs).fprop(x, y)
    assert model.calls == modes


def test_keyword_arguments_reach_the_loss_passes_only() -> None:
    inner, x, y = setting()
    seen: list[dict[str, Any]] = []

    def model(z: Tensor, **kwargs: Any) -> Tensor:
        seen.append(kwargs)
        output: Tensor = inner(z)
        return output

    loss = v3.CrossEntropy(model, attack=v3.FastGradientMethod(model), training=True)
    loss.fprop(x, y, extra=1)
    assert seen == [{}, {"training": True, "extra": 1}, {"training": True, "extra": 1}]


# What flows through the perturbation

ITERATED = {"eps_iter": 0.05, "nb_iter": 3, "eps": 0.2}


def gradients(model: nn.Module, loss: Tensor) -> Tensor:
    found = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([grad.flatten() for grad in found])


def constant_gradients(model: nn.Module, x: Tensor, y: Tensor, adversarial: Tensor) -> Tensor:
    """Parameter gradients with the perturbation as a constant."""
    loss = (smooth_ce(model, x, y) + smooth_ce(model, adversarial, y)) / 2
    return gradients(model, loss)


@pytest.mark.parametrize("order", [math.inf, 1, 2])
@pytest.mark.parametrize("pass_y", [True, False])
def test_parameter_gradients_have_a_second_order_term_under_l2_alone(
    order: float, pass_y: bool
) -> None:
    model, x, y = setting()
    attack = v3.FastGradientMethod(model)
    params: dict[str, Any] = {"ord": order, "eps": 0.2}
    loss = v3.CrossEntropy(model, attack=attack, pass_y=pass_y, attack_params=params)
    found = gradients(model, loss.fprop(x, y))
    if pass_y:
        params["y"] = y
    constant = constant_gradients(model, x, y, attack.generate(x, **params))
    difference = float((found - constant).norm() / constant.norm())
    assert (difference > 1e-3) if order == 2 else (difference < 1e-12)


@pytest.mark.parametrize(
    ("kind", "params"),
    [(v3.FastGradientMethod, {"eps": 0.2}), (v3.BasicIterativeMethod, ITERATED)],
)
def test_second_order_term_agrees_with_finite_differences(
    kind: Any, params: dict[str, Any]
) -> None:
    model, x, y = setting()
    loss = v3.CrossEntropy(
        model, attack=kind(model), pass_y=True, attack_params={"ord": 2, **params}
    )
    found = gradients(model, loss.fprop(x, y))
    flat = nn.utils.parameters_to_vector(model.parameters()).detach()
    step = 1e-6
    for index in range(0, len(flat), 7):
        values = []
        for sign in (1, -1):
            moved = flat.clone()
            moved[index] += sign * step
            nn.utils.vector_to_parameters(moved, model.parameters())
            values.append(loss.fprop(x, y).item())
        nn.utils.vector_to_parameters(flat, model.parameters())
        slope = (values[0] - values[1]) / (2 * step)
        assert float(found[index]) == pytest.approx(slope, abs=1e-7)


def test_loss_is_differentiable_in_x_and_quiet_where_grad_is_off() -> None:
    model, x, y = setting()
    loss = v3.CrossEntropy(model, attack=v3.FastGradientMethod(model))
    leaf = x.clone().requires_grad_()
    value = loss.fprop(leaf, y)
    (grad,) = torch.autograd.grad(value, leaf)
    assert float(grad.abs().sum()) > 0
    with torch.no_grad():
        quiet = loss.fprop(x, y)
    with torch.inference_mode():
        silent = loss.fprop(x * 1, y * 1)
    assert not quiet.requires_grad
    assert quiet.item() == silent.item() == value.item()


def test_another_attack_object_counts_as_constant() -> None:
    model, x, y = setting()

    class Foreign:
        def generate(self, x: Tensor, eps: float) -> Tensor:
            leaf = x if x.requires_grad else x.clone().requires_grad_()
            return tf2.fast_gradient_method(model, leaf, eps, 2)

    result = Foreign().generate(x, eps=0.2)
    assert result.requires_grad  # it could flow, and must not
    loss = v3.CrossEntropy(model, attack=Foreign(), attack_params={"eps": 0.2}).fprop(x, y)
    constant = constant_gradients(model, x, y, result.detach())
    torch.testing.assert_close(gradients(model, loss), constant)


# The other losses


def test_weight_decay_is_half_the_square_of_matrices() -> None:
    model, x, y = setting()
    expected = sum(w.square().sum() / 2 for w in model.parameters() if w.dim() > 1)
    torch.testing.assert_close(v3.WeightDecay(model).fprop(x, y), expected)


def test_weighted_sum_of_terms() -> None:
    model, x, y = setting()
    cross_entropy, decay = v3.CrossEntropy(model), v3.WeightDecay(model)
    total = v3.WeightedSum(model, [(1.0, cross_entropy), (torch.tensor(0.01), decay)])
    expected = cross_entropy.fprop(x, y) + 0.01 * decay.fprop(x, y)
    torch.testing.assert_close(total.fprop(x, y), expected)
    inner = v3.WeightedSum(model, [(2.0, total)])
    torch.testing.assert_close(inner.fprop(x, y), 2 * expected)
