"""Whether the port's result of a case equals the original's, and by which rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from torchfgsm.comparison import Comparison, compare
from torchfgsm.judgement import SignVerdict, compare_to_truth, judge_signs
from torchfgsm.parity.cases import Case, norm_of
from torchfgsm.parity.data import Array, Data
from torchfgsm.parity.originals_side import case_gradient, iterations
from torchfgsm.parity.truth import ascent

_FLOAT64_TOLERANCE = 1e-11
_MAX_ULPS = 3.0
# A truth that the original itself misses by this share of the step is no judge.
_TRUTH_LIMIT = 0.05
# Largest distance of the port from the truth when it runs in float64 itself.
_LUCK_TOLERANCE = 1e-9

Arrays = Mapping[str, Array]
Iterate = Callable[[int], Arrays]


@dataclass(frozen=True)
class Verdict:
    """The outcome of one case.

    Attributes:
        case: The case.
        comparison: Every array compared; true when all agree.
        rule: By which rule they were compared.
        explained: Signs that differ and that float noise explains.
        elements: Elements compared.
        lucky: Examples in which the original was nearer to float64 than float32 is, by luck.
        examples: Examples compared.
    """

    case: Case
    comparison: Comparison
    rule: str
    explained: int = 0
    elements: int = 0
    lucky: int = 0
    examples: int = 0

    @property
    def passed(self) -> bool:
        """Whether the port equals the original within the rule."""
        return self.comparison.passed

    @property
    def max_abs(self) -> float:
        """The largest absolute difference between port and original."""
        return max((row.max_abs for row in self.comparison.rows), default=float("nan"))

    @property
    def word(self) -> str:
        """One word for the table."""
        if not self.passed:
            return "DIFFERENT"
        if self.explained:
            return f"equal, {self.explained} of {self.elements} signs within noise"
        if self.lucky:
            return f"equal, {self.lucky} of {self.examples} examples by float64"
        return "bit-equal" if self.max_abs == 0 else "equal"


def judge(
    case: Case,
    data: Data,
    expected: Arrays,
    actual: Arrays,
    iterate: Iterate,
    in_float64: Callable[[], Arrays],
) -> Verdict:
    """Judges a case.

    Args:
        case: The case.
        data: The batch.
        expected: The original's arrays, with the judge's (see `Originals.run`).
        actual: The port's arrays.
        iterate: turns -> the port's arrays when it stops after that many steps.
        in_float64: The port's arrays in float64; asked for only where float32 needs it.

    Returns:
        The verdict.
    """
    compared = _COMPARED[case.kind]
    theirs = {name: a for name, a in expected.items() if name.split("/")[0] in compared}
    if case.kind == "direction":
        return _judge_direction(case, theirs, actual)
    if case.kind == "train":
        return _judge_training(case, expected, theirs, actual)
    if case.dtype == "float64":
        return _judge_float64(case, data, expected, theirs, actual)
    if norm_of(case) == "l2":
        return _judge_by_truth(case, data, expected, theirs, actual, in_float64)
    return _judge_signs(case, data, expected, theirs, dict(actual), iterate, in_float64)


_COMPARED = {"perturb": ("adv",), "train": ("loss", "grad", "after"), "direction": ("direction",)}


def _judge_direction(case: Case, theirs: Arrays, actual: Arrays) -> Verdict:
    if norm_of(case) != "l2":
        comparison = compare(theirs, actual, title=case.name)
        return Verdict(case, comparison, "the same bits")
    truth = ascent({"x": case_gradient(case).astype(np.float64)}, "l2")["x"]
    ulp = np.spacing(np.abs(truth).astype(np.float32)).astype(np.float64)
    units = {
        side: {"ulps from float64": np.abs(arrays["direction/x"] - truth) / ulp}
        for side, arrays in (("port", actual), ("original", theirs))
    }
    zero = {"ulps from float64": np.zeros_like(truth)}
    comparison = compare(zero, units["port"], atol=_MAX_ULPS, title=case.name)
    original = units["original"]["ulps from float64"].max()
    port = units["port"]["ulps from float64"].max()
    rule = f"at most {_MAX_ULPS:g} ulp from float64: port {port:.2f}, original {original:.2f}"
    return Verdict(case, comparison, rule)


def _judge_training(case: Case, expected: Arrays, theirs: Arrays, actual: Arrays) -> Verdict:
    """By the slack alone, which is stricter; by distance from float64 where that is too strict."""
    exact = case.dtype == "float64"
    parts = []
    for name in dict.fromkeys([*theirs, *(n for n in actual if _is_compared(case, n))]):
        size = float(np.abs(theirs[name]).max()) if name in theirs and theirs[name].size else 0.0
        if exact:
            slack = _FLOAT64_TOLERANCE * max(1.0, size)
        else:
            slack = 1e-6 * (1 + size) if name == "loss" else 1e-5 * size
        pair = [{name: side[name]} if name in side else {} for side in (theirs, actual)]
        part = compare(pair[0], pair[1], atol=slack)
        if not part and not exact and f"truth/{name}" in expected:
            truth = {name: expected[f"truth/{name}"]}
            part = compare_to_truth(pair[0], pair[1], truth, slack=slack, per_example=False)
        parts.append(part)
    rule = "float64, 1e-11" if exact else "loss 1e-6 (1 + |loss|), gradients 1e-5 of the largest"
    return Verdict(case, Comparison.join(case.name, parts), rule)


def _is_compared(case: Case, name: str) -> bool:
    return not (case.library == "cleverhans3" and "moving_" in name)


def _judge_float64(
    case: Case, data: Data, expected: Arrays, theirs: Arrays, actual: Arrays
) -> Verdict:
    """Within 1e-11; signs may differ only where the gradient is nothing beside its largest."""
    ours = dict(actual)
    excused = 0
    if norm_of(case) == "linf":
        for name in data.x:
            g = np.abs(expected[f"gradient64/{name}"])
            largest = g.reshape(len(g), -1).max(axis=1).reshape(-1, *[1] * (g.ndim - 1))
            nothing = g <= 1e-12 * largest
            excused += int((nothing & (theirs[f"adv/{name}"] != ours[f"adv/{name}"])).sum())
            ours[f"adv/{name}"] = np.where(nothing, theirs[f"adv/{name}"], ours[f"adv/{name}"])
    comparison = compare(theirs, ours, atol=_FLOAT64_TOLERANCE, title=case.name)
    return Verdict(case, comparison, "float64, 1e-11", excused)


def _length(case: Case) -> float:
    """How long the perturbation may be: the radius of iterated steps, else the step."""
    params = case.params
    step = params.get("adv_step_size", 0.001) if case.library == "nsl" else params.get("eps", 0.3)
    return abs(float(params.get("pgd_epsilon", step)))


def _slack(case: Case, data: Data) -> float:
    """One unit in the last place of x, and under L2 1e-6 of the perturbation's length."""
    largest = max(float(np.abs(x).max()) for x in data.x.values())
    unit = float(np.spacing(np.float32(max(largest, _length(case)))))
    return unit + (1e-6 * _length(case) if norm_of(case) == "l2" else 0.0)


def _judge_by_truth(
    case: Case,
    data: Data,
    expected: Arrays,
    theirs: Arrays,
    actual: Arrays,
    in_float64: Callable[[], Arrays],
) -> Verdict:
    truth = {f"adv/{name}": expected[f"truth/{name}"] for name in data.x}
    slack = _slack(case, data)
    ours = {k: v for k, v in actual.items() if k in theirs}
    strict = compare_to_truth(theirs, ours, truth, slack=slack)
    rule = f"at most 4 times the original's distance from float64, plus {slack:.1e}"
    rows, excused = strict.rows, 0
    if not strict and set(ours) == set(theirs):
        lenient, excused = _excuse_luck(theirs, ours, truth, slack, in_float64)
        rows = lenient.rows if lenient else strict.rows
        excused = excused if lenient else 0
    # Where float64 and the original disagree grossly, the truth would excuse anything.
    typical = max(float(np.median(np.abs(theirs[k] - truth[k]))) for k in theirs)
    check = compare(
        {"original against float64, median": np.zeros(1)},
        {"original against float64, median": np.array([typical])},
        atol=_TRUTH_LIMIT * _length(case),
    )
    comparison = Comparison(case.name, (*rows, *check.failures))
    return Verdict(case, comparison, rule, lucky=excused, examples=len(data.y))


def _excuse_luck(
    theirs: Arrays, ours: Arrays, truth: Arrays, slack: float, in_float64: Callable[[], Arrays]
) -> tuple[Comparison, int]:
    """Examples in which the original lies near float64 by luck, so that 4 times that is nothing.

    Each must have the right value when the port runs in float64, and in float32 be no further from
    it than 4 times the original is anywhere in the batch; at most 1% of the examples, or one.
    """
    exact = in_float64()
    excused, count = {}, 0
    for key, original in theirs.items():
        far, near = (_per_example(side - truth[key]) for side in (ours[key], original))
        beyond = far > 4 * near + slack
        right = _per_example(exact[key] - truth[key]) <= _LUCK_TOLERANCE
        excusable = beyond & right & (far <= 4 * near.max() + slack)
        if excusable.sum() <= max(1, len(far) // 100):
            count = max(count, int(excusable.sum()))
            rows = _rows(excusable, original)
            excused[key] = np.where(rows, original, ours[key])
        else:
            excused[key] = ours[key]
    return compare_to_truth(theirs, excused, truth, slack=slack), count


def _per_example(array: Array) -> Array:
    found: Array = np.abs(array).reshape(len(array), -1).max(axis=1)
    return found


def _judge_signs(
    case: Case,
    data: Data,
    expected: Arrays,
    theirs: Arrays,
    actual: dict[str, Array],
    iterate: Iterate,
    in_float64: Callable[[], Arrays],
) -> Verdict:
    """Signs first; elements whose flip is explained count as equal for the values."""
    if all(k in actual and np.array_equal(theirs[k], actual[k]) for k in theirs):
        return Verdict(case, compare(theirs, actual, title=case.name), "the same bits")
    turns = iterations(case)
    verdicts: dict[str, SignVerdict] = {}
    if turns > 1 and norm_of(case) == "linf":
        verdicts, diverged = _first_differences(data, expected, iterate, turns)
        for key, rows in diverged.items():
            actual[key] = np.where(rows, theirs[key], actual[key])
    else:
        for name, x in data.x.items():
            key = f"adv/{name}"
            verdicts[key] = judge_signs(
                theirs[key],
                actual[key],
                expected[f"gradient/{name}"],
                expected[f"gradient64/{name}"],
                norm=norm_of(case),
                x=x,
            )
            flipped = np.sign(theirs[key] - x) != np.sign(actual[key] - x)
            actual[key] = np.where(flipped, theirs[key], actual[key])
    values = _judge_by_truth(case, data, expected, theirs, actual, in_float64)
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


def _first_differences(
    data: Data, expected: Arrays, iterate: Iterate, turns: int
) -> tuple[dict[str, SignVerdict], dict[str, Array]]:
    """Judges each example at the first iterate at which the two sides differ."""
    verdicts: dict[str, SignVerdict] = {}
    diverged: dict[str, Array] = {}
    for name, x in data.x.items():
        before = x
        gone = np.zeros(len(x), bool)
        for turn in range(1, turns + 1):
            theirs = expected[f"iterate/{turn}/{name}"]
            ours = np.where(_rows(gone, x), theirs, iterate(turn)[f"adv/{name}"])
            if not np.array_equal(theirs, ours):
                verdicts[f"adv/{name}, step {turn}"] = judge_signs(
                    theirs,
                    ours,
                    expected[f"gradient/{turn}/{name}"],
                    expected[f"gradient64/{turn}/{name}"],
                    norm="linf",
                    x=before,
                )
                flipped = np.sign(theirs - before) != np.sign(ours - before)
                gone |= flipped.reshape(len(x), -1).any(axis=1)
            before = theirs
        diverged[f"adv/{name}"] = _rows(gone, x)
    return verdicts, diverged


def _rows(examples: Array, like: Array) -> Array:
    return examples.reshape(-1, *[1] * (like.ndim - 1))
