"""What becomes of a gradient before a direction is made of it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from torchfgsm.core.gradient import condition, connected, input_gradient


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_zero_replaces_each_kind_of_nonfinite_entry(value: float) -> None:
    grad = torch.tensor([[value, 2.0], [-3.0, value]])
    assert condition(grad, nonfinite="zero").tolist() == [[0.0, 2.0], [-3.0, 0.0]]
    kept = condition(grad, nonfinite="propagate")
    torch.testing.assert_close(kept, grad, rtol=0, atol=0, equal_nan=True)


def test_gradients_at_a_bound_count_unless_they_are_to_be_clipped() -> None:
    grad, x = torch.tensor([[1.0, -1.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.5]])

    def conditioned(**choice: bool) -> list[list[float]]:
        bounds = {"x": x, "clip_min": 0.0, "clip_max": 1.0}
        found: list[list[float]] = condition(grad, nonfinite="zero", **bounds, **choice).tolist()  # type: ignore[arg-type]
        return found

    assert conditioned() == [[1.0, -1.0, 1.0]]
    assert conditioned(clip_grad=True) == [[0.0, 0.0, 1.0]]


def test_a_gradient_has_no_graph_unless_it_is_asked_for() -> None:
    x = torch.tensor([2.0], requires_grad=True)
    for keep in (False, True):
        options: dict[str, Any] = {"create_graph": True} if keep else {}
        (grad,) = input_gradient((x**3).sum(), [x], **options)
        assert grad is not None
        assert (grad.item(), grad.requires_grad) == (12.0, keep)


def test_inputs_without_a_path_are_found_behind_constants() -> None:
    used, unused = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    loss = (torch.ones(2) * used * torch.ones(2)).sum()
    found, missing = connected(loss, [used, unused])
    assert found is used
    assert missing is None
    assert connected(torch.ones(()), [used]) == [None]
