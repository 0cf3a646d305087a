"""What adversarial training refuses: wrong arguments, and models that cannot be trained so."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_training import gradients
from test_training_precision import KEPT, NSL, WEIGHTING, batch, network
from torch import Tensor, nn

from torchfgsm import Recipe, adversarial_loss, adversarial_step

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no labels": ({"y": None}, r"training needs labels: y is None"),
    "a weight too few": (
        {"sample_weight": torch.ones(7)}, r"expected sample_weight of shape \(8,\).*got \(7,\)"),
    "weights of a square": (
        {"sample_weight": torch.ones(8, 8)}, r"expected sample_weight.*got \(8, 8\)"),
    "weights and a scalar loss": (
        {"sample_weight": torch.ones(8), "loss_fn": nn.CrossEntropyLoss()}, r"reduction='none'"),
    "a target too many": (
        {"target": torch.zeros(8, dtype=torch.long)}, r"target= was given.*targeted=False"),
    "no target": (
        {"recipe": dataclasses.replace(KEPT, targeted=True)}, r"targeted recipe needs target="),
}  # fmt: skip


@pytest.mark.parametrize("train", [adversarial_step, adversarial_loss])
@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_named_and_leave_gradients_alone(name: str, train: Any) -> None:
    changed, message = WRONG[name]
    model = network()
    x, y = batch()
    with pytest.raises(ValueError, match=message):
        train(model, x, **{"y": y, "recipe": NSL, "weighting": WEIGHTING, **changed})
    assert not gradients(model)


class Detached(nn.Module):
    """A model whose output does not hang on its input."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.net(x.detach())
        return output


@pytest.mark.parametrize("train", [adversarial_step, adversarial_loss])
def test_a_model_detached_from_its_input_is_refused(train: Any) -> None:
    model = Detached()
    with pytest.raises(ValueError, match="no path leads from x to the loss"):
        train(model, *batch(), recipe=KEPT, weighting=WEIGHTING)
    assert not gradients(model)


def test_a_detached_model_is_refused_with_a_loss_of_the_attacks_own_too() -> None:
    model = Detached()
    with pytest.raises(ValueError, match="no path leads from x to the loss"):
        adversarial_step(
            model, *batch(), recipe=KEPT, weighting=WEIGHTING, attack_loss_fn=F.cross_entropy
        )
    assert not gradients(model)


class HalfDetached(nn.Module):
    """A model of two features that forgets the second."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        output: Tensor = self.net(x["seen"] + x["lost"].detach())
        return output


def test_the_feature_without_a_path_is_named_before_gradients_are_added() -> None:
    model = HalfDetached()
    x, y = batch()
    with pytest.raises(ValueError, match=r"no path leads from features \['lost'\]"):
        adversarial_step(model, {"seen": x, "lost": x}, y, recipe=KEPT, weighting=WEIGHTING)
    assert not gradients(model)


@pytest.mark.parametrize("recipe", [NSL, Recipe.nsl(0.1)], ids=["shared", "eval"])
def test_a_model_that_is_frozen_as_a_whole_is_refused(recipe: Recipe) -> None:
    model = network().requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter that requires grad"):
        adversarial_step(model, *batch(), recipe=recipe, weighting=WEIGHTING)
