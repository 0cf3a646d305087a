"""Judgement by float64: noise passes, a planted error and a swapped channel do not."""

import math
from typing import Any

import numpy as np
import pytest

from torchfgsm.judging.by_float64 import compare_to_truth
from torchfgsm.judging.comparison import Comparison
from torchfgsm.judging.signs import judge_signs
from torchfgsm.parity.judge_perturbation import _by_chance

SHAPE = (100, 8, 8, 3)


def gradients(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns a float64 gradient and two float32 ones with independent rounding noise."""
    rng = np.random.default_rng(seed)
    g64 = rng.normal(size=SHAPE)
    g64[:20, 0, 0, 0] = 1e-9
    original, port = (g64 + rng.normal(scale=1e-7, size=SHAPE) for _ in range(2))
    return g64, original.astype(np.float32), port.astype(np.float32)


def l1_step(gradient: np.ndarray) -> Any:
    size = np.abs(gradient)
    largest = size == size.max(axis=(1, 2, 3), keepdims=True)
    return largest * np.sign(gradient)


def with_rivals(gap: float) -> tuple[np.ndarray, ...]:
    """Returns gradients whose first example has two maxima `gap` apart, swapped by the port."""
    g64, original, port = gradients()
    original, port = original.astype(np.float64), original.astype(np.float64)
    g64[0, 0, 0, :2] = original[0, 0, 0, :2] = port[0, 0, 0, :2] = 9.0, 9.0 + gap
    port[0, 0, 0, 0] = 10.0
    return g64, original, port


def test_rounding_noise_is_explained() -> None:
    g64, original, port = gradients()
    verdict = judge_signs(np.sign(original), np.sign(port), original, g64, norm="linf")
    assert verdict
    assert verdict.explained == verdict.mismatches > 3
    assert verdict.worst[0].ratio <= 1
    assert verdict.worst[0].index[1:] == (0, 0, 0)
    assert "explained" in verdict.to_text()
    assert verdict.to_text().splitlines()[-1].startswith("PASSED")


def test_adversarial_examples_are_taken_with_x() -> None:
    g64, original, port = gradients()
    x = np.random.default_rng(1).uniform(size=SHAPE).astype(np.float32)
    left, right = (x + np.float32(0.1) * np.sign(g).astype(np.float32) for g in (original, port))
    verdict = judge_signs(left, right, original, g64, norm="linf", x=x)
    assert verdict == judge_signs(np.sign(original), np.sign(port), original, g64, norm="linf")


@pytest.mark.parametrize("norm", ["linf", "l1"])
@pytest.mark.parametrize("fault", ["planted", "swapped"])
def test_a_fault_is_not_explained(norm: str, fault: str) -> None:
    g64, original, port = gradients()
    if fault == "planted":
        signs = np.random.default_rng(2).choice([-1, 1], SHAPE)
        port = (g64 + 1e-4 * np.abs(g64).max() * signs).astype(np.float32)
        if norm == "l1":
            # An error of this size moves a maximum only where there is a rival within it.
            g64[0, 0, 0, :2] = original[0, 0, 0, :2] = 9.0001, 9.0
            port[0, 0, 0, :2] = 9.0, 9.0001
    else:
        port = port[..., [1, 0, 2]]
    step = np.sign if norm == "linf" else l1_step
    verdict = judge_signs(step(original), step(port), original, g64, norm=norm)
    assert not verdict
    assert verdict.unexplained > 0
    assert "unexplained" in verdict.to_text().splitlines()[-1]
    assert not Comparison("signs", (verdict.to_difference("x"),))


@pytest.mark.parametrize(("gap", "explained"), [(1e-7, True), (1e-5, False)])
def test_a_moved_maximum_needs_a_rival_within_twice_the_noise(gap: float, explained: bool) -> None:
    g64, original, port = with_rivals(gap)
    verdict = judge_signs(l1_step(original), l1_step(port), original, g64, norm="l1")
    assert verdict.mismatches == 2
    assert bool(verdict) is explained
    assert verdict.worst[0].judged == pytest.approx(gap)


def test_a_moved_maximum_must_keep_the_direction() -> None:
    g64, original, port = with_rivals(1e-7)
    contrary = l1_step(port)
    contrary[0] = -contrary[0]
    verdict = judge_signs(l1_step(original), contrary, original, g64, norm="l1")
    assert verdict.unexplained == verdict.mismatches == 2


@pytest.mark.parametrize(("size", "explained"), [(0.9, True), (1.1, False)])
def test_a_flipped_sign_needs_a_gradient_within_the_noise(size: float, explained: bool) -> None:
    g64 = np.ones((1, 2000))
    original = g64.copy()
    original[0, 5] += 1e-7
    g64[0, 7] = size * 1e-7
    port_signs = np.ones_like(g64)
    port_signs[0, 7] = -1
    verdict = judge_signs(np.ones_like(g64), port_signs, original, g64, norm="linf")
    assert bool(verdict) is explained
    assert verdict.worst[0].ratio == pytest.approx(size)


def test_a_flipped_maximum_is_not_explained() -> None:
    g64, original, _ = gradients()
    verdict = judge_signs(l1_step(original), -l1_step(original), original, g64, norm="l1")
    assert verdict.unexplained == verdict.mismatches == SHAPE[0]


def test_more_than_a_thousandth_explained_is_a_failure() -> None:
    g64, original, port = gradients()
    g64[:10, 0] = 1e-9
    original[:10, 0], port[:10, 0] = 1e-9, -1e-9
    verdict = judge_signs(np.sign(original), np.sign(port), original, g64, norm="linf")
    assert not verdict.unexplained
    assert not verdict
    assert "more than 0.1%" in verdict.to_text()


def test_noise_is_measured_where_both_sides_agree() -> None:
    g64, original, _ = gradients()
    port = original.copy()
    g64[0, 1, 1, 1], original[0, 1, 1, 1], port[0, 1, 1, 1] = 0.5, -0.5, 0.5
    verdict = judge_signs(np.sign(original), np.sign(port), original, g64, norm="linf")
    assert verdict.unexplained == 1
    everything = judge_signs(np.ones((1, 2)), -np.ones((1, 2)), *np.ones((2, 1, 2)), norm="linf")
    assert everything.unexplained == 2


def test_infinite_gradients_explain_nothing() -> None:
    g32 = np.array([[np.inf, 1.0, 1.0]])
    g64 = np.array([[1.0, 1e-3, 1.0]])
    steps = np.array([[1.0, 1, 1]]), np.array([[1.0, -1, 1]])
    assert judge_signs(*steps, g32, g64, norm="linf").unexplained == 1


def test_nothing_compared_is_a_failure() -> None:
    empty = np.zeros((0, 3))
    assert not judge_signs(empty, empty, empty, empty, norm="linf")


@pytest.mark.parametrize(
    ("shapes", "norm", "match"),
    [
        (((2, 3), (2, 3), (2, 3), (2, 3)), "l2", "'l2'"),
        (((2, 3), (2, 3), (2, 3), (3, 2)), "linf", r"\(3, 2\)"),
        (((), (), (), ()), "linf", "shape"),
    ],
)
def test_refusals(shapes: Any, norm: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        judge_signs(*(np.zeros(shape) for shape in shapes), norm=norm)


def truth_case(port_error: float) -> tuple[dict[str, np.ndarray], ...]:
    truth = np.ones((3, 4))
    original, port = truth.astype("f"), truth.astype("f")
    original[:, 1] += np.float32(2**-20)
    port[2, 3] += np.float32(port_error)
    return {"x": original}, {"x": port}, {"x": truth}


@pytest.mark.parametrize(
    ("port_error", "slack", "passed"),
    [
        (2**-18, 0.0, True),
        (2**-17, 0.0, False),
        (2**-17, 2**-18, True),
        (2**-17, np.array([0.0, 0.0, 2**-18]), True),
        (2**-17, np.array([2**-18, 2**-18, 0.0]), False),
        (2**-17, {"x": 2**-18}, True),
        (2**-17, np.full((3, 4), 2**-18), True),
        (2**-17, np.diag([1.0, 1.0, 0.0, 0.0])[:3], False),
    ],
)
def test_the_port_may_be_four_times_as_far_as_the_original(
    port_error: float, slack: Any, passed: bool
) -> None:
    comparison = compare_to_truth(*truth_case(port_error), slack=slack, title="truth")
    (row,) = comparison.rows
    assert bool(comparison) is passed
    assert row.measured == {"port": port_error, "original": 2**-20, "ratio": port_error * 2**20}
    assert row.first_bad == (None if passed else (2, 3))
    assert row.max_abs == port_error
    assert row.tolerance_needed == max(0, port_error - 2**-18)
    assert "ratio" in comparison.to_text()


def test_each_example_is_judged_by_itself() -> None:
    original, port, truth = truth_case(2**-17)
    original["x"][0, 0] += 1
    assert not compare_to_truth(original, port, truth)
    assert compare_to_truth(original, port, truth, per_example=False)


def test_scalars_and_exact_results() -> None:
    one = {"loss": np.float32(1)}
    assert compare_to_truth(one, one, {"loss": np.float64(1)})
    worse = {"loss": np.nextafter(np.float32(1), np.float32(2))}
    row = compare_to_truth(one, worse, {"loss": np.float64(1)}).rows[0]
    assert not row.passed
    assert row.measured["ratio"] == np.inf


def test_missing_arrays_and_lone_nan_fail() -> None:
    original, port, truth = truth_case(0.0)
    assert compare_to_truth(original, {}, truth).failures[0].reason == "missing"
    port["x"][0, 0] = np.nan
    assert not compare_to_truth(original, port, truth, slack=1.0)
    assert not compare_to_truth(original, original, {"x": truth["x"][:2]})
    original["x"][0, 0] = np.inf
    assert not compare_to_truth(original, port, truth, slack=1.0)
    with pytest.raises(ValueError, match=r"x: expected slack of shape \(3,\), got \(2,\)"):
        compare_to_truth(original, original, truth, slack=np.ones(2))


def test_so_many_originals_are_lucky_by_chance() -> None:
    """The share is that of two normal numbers of which one is more than 4 times the other."""
    one, other = np.abs(np.random.default_rng(0).normal(size=(2, 100_000)))
    found = int((one > 4 * other).sum())
    assert abs(found - _by_chance(100_000)) < 6 * math.sqrt(found)
    assert found < _by_chance(100_000)
    assert _by_chance(0) == 1
