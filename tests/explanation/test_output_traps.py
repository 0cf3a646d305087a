"""Traps in the model's output: smallest batches that have them, counted by hand."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from trap_cases import IDENTITY, LINF, labels, rows, traps


@pytest.mark.parametrize("model_output", [None, "logits", "probabilities"])
def test_probabilities_taken_for_logits(model_output: str | None) -> None:
    x, y = rows([1, 0, 0], [0, 2, 0]), labels(0, 1)
    found = traps(nn.Softmax(1), x, y, LINF, model_output=model_output)
    trap = found["probabilities taken for logits"]
    assert (trap.severity, trap.count, trap.of) == ("error", 2, 2)
    takes_them = dataclasses.replace(LINF, model_output="probabilities")
    assert traps(nn.Softmax(1), x, y, takes_them, model_output="probabilities") == {}
    assert traps(IDENTITY, x, y, LINF, model_output=None) == {}
    binary = traps(nn.Sigmoid(), x[:, :1], y, LINF, model_output="probabilities")
    assert trap.name in binary  # numbers in [0, 1] alone do not tell
    # A loss of the caller's own takes what it takes.
    own = traps(nn.Softmax(1), x, y, LINF, loss_fn=lambda p, y: F.nll_loss(p.log(), y))
    assert own == {}


def test_logits_where_probabilities_are_expected() -> None:
    x, y = rows([1, 0, 0], [0, 2, 0]), labels(0, 1)
    recipe = dataclasses.replace(LINF, model_output="probabilities")
    found = traps(IDENTITY, x, y, recipe, model_output=None)
    assert list(found) == ["logits where probabilities are expected"]
    wrong = rows([0.5, 0.5, 0], [1, 2, 0], [0.5, 0.4, 0])
    trap = traps(IDENTITY, wrong, labels(0, 1, 0), recipe, model_output="probabilities")
    assert (trap["no probabilities"].count, trap["no probabilities"].of) == (2, 3)


# The label's probability: 1/3; 1 - 4e-9, which rounds to 1; 1 - 9e-5; 2e-9.
SATURATED = rows([0, 0, 0], [20, 0, 0], [10, 0, 0], [20, 0, 0]), labels(0, 0, 0, 1)


@pytest.mark.parametrize("as_rows", [False, True])
def test_saturated_probabilities(as_rows: bool) -> None:
    x, y = SATURATED
    y = F.one_hot(y, 3).float() if as_rows else y
    recipe = dataclasses.replace(LINF, model_output="probabilities")
    found = traps(nn.Softmax(1), x, y, recipe, model_output="probabilities")
    assert (found["saturated probabilities"].count, found["saturated probabilities"].of) == (2, 4)
    assert "in 2 no gradient is left" in found["saturated probabilities"].message
    assert "zero gradient" not in found
    # Rows for labels: the probabilities are divided by their sum first, here 1.001.
    off = traps(IDENTITY, rows([1, 0.001, 0]), y[:1], recipe, model_output="probabilities")
    assert ("saturated probabilities" in off) != as_rows
    # float64 sees 1 - 4e-9, which the bound 1 - 1e-7 clips as well.
    found = traps(nn.Softmax(1), x.double(), y, recipe, model_output="probabilities")
    assert found["saturated probabilities"].count == 2


@pytest.mark.parametrize(("dtype", "count"), [(torch.float32, 1), (torch.float64, None)])
def test_saturated_softmax(dtype: torch.dtype, count: int | None) -> None:
    x, y = SATURATED
    found = traps(IDENTITY, x.to(dtype), y, LINF)
    trap = found.get("saturated softmax")
    assert (trap.count if trap else None) == count
    gradient = torch.func.grad(lambda z: F.cross_entropy(z, y, reduction="sum"))(x.to(dtype))
    assert (gradient[1, 0] == 0) == (count == 1)  # what the message says


@pytest.mark.parametrize(("units", "count"), [(0.99, 2), (1.01, 1)])
def test_saturation_does_not_hang_on_the_order_of_a_sum(units: float, count: int) -> None:
    # Of a hundred rivals each is too small to be seen beside 1, together they need not be.
    rivals = torch.full((1, 101), math.log(units * 2.0**-24 / 100))
    rivals[0, 0] = 0.0
    alone = torch.full((1, 101), -40.0)
    alone[0, 0] = 0.0
    found = traps(IDENTITY, torch.cat([rivals, alone]), labels(0, 0), LINF)
    assert found["saturated softmax"].count == count


def test_binary_logits_do_not_saturate_and_binary_probabilities_do() -> None:
    x, y = rows([0.0], [20.0], [-20.0]), labels(1, 1, 1)
    assert "saturated softmax" not in traps(IDENTITY, x, y, LINF)
    recipe = dataclasses.replace(LINF, model_output="probabilities")
    found = traps(nn.Sigmoid(), x, y, recipe, model_output="probabilities")
    assert found["saturated probabilities"].count == 2


def test_wrong_predictions() -> None:
    x, y = rows([2, 0, 0], [0, 2, 0], [0, 0, 2], [2, 1, 0]), labels(0, 0, 2, 1)
    predicts = dataclasses.replace(LINF, labels="predicted")
    trap = traps(IDENTITY, x, y, predicts)["prediction is not the label"]
    assert (trap.count, trap.of, trap.severity) == (2, 4, "warning")
    assert traps(IDENTITY, x, F.one_hot(y, 3).float(), predicts)[trap.name].count == 2
    assert trap.name not in traps(IDENTITY, x, x.argmax(1), predicts)
    targeted = dataclasses.replace(predicts, targeted=True)
    assert trap.name not in traps(IDENTITY, x, y, targeted, target=y)


@pytest.mark.parametrize(
    ("ties", "says"),
    [("shared", "shares the label"), ("first", "takes the first, as CleverHans 4")],
)
def test_tied_predictions(ties: Any, says: str) -> None:
    x, y = rows([1, 1, 0], [1, 0, 0], [2, 2, 2]), labels(0, 0, 0)
    recipe = dataclasses.replace(LINF, labels="predicted", ties=ties)
    trap = traps(IDENTITY, x, y, recipe)["tied predictions"]
    assert (trap.count, trap.of, trap.severity) == (2, 3, "note")
    assert says in trap.message
    # Logits that are not equal, and their softmax that is.
    nearly = traps(IDENTITY, rows([1e-9, 0, -5]), y[:1], recipe)
    assert ("tied predictions" in nearly) == (ties == "shared")
    assert "tied predictions" not in traps(IDENTITY, x, y, LINF)
    assert "tied predictions" not in traps(IDENTITY, x[1:2], y[1:2], recipe)
