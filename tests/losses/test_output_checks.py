"""Warnings, once per model, of outputs that are not what the loss takes them for."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy_models import batch, mlp

import torchfgsm
from torchfgsm import OutputForm, Recipe, Weighting, evaluate, fgsm, losses, nsl
from torchfgsm.losses import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    MeanSquaredError,
    SparseCategoricalCrossentropy,
)

FGSM = Recipe(step=0.1)
PROBABILITIES = Recipe(step=0.1, model_output="probabilities")


class Own(nn.Module):
    """A model whose last operation is a function, not a layer."""

    def __init__(self, outputs: int, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = nn.Linear(4, outputs).double()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layer(x))


def decisions(model: Own, x: Tensor) -> Tensor:
    found: Tensor = model.layer(x)
    return (found[:, 0] > 0).long()


def binary() -> tuple[Own, Tensor, Tensor]:
    model = Own(1, torch.sigmoid)
    x = torch.randn(40, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return model, x, decisions(model, x)


def test_a_sigmoid_is_warned_of_once_and_its_labels_are_the_models_own_decisions() -> None:
    model, x, y = binary()
    assert 5 < int(y.sum()) < 35
    with pytest.warns(UserWarning, match=r"looks like probabilities.*a sigmoid makes it") as caught:
        report = evaluate(model, [(x, y)], recipe=FGSM)
    assert len(caught) == 1
    assert report.clean_accuracy == 1.0
    assert torch.equal(fgsm(model, x, eps=0.1), fgsm(model, x, y, eps=0.1))  # says nothing more
    with pytest.warns(UserWarning, match="a sigmoid makes it"):
        fgsm(binary()[0], x, y, eps=0.1)  # another model


def test_a_loss_of_ones_own_on_probabilities_says_nothing_and_scores_its_decisions() -> None:
    model, x, y = binary()

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy(output.flatten(), target.double(), reduction="none")

    report = evaluate(model, [(x, y)], recipe=FGSM, loss_fn=loss)
    assert report.clean_accuracy == 1.0
    frozen = binary()[0].requires_grad_(False)
    assert evaluate(frozen, [(x, y)], recipe=FGSM, loss_fn=loss).clean_accuracy == 1.0


@pytest.mark.parametrize("values", [True, False])
def test_what_the_operation_tells_needs_no_look_at_values(values: bool) -> None:
    several, x = Own(3, torch.sigmoid), batch()[0]
    with pytest.warns(UserWarning, match="a sigmoid makes it"):
        fgsm(several, x, batch()[1], eps=0.1, validate=values)


@pytest.mark.parametrize("step", [torchfgsm.adversarial_step, torchfgsm.adversarial_loss])
def test_training_that_shares_its_clean_pass_warns_too(step: Any) -> None:
    model, x, y = binary()
    model.eval()
    with pytest.warns(UserWarning, match="a sigmoid makes it"):
        step(model, x, y, recipe=FGSM, weighting=Weighting(1.0, 1.0))


def test_numbers_in_0_1_are_named_where_many_lie_on_both_sides_of_one_half() -> None:
    # Operations that hide what they are, as compiled models do.
    model, (x, y) = Own(1, lambda z: 0.5 + 0.5 * (z / 2).tanh()), binary()[1:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fgsm(model, x[:10], y[:10], eps=0.1)  # so few may be logits by chance
        fgsm(Own(1, lambda z: 0.3 + 0 * z + 1e-3 * z.tanh()), x, y, eps=0.1)
    with pytest.warns(UserWarning, match=r"all 40 numbers lie in \[0, 1\]"):
        fgsm(model, x, y, eps=0.1)


def test_logits_are_no_probabilities_for_the_default_loss_and_warned_of_once() -> None:
    x, y = batch()
    model = mlp()
    with pytest.warns(UserWarning, match="should be probabilities and is none: it runs") as caught:
        found = torchfgsm.attack(model, x, y, recipe=PROBABILITIES)
    assert len(caught) == 1
    torchfgsm.attack(model, x, y, recipe=PROBABILITIES)
    z = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(losses.probability_cross_entropy(model(z), y).sum(), z)
    assert torch.equal(found, x + 0.1 * gradient.sign())
    unsure = Own(3, lambda z: z.sigmoid() * 0.2)
    with pytest.warns(UserWarning, match="rows whose sum is .* away from 1"):
        torchfgsm.attack(unsure, x, y, recipe=PROBABILITIES)
    softmax = Own(3, lambda z: z.softmax(1))
    torchfgsm.attack(softmax, x, y, recipe=PROBABILITIES)


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_stated_logits_are_never_taken_for_probabilities(head: Any) -> None:
    x, y = batch()
    model = mlp()
    stated = mlp()
    stated.output_form = OutputForm("logits", head, -1)  # type: ignore[assignment]
    labels = y if head == "softmax" else (model(x) > 0.1).double()
    loss = losses.cross_entropy if head == "softmax" else F.binary_cross_entropy_with_logits
    expected = fgsm(model, x, labels, eps=0.1, loss_fn=loss)
    for recipe in (FGSM, PROBABILITIES):
        assert torch.equal(torchfgsm.attack(stated, x, labels, recipe=recipe), expected)


def test_stated_probabilities_are_decided_at_one_half() -> None:
    x, y = binary()[1:]
    hidden = Own(1, lambda z: 0.5 + 0.5 * (z / 2).tanh())
    hidden.output_form = OutputForm("probabilities", "sigmoid", -1)  # type: ignore[assignment]
    report = evaluate(hidden, [(x, y)], recipe=PROBABILITIES)
    assert report.clean_accuracy == 1.0
    with pytest.warns(UserWarning, match="says so in its output_form"):
        fgsm(hidden, x, y, eps=0.1)


def test_nothing_is_left_on_the_model() -> None:
    model, x, y = binary()
    before = dict(vars(model))
    with pytest.warns(UserWarning, match="a sigmoid makes it"):
        fgsm(model, x, y, eps=0.1)
    assert vars(model) == before


# Keras' losses

CUT = OutputForm("logits", "softmax", -1)
LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 3.0]], dtype=torch.float64)
ROWS = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("loss", "y"),
    [
        (SparseCategoricalCrossentropy(), LABELS),
        (CategoricalCrossentropy(), ROWS),
        (BinaryCrossentropy(), ROWS),
    ],
    ids=["sparse", "categorical", "binary"],
)
def test_a_loss_of_probabilities_warns_once_of_logits_and_keeps_the_value(
    loss: Any, y: Tensor
) -> None:
    with pytest.warns(UserWarning, match=re.escape("from_logits=True")) as caught:
        first = loss(y, LOGITS)
    assert len(caught) == 1
    assert torch.equal(loss(y, LOGITS), first)
    # Keras clips what comes.
    if isinstance(loss, BinaryCrossentropy):
        p = LOGITS.clamp(1e-7, 1 - 1e-7)
        elements = ROWS * (p + 1e-7).log() + (1 - ROWS) * (1 - p + 1e-7).log()
        expected = -elements.mean()
    elif isinstance(loss, CategoricalCrossentropy):
        p = (LOGITS / LOGITS.sum(1, keepdim=True)).clamp(1e-7, 1 - 1e-7)
        expected = -(ROWS * p.log()).sum(1).mean()
    else:
        expected = F.cross_entropy(LOGITS.clamp(1e-7, 1 - 1e-7).log(), LABELS)
    torch.testing.assert_close(first, expected, rtol=1e-5, atol=1e-6)
    type(loss)()(y, LOGITS.softmax(1))


def test_a_loss_follows_a_model_that_gives_logits_and_stays_itself() -> None:
    sparse, squared = SparseCategoricalCrossentropy(), MeanSquaredError()
    found = sparse.following(CUT)(LABELS, LOGITS)
    torch.testing.assert_close(found, F.cross_entropy(LOGITS, LABELS))
    assert not sparse.from_logits
    found = BinaryCrossentropy().following(CUT)(ROWS, LOGITS)  # Keras finds these logits, too
    torch.testing.assert_close(found, F.binary_cross_entropy_with_logits(LOGITS, ROWS))
    found = squared.following(CUT)(ROWS, LOGITS)
    torch.testing.assert_close(found, F.mse_loss(LOGITS.softmax(1), ROWS))
    torch.testing.assert_close(squared(ROWS, LOGITS), F.mse_loss(LOGITS, ROWS))
    for form in (None, OutputForm("unknown", None, -1), OutputForm("probabilities", "softmax")):
        assert sparse.following(form) is sparse


@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy",
                                  SparseCategoricalCrossentropy(from_logits=False)])  # fmt: skip
def test_the_training_loss_of_nsl_follows_the_model(loss: Any) -> None:
    x, y = batch()
    model = mlp()
    model.output_form = CUT  # type: ignore[assignment]
    config = nsl.make_adv_reg_config(multiplier=1.0, adv_step_size=0.1)
    found = nsl.AdversarialRegularization(model, adv_config=config, loss=loss)({"x": x, "label": y})
    torch.testing.assert_close(found.labeled_loss, F.cross_entropy(model(x), y))
    by_function = nsl.adversarial_loss(
        x, y, model, SparseCategoricalCrossentropy(), adv_config=config
    )
    torch.testing.assert_close(found.scaled_adversarial_loss, by_function)
