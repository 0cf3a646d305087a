"""Judging perturbations by their signs, step by step, and their lengths by float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from torchfgsm.judging.comparison import Comparison, compare
from torchfgsm.judging.label_slope import LabelSlope, rounding
from torchfgsm.judging.signs import SignVerdict, judge_signs
from torchfgsm.parity.cases import Case, norm_of
from torchfgsm.parity.data import Array, Data
from torchfgsm.parity.exact_port import ExactPort
from torchfgsm.parity.judge_perturbation import Arrays, Iterate, gradients, judge_by_truth, rows_of
from torchfgsm.parity.originals_side import iterations
from torchfgsm.parity.verdict import Verdict


def judge_signs_first(
    case: Case,
    data: Data,
    expected: Arrays,
    theirs: Arrays,
    actual: dict[str, Array],
    iterate: Iterate,
    in_float64: Callable[[], Arrays],
    exact: ExactPort | None = None,
) -> Verdict:
    """Signs first; elements whose flip is explained count as equal for the values."""
    if all(k in actual and np.array_equal(theirs[k], actual[k]) for k in theirs):
        return Verdict(case, compare(theirs, actual, title=case.name), "the same bits")
    turns = iterations(case)
    verdicts: dict[str, SignVerdict] = {}
    if turns > 1 and norm_of(case) == "linf":
        verdicts, diverged = _first_differences(data, expected, iterate, exact, turns)
        for key, rows in diverged.items():
            actual[key] = np.where(rows, theirs[key], actual[key])
    else:
        judge_step = _StepJudge(norm_of(case), data.classes, expected, exact)
        for name, x in data.x.items():
            key = f"adv/{name}"
            verdicts[key] = judge_step(name, data.x, theirs[key], actual[key])
            flipped = np.sign(theirs[key] - x) != np.sign(actual[key] - x)
            actual[key] = np.where(flipped, theirs[key], actual[key])
    values = judge_by_truth(case, data, expected, theirs, actual, in_float64, exact)
    signs = [v.to_difference(f"signs of {key}") for key, v in verdicts.items()]
    explained = sum(v.explained for v in verdicts.values())
    elements = sum(v.elements for v in verdicts.values())
    comparison = Comparison(case.name, (*values.comparison.rows, *signs))
    return replace(
        values,
        comparison=comparison,
        rule=f"signs by float64; {values.rule}",
        explained=explained,
        elements=elements,
    )


@dataclass(frozen=True)
class _StepJudge:
    """Judges the signs of one step, whose arrays `expected` has under the step's number."""

    norm: str
    classes: int
    expected: Arrays
    exact: ExactPort | None

    def __call__(
        self, name: str, before: Mapping[str, Array], theirs: Array, ours: Array, turn: int = 0
    ) -> SignVerdict:
        place = f"{turn}/{name}" if turn else name
        exact = self.exact
        return judge_signs(
            theirs,
            ours,
            self.expected[f"gradient/{place}"],
            self.expected[f"gradient64/{place}"],
            norm=self.norm,
            x=before[name],
            label=self._label(name, before, turn),
            near=None if exact is None else lambda example: exact.near(before, example)[name],
        )

    def _label(self, name: str, before: Mapping[str, Array], turn: int) -> LabelSlope | None:
        found = gradients(self.expected, before, turn)
        head = {} if self.exact is None else self.exact.head(before, found)
        return head.get(name) or label_slope(self.expected, name, self.classes, turn or None)


def _first_differences(
    data: Data, expected: Arrays, iterate: Iterate, exact: ExactPort | None, turns: int
) -> tuple[dict[str, SignVerdict], dict[str, Array]]:
    """Judges each example at the first iterate at which the two sides differ."""
    judge_step = _StepJudge("linf", data.classes, expected, exact)
    verdicts: dict[str, SignVerdict] = {}
    diverged: dict[str, Array] = {}
    for name, x in data.x.items():
        before = data.x
        gone = np.zeros(len(x), bool)
        for turn in range(1, turns + 1):
            after = {n: expected[f"iterate/{turn}/{n}"] for n in data.x}
            theirs = after[name]
            ours = np.where(rows_of(gone, x), theirs, iterate(turn)[f"adv/{name}"])
            if not np.array_equal(theirs, ours):
                key = f"adv/{name}, step {turn}"
                verdicts[key] = judge_step(name, before, theirs, ours, turn)
                flipped = np.sign(theirs - before[name]) != np.sign(ours - before[name])
                gone |= flipped.reshape(len(x), -1).any(axis=1)
            before = after
        diverged[f"adv/{name}"] = rows_of(gone, x)
    return verdicts, diverged


def label_slope(
    expected: Arrays, name: str, classes: int, turn: int | None = None, dtype: str = "float32"
) -> LabelSlope | None:
    """What rounding does to the label's slope at an iterate; None where it is not known."""
    turns = "" if turn is None else f"/{turn}"
    if f"label_miss{turns}" not in expected:
        return None
    limit = rounding(expected[f"label_miss{turns}"], classes, dtype)
    return LabelSlope(expected[f"label_slope{turns}/{name}"], limit)
