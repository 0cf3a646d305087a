"""What rounding does to the slope of a label that is nearly sure, without any original."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from torchfgsm.judging.label_slope import LabelSlope, rounding, saturated
from torchfgsm.judging.signs import SignVerdict, judge_signs

RANDOM = np.random.default_rng(0)
G64, SLOPE = RANDOM.normal(size=(2, 40, 64))
MISS = np.full(40, 2.0**-22)
LIMIT = rounding(MISS, 10)
G64 *= 4 * LIMIT[:, None]


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_softmax_is_off_by_more(classes: int, dtype: torch.dtype) -> None:
    margins = torch.linspace(0, 60, 2000, dtype=torch.float64)
    z = torch.rand(2000, classes, dtype=torch.float64) * -margins[:, None] / 4 - margins[:, None]
    z[:, 0] = 0
    z = z.to(torch.float32).to(torch.float64)  # the same logits for both
    miss = (z[:, 1:].logsumexp(1) - z.logsumexp(1)).exp().numpy()
    own = z.to(dtype)
    naive = sum((own[:, k].exp() for k in range(classes)), torch.zeros(2000, dtype=dtype))
    name = str(dtype).removeprefix("torch.")
    for p in (own.softmax(1)[:, 0], 1 / naive):
        # A last digit or two of the rivals' exponentials come on top.
        off = np.abs((p - 1).double().numpy() + miss)
        assert (off <= rounding(miss, classes, name) * (1 + 1e-6)).all()
    one = (z.float().softmax(1)[:, 0] == 1).numpy()
    clear = np.abs(np.log2(miss) + 24) > 2
    assert (saturated(miss) == one)[clear].all()
    assert one.any()


def gradients(share: Any) -> Any:
    return G64 + share * LIMIT[:, None] * SLOPE


def step(gradient: Any, norm: str) -> Any:
    largest = np.abs(gradient) == np.abs(gradient).max(axis=1, keepdims=True)
    return np.sign(gradient) * (1 if norm == "linf" else largest)


def judged(port: Any, original: Any, norm: str, label: bool = True) -> SignVerdict:
    known = LabelSlope(SLOPE, LIMIT) if label else None
    steps = step(original, norm), step(port, norm)
    return judge_signs(*steps, original, G64, norm=norm, label=known)


@pytest.mark.parametrize("norm", ["linf", "l1"])
@pytest.mark.parametrize(("port", "original"), [(0.9, -0.9), (-0.5, 0.3), (0.0, 0.9), (0.9, 0.0)])
def test_one_error_for_an_example_explains_it(norm: str, port: float, original: float) -> None:
    found = judged(gradients(port), gradients(original), norm)
    assert found
    assert found.rounded == found.explained == found.mismatches > 5
    assert found.worst[0].ratio <= 0.9 + 1e-9
    assert "a softmax near 1" in found.summary
    assert not judged(gradients(port), gradients(original), norm, label=False)


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_no_larger_error_is_explained(norm: str) -> None:
    assert judged(gradients(3.0), gradients(0.1), norm).unexplained > 5
    assert judged(-gradients(0.5), gradients(0.1), norm).unexplained > 5
    assert judged(gradients(0.1), -gradients(0.1), norm).unexplained > 5


def test_an_error_of_its_own_for_each_element_is_not_explained() -> None:
    shares = np.random.default_rng(1).uniform(-1, 1, SLOPE.shape)
    assert judged(gradients(shares), gradients(0.1), "linf").unexplained > 5


def test_one_sign_more_is_not_explained() -> None:
    port = gradients(0.9)
    place = np.abs(port[3]).argmax()
    port[3, place] *= -1
    found = judged(port, gradients(-0.9), "linf")
    assert found.unexplained > 0
    assert {m.index[0] for m in found.worst if not m.explained} == {3}
