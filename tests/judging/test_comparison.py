"""Comparisons: what counts as equal, what counts as a failure, and how it is reported."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchfgsm.judging.comparison import Comparison, Difference, compare

ONE = {"a": np.arange(6.0).reshape(2, 3)}


def row(expected: Any, actual: Any, **tolerances: Any) -> Difference:
    (only,) = compare({"a": np.array(expected)}, {"a": np.array(actual)}, **tolerances).rows
    return only


def test_equal_arrays_pass() -> None:
    comparison = compare(ONE, {"a": ONE["a"].copy()}, title="same")
    assert comparison
    assert comparison.passed
    assert not comparison.failures
    assert comparison.rows[0].max_abs == 0
    assert comparison.to_text().splitlines()[0] == "same"
    assert comparison.to_text().splitlines()[-1] == "PASSED: 1 array agrees"
    two = {"a": ONE["a"], "b": ONE["a"]}
    assert compare(two, two, title="same").verdict == "PASSED: 2 arrays agree"


def test_statistics() -> None:
    found = row([1.0, 2.0, 0.0, 4.0], [1.0, 2.5, 0.5, 4.0], atol=0.1)
    assert (found.max_abs, found.mean_abs) == (0.5, 0.25)
    assert (found.max_rel, found.mean_rel) == (0.25, 0.25 / 3)
    assert found.first_bad == (1,)
    assert found.tolerance_needed == 0.5
    assert found.reason == "2 of 4 elements differ"


def test_first_bad_index_has_all_dimensions() -> None:
    other = ONE["a"].copy()
    other[1, 2] += 1
    assert compare(ONE, {"a": other}).rows[0].first_bad == (1, 2)


@pytest.mark.parametrize(
    ("expected", "actual", "reason"),
    [
        ({}, {}, None),
        (ONE, {}, "missing"),
        ({}, ONE, "extra"),
        ({"a": np.zeros((2, 3))}, {"a": np.zeros((3, 2))}, "shape (2, 3) against (3, 2)"),
        ({"a": np.zeros(1)}, {"a": np.zeros(())}, "shape (1,) against ()"),
        ({"a": np.zeros(0)}, {"a": np.zeros(0)}, "empty: nothing compared"),
        ({"a": np.zeros(2)}, {"a": np.zeros(2, "f")}, "dtype float64 against float32"),
        ({"a": np.array([np.nan, 1])}, {"a": np.array([1.0, 1])}, "NaN in expected only"),
        ({"a": np.array([1.0, 1])}, {"a": np.array([np.nan, 1])}, "NaN in actual only"),
        ({"a": np.array([np.nan, 1])}, {"a": np.array([1, np.nan])}, "NaN in actual only"),
        ({"a": np.array([np.inf])}, {"a": np.array([-np.inf])}, "1 of 1 elements differ"),
        ({"a": np.array([np.inf])}, {"a": np.array([1.0])}, "1 of 1 elements differ"),
        ({"a": np.array([1.0])}, {"a": np.array([np.inf])}, "1 of 1 elements differ"),
        ({"a": np.array([True])}, {"a": np.array([False])}, "1 of 1 elements differ"),
        ({"a": np.array([200], "u1")}, {"a": np.array([201], "u1")}, "1 of 1 elements differ"),
    ],
)
def test_failures(expected: Any, actual: Any, reason: str | None) -> None:
    comparison = compare(expected, actual, atol=1e-3, rtol=1e-3)
    assert not comparison
    assert comparison.to_text().splitlines()[-1].startswith("FAILED: ")
    assert [failure.reason for failure in comparison.failures] == ([reason] if reason else [])


def test_every_failure_is_listed() -> None:
    comparison = compare({"a": np.ones(1), "b": np.ones(1)}, {"b": np.zeros(1), "c": np.ones(1)})
    assert [failure.name for failure in comparison.failures] == ["a", "b", "c"]
    text = comparison.to_text()
    assert all(word in text for word in ("missing", "extra", "first at (0,)", "3 of 3"))


def test_large_integers_that_are_equal_as_floats_differ() -> None:
    assert row([2**53], [2**53]).passed
    assert row([2**53], [2**53 + 1]).tolerance_needed == 1


def test_the_size_of_the_smallest_integer_is_positive() -> None:
    found = row(np.array([-128], np.int8), np.array([-127], np.int8), rtol=0.01)
    assert (found.max_abs, found.max_rel, found.passed) == (1.0, 1 / 128, True)


def test_the_rule_is_said_and_arrays_that_cannot_be_compared_have_none() -> None:
    assert row([1.0], [1.0], atol=0.5).allowed == "0.5"
    assert row([1.0], [1.0], atol=0.5, rtol=0.25).allowed == "0.5 + 0.25 |expected|"
    (missing,) = compare(ONE, {}).rows
    assert (missing.allowed, missing.rtol, missing.atol) == ("", 0.0, 0.0)


def test_nan_and_infinity_equal_their_own_kind() -> None:
    values = [np.nan, np.inf, -np.inf, 1.0]
    found = row(values, values, rtol=0.1)
    assert found.passed
    assert found.tolerance_needed == 0


def test_both_tolerances_add_up() -> None:
    assert row([100.0], [101.5], rtol=0.01, atol=0.5).passed
    assert not row([100.0], [101.6], rtol=0.01, atol=0.5).passed
    assert row([-100.0], [-101.5], rtol=0.01, atol=0.5).passed


@given(
    st.lists(st.tuples(*[st.floats(-1e30, 1e30)] * 2), min_size=1, max_size=5), st.floats(0, 0.5)
)
def test_the_tolerance_needed_passes_and_nothing_less_does(
    pairs: list[tuple[float, float]], rtol: float
) -> None:
    expected, actual = (list(side) for side in zip(*pairs, strict=True))
    needed = row(expected, actual, rtol=rtol).tolerance_needed
    assert row(expected, actual, rtol=rtol, atol=needed).passed
    if needed:
        assert not row(expected, actual, rtol=rtol, atol=math.nextafter(needed, 0)).passed


@pytest.mark.parametrize("tolerance", [{"atol": -1.0}, {"rtol": math.nan}])
def test_bad_tolerances_are_refused(tolerance: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=">= 0, got"):
        compare(ONE, ONE, **tolerance)  # type: ignore[arg-type]


def test_text_is_refused() -> None:
    with pytest.raises(TypeError, match="a: the actual array must hold numbers"):
        compare(ONE, {"a": np.array(["x"])})


def test_json_holds_no_number_that_json_lacks() -> None:
    comparison = compare({"a": np.array([np.inf]), "b": np.ones(1)}, {"a": np.array([1.0])})
    text = json.dumps(comparison.to_dict(), allow_nan=False)
    found = json.loads(text)
    assert found["passed"] is False
    assert found["rows"][0]["max_abs"] == "inf"
    assert found["rows"][0]["first_bad"] == [0]
    assert found["rows"][1]["reason"] == "missing"
    measured = Difference("a", measured={"to float64": math.inf, "share": 0.5}).to_dict()[
        "measured"
    ]
    assert measured == {"to float64": "inf", "share": 0.5}


def test_join_keeps_failures_and_empty_parts() -> None:
    good = compare(ONE, ONE, title="good")
    assert Comparison.join("all", [good, good]).passed
    joined = Comparison.join("all", [good, Comparison("hollow", ())])
    assert not joined
    assert [r.name for r in joined.rows] == ["good: a", "hollow"]
    assert not Comparison.join("all", [])
