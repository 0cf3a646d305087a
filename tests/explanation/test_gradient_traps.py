"""Traps in the gradient: smallest batches that have them, counted by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from trap_cases import IDENTITY, L2, LINF, labels, rows, traps


class Root(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sqrt()


@pytest.mark.parametrize(
    ("nonfinite", "norm", "says"),
    [
        ("zero", "linf", "count as 0"),
        ("propagate", "linf", "sign of a NaN is NaN"),
        ("ignore", "linf", "sign of a NaN is 0"),
        ("propagate", "l2", "whole example"),
    ],
)
def test_non_finite_gradient(nonfinite: Any, norm: Any, says: str) -> None:
    # The slope of the root of 0 is infinite; where two entries are 0, both are.
    x, y = rows([1, 0, 4], [0, 0, 1], [1, 2, 4]), labels(2, 2, 2)
    recipe = dataclasses.replace(LINF, nonfinite=nonfinite, norm=norm)
    found = traps(Root(), x, y, recipe)
    assert (found["non-finite gradient"].count, found["non-finite gradient"].of) == (2, 3)
    assert "3 in all" in found["non-finite gradient"].message
    assert says in found["non-finite gradient"].message
    assert "non-finite output" not in found
    assert "non-finite gradient" not in traps(Root(), x + 1, y, recipe)


def test_zero_gradient_for_another_reason() -> None:
    x, y = rows([-1, -2, -3], [1, 0, 0], [-1, -1, -2]), labels(0, 0, 0)
    found = traps(nn.ReLU(), x, y, LINF)
    assert (found["zero gradient"].count, found["zero gradient"].of) == (2, 3)
    assert "zero gradient" not in traps(nn.ReLU(), x.abs(), y, LINF)
    assert set(traps(nn.ReLU(), x, y, L2)) == {"zero gradient"}  # the guard shortens no step


def test_no_path_to_the_loss() -> None:
    class First(nn.Module):
        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            return first

    x = [rows([1, 0, 0]), rows([1, 0, 0])]
    trap = traps(First(), x, labels(0), dataclasses.replace(LINF, missing_gradient="stay"))
    assert (trap["no path to the loss"].count, trap["no path to the loss"].of) == (1, 2)
    assert "does not depend on 1" in trap["no path to the loss"].message


def guard_batch() -> tuple[Tensor, Tensor]:
    """Six examples of logits (z, 0, 0), whose gradient for label 0 is sqrt(6) exp(-z) long.

    z = 16: 2.8e-7. z = 13: 5.5e-6, and a sixth of that is 9.2e-7. z = 0: above any guard.
    """
    x = torch.zeros(6, 3, dtype=torch.float64)
    x[0, 0], x[1, 0] = 16, 13
    return x, torch.zeros(6, dtype=torch.long)


@pytest.mark.parametrize(
    ("reduction", "size", "count", "says"),
    [
        ("sum", None, 1, "with the mean of 6 losses it would be in 2. Set guard=0"),
        ("mean", None, 2, "loss it would be in 1. Set reduction='sum'"),
        ("mean", 3, 1, "the gradient of the mean of 3 losses"),
    ],
)
def test_gradient_under_the_guard(reduction: Any, size: int | None, count: int, says: str) -> None:
    x, y = guard_batch()
    recipe = dataclasses.replace(L2, reduction=reduction)
    found = traps(IDENTITY, x, y, recipe, batch_size=size)
    assert (found["gradient under the guard"].count, found["gradient under the guard"].of) == (
        count,
        6,
    )
    assert says in found["gradient under the guard"].message
    settled: list[dict[str, Any]] = [{"guard": 0.0}, {"norm": "linf"}, {"guard": 1e-16}]
    for other in settled:
        changed = dataclasses.replace(recipe, **other)
        assert "gradient under the guard" not in traps(IDENTITY, x, y, changed, batch_size=size)


@pytest.mark.parametrize(("joint", "count"), [(True, None), (False, 2)])
def test_guard_of_several_features(joint: bool, count: int | None) -> None:
    class Sum(nn.Module):
        def forward(self, x: dict[str, Tensor]) -> Tensor:
            return x["large"] + 1e-7 * x["small"]

    x = {"large": rows([1, 0, 0], [0, 1, 0]), "small": rows([1, 0, 0], [0, 1, 0])}
    found = traps(Sum(), x, labels(0, 1), dataclasses.replace(L2, joint=joint))
    trap = found.get("gradient under the guard")
    assert (trap.count if trap else None) == count


def test_guard_takes_the_loss_function_s_own_number_of_losses() -> None:
    x, y = guard_batch()
    recipe = dataclasses.replace(L2, reduction="mean")

    def mean(output: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(output, y)

    def each(output: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(output, y, reduction="none")

    for loss_fn in (mean, each):
        found = traps(IDENTITY, x, y, recipe, loss_fn=loss_fn)
        assert found["gradient under the guard"].count == 2
    # z = 12.5: 9.1e-6, of which a sixth lies above the guard and a twelfth below.
    x[1, 0] = 12.5
    assert traps(IDENTITY, x, y, recipe)["gradient under the guard"].count == 1
    padded = traps(IDENTITY, x, y, recipe, loss_fn=lambda z, y: F.pad(each(z, y)[:, None], (0, 1)))
    assert padded["gradient under the guard"].count == 2


class Squares(nn.Module):
    """One logit, the sum of the squares: its gradient is in proportion to the input."""

    def forward(self, x: Tensor) -> Tensor:
        return x.square().sum(1)


def test_ties_of_the_largest_gradient_entry() -> None:
    x, y = rows([1, 1], [1, 2], [-2, 2], [0, 0]), labels(0, 0, 0, 0)
    recipe = dataclasses.replace(LINF, norm="l1")
    trap = traps(Squares(), x, y, recipe)["tied largest gradient entries"]
    assert (trap.count, trap.of) == (2, 4)
    assert "tied largest gradient entries" not in traps(Squares(), x, y, LINF)
    assert "tied largest gradient entries" not in traps(Squares(), x[1:2], y[1:2], recipe)


def test_what_clip_grad_leaves_of_the_gradient() -> None:
    # At the upper bound a step upwards counts as 0; towards the target it points downwards.
    x, y = rows([1, 1]), labels(0)
    recipe = dataclasses.replace(LINF, norm="l1", clip_grad=True, clip_min=-5.0, clip_max=1.0)
    assert traps(Squares(), x, y, recipe) == {}
    targeted = dataclasses.replace(recipe, targeted=True)
    assert set(traps(Squares(), x, y, targeted, target=y)) == {"tied largest gradient entries"}
