"""A length of one axis is one number per example; no batch size changes what a shape means."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from toy_models import FEATURES, batch, mlp, one_hot

from torchfgsm import Recipe, adversarial_loss, attack, fgsm, nsl, perturb, pgd
from torchfgsm.cleverhans import tf2, v3
from torchfgsm.core.weighting import Weighting

MODEL = mlp()
COLUMN = torch.tensor([0.125, 0.0, 0.0, 0.0], dtype=torch.float64)
ONE = Recipe(step=0.125)
BALL = Recipe(step=0.125, epsilon=0.125)


def _trained(x: Tensor, y: Tensor, step: Tensor) -> Tensor:
    weighting = Weighting(clean=1.0, adversarial=1.0)
    losses = adversarial_loss(MODEL, x, y, recipe=ONE, weighting=weighting, step=step)
    found: Tensor = losses.adversarial
    return found


# The name by which each call has the length, and the call.
CALLS: dict[str, tuple[str, Callable[[Tensor, Tensor, Tensor], Tensor]]] = {
    "fgsm": ("eps", lambda x, y, length: fgsm(MODEL, x, y, eps=length)),
    "pgd": (
        "eps",
        lambda x, y, length: pgd(MODEL, x, y, eps=length, iterations=1, random_start=False),
    ),
    "pgd, step": (
        "step_size",
        lambda x, y, length: pgd(
            MODEL, x, y, eps=1.0, step_size=length, iterations=1, random_start=False
        ),
    ),
    "perturb": ("eps", lambda x, y, length: perturb(x, torch.ones_like(x), eps=length)),
    "attack, step": ("step", lambda x, y, length: attack(MODEL, x, y, recipe=ONE, step=length)),
    "attack, radius": (
        "epsilon",
        lambda x, y, length: attack(MODEL, x, y, recipe=BALL, epsilon=length),
    ),
    "training": ("step", _trained),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("rows", [1, 3, FEATURES, 5])
def test_one_axis_is_that_of_the_examples(name: str, rows: int) -> None:
    called, call = CALLS[name]
    x, y = batch(size=rows)
    first = torch.zeros(rows, dtype=torch.float64)
    first[0] = 0.125
    moved = (call(x, y, first) - x).abs()
    assert torch.allclose(moved, first[:, None].expand(rows, FEATURES), atol=1e-12)
    # One number per column says so in its shape, whatever the batch.
    for shaped in (COLUMN[None], COLUMN.expand(rows, FEATURES)):
        moved = (call(x, y, shaped) - x).abs()
        assert torch.allclose(moved, COLUMN.expand(rows, FEATURES), atol=1e-12)
    if rows != FEATURES:
        says = rf"{called} with one axis .*\({rows},\), got \(4,\) .*give {called}\[None\]"
        with pytest.raises(ValueError, match=says):
            call(x, y, COLUMN)


@pytest.mark.parametrize("name", CALLS)
def test_one_number_is_a_number_in_any_shape(name: str) -> None:
    x, y = batch(size=3)
    expected = CALLS[name][1](x, y, torch.tensor(0.125, dtype=torch.float64))
    assert ((expected - x).abs() > 0.12).all()
    for shape in ((1,), (1, 1)):
        given = torch.full(shape, 0.125, dtype=torch.float64)
        assert torch.equal(CALLS[name][1](x, y, given), expected)


def test_inputs_of_one_number_each() -> None:
    x = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    length = torch.tensor([0.0, 0.5, 0.25], dtype=torch.float64)
    assert torch.equal(perturb(x, -torch.ones(3).double(), eps=length), x - length)
    with pytest.raises(ValueError, match=r"expected shape \(3,\), got \(2,\)") as caught:
        perturb(x, torch.ones(3).double(), eps=length[:2])
    assert "[None]" not in str(caught.value)


def test_features_of_several_shapes_share_one_number_per_example() -> None:
    x = {"a": torch.zeros(2, 3), "b": torch.zeros(2, 2, 2)}
    grad = {name: torch.ones_like(value) for name, value in x.items()}
    moved = perturb(x, grad, eps=torch.tensor([0.0, 0.5]))
    for value in moved.values():
        assert (value[0] == 0).all()
        assert (value[1] == 0.5).all()


@pytest.mark.parametrize("rows", [3, FEATURES])
def test_bounds_and_masks_broadcast_along_the_last_axis_whatever_the_batch(rows: int) -> None:
    x, _ = batch(size=rows)
    moved = perturb(x, torch.ones_like(x), eps=1.0, clip_max=1.0 + COLUMN, mask=COLUMN * 8)
    expected = x.clone()
    expected[:, 0] = torch.clamp(x[:, 0] + 1.0, max=1.125)
    assert torch.equal(moved, expected)


def _nsl(x: Tensor, y: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    config = nsl.configs.AdvNeighborConfig(adv_step_size=COLUMN, adv_grad_norm="infinity")
    loss = torch.nn.functional.cross_entropy(MODEL(x), y)
    found: Tensor = nsl.lib.gen_adv_neighbor(x, loss, config)[0]
    return found.detach()


DIALECTS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "nsl": _nsl,
    "cleverhans3": lambda x, y: v3.FastGradientMethod(MODEL).generate(x, eps=COLUMN, y=one_hot(y)),
    "cleverhans-tf2": lambda x, y: tf2.fast_gradient_method(MODEL, x, COLUMN, math.inf, y=y),
}


@pytest.mark.parametrize("library", DIALECTS)
@pytest.mark.parametrize("rows", [3, FEATURES])
def test_dialects_multiply_as_their_originals_along_the_last_axis(library: str, rows: int) -> None:
    """`length * direction` there: TensorFlow broadcasts, and knows no length per example."""
    x, y = batch(size=rows)
    moved = (DIALECTS[library](x, y) - x).abs()
    assert torch.allclose(moved, COLUMN.expand(rows, FEATURES), atol=1e-12)
