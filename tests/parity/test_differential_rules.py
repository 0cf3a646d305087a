"""The rules by which disagreements of random configurations are explained, and their shrinking."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.evidence.differential_draws import Draw, draw
from benchmarks.evidence.differential_models import architecture
from benchmarks.evidence.differential_rules import (
    DIFFERENT,
    FAULT,
    FLOAT64,
    NOISE,
    ORIGINAL_REFUSES,
    PORT_REFUSES,
    REFUSED,
    STRICT,
    UNCLEAR,
    Outcome,
    close,
    judged,
    noise_alone,
    noise_in_training,
    refused,
)
from benchmarks.evidence.differential_shrinking import shrunk
from torchfgsm.judging.comparison import Comparison, Difference, compare
from torchfgsm.judging.signs import judge_signs
from torchfgsm.parity.cases import Case
from torchfgsm.parity.verdict import Verdict

X = np.array([[0.5, 0.5], [0.5, 0.5]], np.float32)
STEP = np.array([[0.1, 0.1], [0.1, 0.1]], np.float32)
NOISY = np.array([[1e-6, 1e-6], [2.0, 3.0]], np.float32)
TRUE = np.array([[1e-9, -1e-9], [2.0, 3.0]])


def any_draw(**fields: Any) -> Draw:
    """A draw with a case of one's own."""
    first = draw(0, 0, 0, architecture(0, 0))
    return replace(first, case=Case(**{"name": "", "library": "nsl", "params": {}, **fields}))


def expected(gradient: Any = NOISY) -> dict[str, Any]:
    """The original, which follows a gradient of noise in the first example."""
    truth = X.astype(np.float64) + STEP * np.sign(TRUE)
    return {
        "adv/x": X + STEP,
        "gradient/x": gradient,
        "gradient64/x": TRUE,
        "truth/x": truth,
    }


def test_noise_is_excused_where_float64_is_right() -> None:
    theirs, truth = expected(), expected()["truth/x"]
    ours = {"adv/x": truth.astype(np.float32)}
    assert noise_alone(theirs, ours, {"adv/x": truth})
    assert not noise_alone(theirs, ours, {"adv/x": truth + 1e-6})
    assert not noise_alone(expected(TRUE.astype(np.float32)), ours, {"adv/x": truth})
    clean = {"adv/x": ours["adv/x"] - [[0, 0], [0, 0.1]]}
    assert not noise_alone(theirs, clean, {"adv/x": truth})
    assert not noise_alone(theirs, {"adv/x": theirs["adv/x"]}, {"adv/x": truth})


def test_noise_in_training_is_excused_where_the_original_is_as_far_nearby() -> None:
    true = np.array([1.0, 2.0])
    theirs = {"grad/w": true * 1.0001, "truth/grad/w": true}
    ours, right = {"grad/w": true * 1.01}, {"grad/w": true}
    assert noise_in_training(theirs, ours, right, {"grad/w": 0.006})
    assert not noise_in_training(theirs, ours, right, {"grad/w": 0.004})
    assert not noise_in_training(theirs, ours, right, {"grad/w": np.nan})
    assert not noise_in_training(theirs, ours, {"grad/w": true * 1.001}, {"grad/w": 0.006})
    assert not noise_in_training({"grad/w": true}, ours, right, {"grad/w": 0.006})


def test_extremes_are_nan_in_the_same_places() -> None:
    one, other = np.array([[np.nan, 1.0], [2.0, 3.0]]), np.array([[np.nan, 1.0], [2.0, 4.0]])
    assert close({"x": one}, {"x": other}, [0])
    assert not close({"x": one}, {"x": other}, [0, 1])
    assert not close({"x": one}, {"x": np.nan_to_num(one)}, [0])


FINE, UNLIKE = ValueError("one line"), RuntimeError("size mismatch")
DOUBLE: dict[str, Any] = {
    "library": "cleverhans3",
    "dtype": "float64",
    "params": {"ord": 2},
}
ONE_BOUND: dict[str, Any] = {
    "library": "cleverhans-torch",
    "params": {"clip_min": 0.0, "nb_iter": 0},
}


@pytest.mark.parametrize(
    ("fields", "ours", "theirs", "word"),
    [
        ({}, FINE, UNLIKE, REFUSED),
        ({}, UNLIKE, FINE, UNCLEAR),
        ({}, ValueError("two\nlines"), FINE, UNCLEAR),
        ({}, FINE, None, PORT_REFUSES),
        (ONE_BOUND, FINE, None, STRICT),
        ({}, None, FINE, ORIGINAL_REFUSES),
        (DOUBLE, None, FINE, FAULT),
        ({**DOUBLE, "dtype": "float32"}, None, FINE, ORIGINAL_REFUSES),
    ],
)
def test_refusals(
    fields: dict[str, Any], ours: Exception | None, theirs: Exception | None, word: str
) -> None:
    assert refused(any_draw(**fields), ours, theirs).word == word


def verdict(*rows: Difference, explained: int = 0) -> Verdict:
    return Verdict(Case(name="", library="nsl", params={}), Comparison("", rows), "", explained)


def test_signs_may_be_too_many_for_one_draw_but_not_unexplained() -> None:
    ones = np.ones((1, 4))
    flipped = np.array([[1.0, 1.0, 1.0, -1.0]])
    g64 = np.array([[1.0, 1.0, 1.0, 1e-9]])
    few = judge_signs(ones, flipped, g64 + 1e-8, g64, norm="linf").to_difference("signs")
    many = judge_signs(ones, flipped, ones + 1e-8, ones, norm="linf").to_difference("signs")
    assert not few.passed
    assert judged(any_draw(), verdict(few, explained=1)).word == NOISE
    assert judged(any_draw(), verdict(many)).word == DIFFERENT
    (apart,) = compare({"x": ones}, {"x": flipped}).rows
    assert judged(any_draw(), verdict(few, apart, explained=1)).word == DIFFERENT
    assert judged(any_draw(), verdict(*compare({"x": ones}, {"x": ones}).rows)).word == FLOAT64


def test_a_finding_is_shrunk_to_what_shows_it() -> None:
    models = architecture(0, 0)
    first = next(
        one
        for one in (draw(0, number, 0, models) for number in range(500))
        if one.case.params.get("pgd_iterations", 0) > 2
        and len(one.batch.y) > 2
        and len(one.case.extras) > 1
        and one.case.kind == "perturb"
    )
    extra = first.case.extras[-1]

    def outcome(draw: Draw) -> Outcome:
        wrong = extra in draw.case.extras and draw.case.params.get("pgd_iterations", 1) > 1
        return Outcome(draw, DIFFERENT if wrong else FLOAT64)

    small = shrunk(outcome(first), outcome).draw
    assert len(small.batch.y) == 1
    assert small.case.extras == (extra,)
    assert small.case.params == {"pgd_iterations": 2}
    assert small.case.dtype == "float32"
    for array in (*small.batch.x.values(), *small.batch.drawn["low tensor"].values()):
        assert len(array) == 1
