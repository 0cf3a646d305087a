"""The measures of perturbations, of loss and of accuracy."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from toy_models import batch, mlp

from torchfgsm import Recipe, evaluate
from torchfgsm.explanation import explain
from torchfgsm.explanation.measures import Attacked, measure, remainder

pytestmark = pytest.mark.usefixtures("one_thread")

GIVEN = Recipe(labels="given", step=0.1)


def perturbed(*rows: list[float]) -> Attacked:
    return Attacked({"x": np.array(rows)}, np.zeros(0), 0.0, 0.0)


def test_measures_of_nonfinite_and_zero_perturbations() -> None:
    nan, inf = math.nan, math.inf
    same = measure(perturbed([nan, 1.0], [inf, 1.0]), perturbed([nan, 1.0], [inf, 1.0]))
    assert (same.sign_flips, same.examples) == (0, 0)
    turned = measure(perturbed([nan, 1.0], [1.0, 0.0]), perturbed([0.0, 1.0], [1.0, 1.0]))
    assert (turned.sign_flips, turned.examples) == (0.5, 2)
    assert math.isnan(turned.relative_l2)
    nothing, something = perturbed([0.0, 0.0]), perturbed([3.0, 4.0])
    assert measure(something, nothing).relative_l2 == inf
    assert measure(nothing, something).relative_l2 == 1
    assert measure(nothing, nothing).relative_l2 == 0
    assert math.isnan(measure(nothing, something).cosine)


def test_rounding_is_no_change_of_an_example() -> None:
    reference = perturbed([1.0, 1e-3], [1.0, 1e-3], [0.0, 0.0])
    changed = measure(perturbed([1.0, 1.9e-3], [1.0, 2.1e-3], [0.0, 0.0]), reference)
    assert changed.examples == 1
    assert changed.sign_flips == 0
    assert changed.relative_l2 == pytest.approx(math.hypot(0.9e-3, 1.1e-3) / math.sqrt(2), rel=1e-5)


def test_measures_join_features_of_several_shapes_and_dtypes() -> None:
    def both(a: float, b: float) -> Attacked:
        arrays: dict[str, Any] = {
            "a": np.full((2, 3), a, np.float16),
            "b": np.full((2, 1, 1), b, np.float32),
        }
        return Attacked(arrays, np.zeros(0), a, b)

    found = measure(both(1.0, -2.0), both(1.0, 2.0))
    assert found.sign_flips == 2 / 8
    assert found.relative_l2 == pytest.approx(4 / math.sqrt(7))
    assert found.cosine == pytest.approx((3 - 4) / 7)
    assert (found.examples, found.loss, found.accuracy) == (2, 0, -4)


def test_remainder_is_what_single_effects_leave() -> None:
    a, b = perturbed([0.0, 0.0]), perturbed([1.0, 1.0])
    assert remainder(a, b, [perturbed([1.0, 0.0]), perturbed([0.0, 1.0])]) == 0
    assert remainder(a, b, [perturbed([1.0, 0.0])]) == pytest.approx(math.sqrt(0.5))
    assert remainder(a, b, []) == 1
    assert remainder(a, a, [perturbed([1.0, 0.0])]) == 0


def test_curve_is_that_of_evaluate() -> None:
    model, (x, y) = mlp(), batch(size=32)
    recipe = Recipe(labels="given", step=0.1, iterations=2, epsilon=0.2)
    found = explain(model, x, y, a=recipe, b=GIVEN, epsilons=[0.1, 0.3, 0.6])
    report = evaluate(model, [(x, y)], recipe=recipe, epsilons=[0.1, 0.3, 0.6])
    assert found.a.curve == tuple((point.epsilon, point.accuracy) for point in report.curve)
    assert found.a.accuracy == report.adversarial_accuracy
    assert found.a.loss == pytest.approx(report.adversarial_loss)
    assert found.clean_loss == pytest.approx(report.clean_loss)
    assert {0.2, 0.1} <= {length for length, _ in explain(
        model, x, y, a=recipe, b=GIVEN).b.curve}  # fmt: skip
    free = dataclasses.replace(GIVEN, iterations=2)  # no length that could be scaled
    assert explain(model, x, y, a=free, b=GIVEN).a.curve == ()
