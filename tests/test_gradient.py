"""What becomes of a gradient before a direction is made of it."""

from __future__ import annotations

import math

import pytest
import torch

from torchfgsm.gradient import condition


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_zero_replaces_each_kind_of_nonfinite_entry(value: float) -> None:
    grad = torch.tensor([[value, 2.0], [-3.0, value]])
    assert condition(grad, nonfinite="zero").tolist() == [[0.0, 2.0], [-3.0, 0.0]]
    kept = condition(grad, nonfinite="propagate")
    torch.testing.assert_close(kept, grad, rtol=0, atol=0, equal_nan=True)
