"""Judging perturbations: in float64, by their distance from it, and less what rounding did."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from torchfgsm.judging.by_float64 import compare_to_truth
from torchfgsm.judging.comparison import Comparison, compare
from torchfgsm.judging.label_slope import LabelSlope, rounding, saturated
from torchfgsm.parity.cases import Case, norm_of
from torchfgsm.parity.data import Array, Data
from torchfgsm.parity.exact_port import ExactPort
from torchfgsm.parity.originals_side import iterations
from torchfgsm.parity.truth import Inputs, true_adversarial
from torchfgsm.parity.verdict import Verdict

_SECTIONS = 60
_GOLDEN = (5**0.5 - 1) / 2


def without_rounding(
    case: Case,
    data: Data,
    expected: Mapping[str, Array],
    side: Mapping[str, Array],
    dtype: str = "float32",
    head: Mapping[str, LabelSlope] | None = None,
) -> tuple[dict[str, Array], Array]:
    """One side's adversarial examples, less what its rounding of the label's slope did to them.

    That is one number for an example, no larger than what `rounding` allows; the one that brings
    the float64 value of the attack nearest to the side's.

    Args:
        case: A case of one step.
        data: The batch.
        expected: What judges it, with label_slope/<input> and label_miss.
        side: adv/<input>.
        dtype: The floats that the side ran in.
        head: Input name -> what the rounding of the model's own softmax does, in its place.

    Returns:
        adv/<input>, and the number for each example (N,).
    """
    if head:
        directions = {name: label.slope for name, label in head.items()}
        limit = next(iter(head.values())).rounding
    else:
        directions = {name: expected[f"label_slope/{name}"] for name in data.x}
        limit = rounding(expected["label_miss"], data.classes, dtype)

    def at(error: Array) -> Inputs:
        slopes = {
            name: expected[f"gradient64/{name}"] + _column(error, x) * directions[name]
            for name, x in data.x.items()
        }
        return true_adversarial(case, data, lambda x, first: slopes)

    def distance(error: Array) -> Array:
        found: Array = np.zeros(len(limit))
        for name, value in at(error).items():
            square = (value - side[f"adv/{name}"]) ** 2
            found += square.reshape(len(square), -1).sum(axis=1)
        return found

    low, high = -limit, limit.copy()
    for _ in range(_SECTIONS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        nearer = distance(left) < distance(right)
        low, high = np.where(nearer, low, left), np.where(nearer, right, high)
    tried = np.stack([(low + high) / 2, np.zeros(len(limit))])
    best = tried[np.argmin([distance(error) for error in tried], axis=0), np.arange(len(limit))]
    there, here = at(best), at(np.zeros(len(limit)))
    return {f"adv/{n}": side[f"adv/{n}"] - (there[n] - here[n]) for n in data.x}, best


def _column(values: Array, like: Array) -> Array:
    return values.reshape(-1, *[1] * (like.ndim - 1))


Arrays = Mapping[str, Array]
Iterate = Callable[[int], Arrays]

FLOAT64_TOLERANCE = 1e-11
# A truth that the original itself misses by this share of the step is no judge.
_TRUTH_LIMIT = 0.05
# Of the step: what lies further from float64 than this may hang on the label's slope alone.
_GROSS = 1e-4
# Largest distance of the port from the truth when it runs in float64 itself.
_LUCK_TOLERANCE = 1e-9


def judge_float64(
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
    comparison = compare(theirs, ours, atol=FLOAT64_TOLERANCE, title=case.name)
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


def judge_by_truth(
    case: Case,
    data: Data,
    expected: Arrays,
    theirs: Arrays,
    actual: Arrays,
    in_float64: Callable[[], Arrays],
    exact: ExactPort | None = None,
) -> Verdict:
    """By each example's distance from float64, relative to the original's own distance."""
    truth = {f"adv/{name}": value for name, value in _truth(case, data, expected).items()}
    slack = _slack(case, data)
    ours: Arrays = {k: v for k, v in actual.items() if k in theirs}
    rule = f"at most 4 times the original's distance from float64, plus {slack:.1e}"
    near = compare(theirs, ours, atol=slack)
    rounded = 0
    if not near and set(ours) == set(theirs):
        theirs, ours, rounded = _without_rounding(case, data, expected, theirs, ours, slack, exact)
    strict = compare_to_truth(theirs, ours, truth, slack=slack)
    rows, excused = strict.rows, 0
    if not strict and set(ours) == set(theirs):
        lenient, excused = _excuse_luck(theirs, ours, truth, slack, in_float64)
        rows = lenient.rows if lenient else strict.rows
        excused = excused if lenient else 0
    if near:  # whatever the truth
        return Verdict(case, Comparison(case.name, rows), rule)
    # Where float64 and the original disagree grossly, the truth would excuse anything.
    typical = max(float(np.median(np.abs(theirs[k] - truth[k]))) for k in theirs)
    check = compare(
        {"original against float64, median": np.zeros(1)},
        {"original against float64, median": np.array([typical])},
        atol=_TRUTH_LIMIT * _length(case),
    )
    comparison = Comparison(case.name, (*rows, *check.failures))
    return Verdict(case, comparison, rule, lucky=excused + rounded, examples=len(data.y))


def _truth(case: Case, data: Data, expected: Arrays) -> Arrays:
    """The float64 values; of signs, which are judged by themselves, those of the original."""
    turns = iterations(case)
    first = f"gradient/{next(iter(data.x))}"
    if norm_of(case) == "l2" or (turns > 1 and norm_of(case) != "linf") or first not in expected:
        return {name: expected[f"truth/{name}"] for name in data.x}
    places = iter([""] if turns == 1 else [f"{turn}/" for turn in range(1, turns + 1)])

    def gradient(x: Arrays, first: bool) -> dict[str, Array]:
        place = next(places)
        return {n: np.asarray(expected[f"gradient/{place}{n}"], np.float64) for n in x}

    return true_adversarial(case, data, gradient)


def _without_rounding(
    case: Case,
    data: Data,
    expected: Arrays,
    theirs: Arrays,
    ours: Arrays,
    slack: float,
    exact: ExactPort | None,
) -> tuple[Arrays, Arrays, int]:
    """Both sides, without the rounding of the label's slope in the examples that hang on it.

    Those are where a side is further from float64 than rounding else takes it, or the port too far.
    """
    if (
        norm_of(case) != "l2"
        or iterations(case) != 1
        or f"gradient64/{next(iter(data.x))}" not in expected
    ):
        return theirs, ours, 0
    head = {} if exact is None else exact.head(data.x, gradients(expected, data.x))
    if not head and "label_miss" not in expected:
        return theirs, ours, 0
    gross = np.zeros(len(data.y), bool)
    for name in data.x:
        true = expected[f"truth/{name}"]
        far, near = (per_example(side[f"adv/{name}"] - true) for side in (ours, theirs))
        gross |= (np.maximum(far, near) > _GROSS * _length(case)) | (far > 4 * near + slack)
    found = [without_rounding(case, data, expected, side, head=head)[0] for side in (theirs, ours)]
    judged = [
        {
            key: np.where(rows_of(gross, array), new[key].astype(array.dtype), array)
            for key, array in side.items()
        }
        for new, side in zip(found, (theirs, ours), strict=True)
    ]
    return judged[0], judged[1], int(gross.sum())


def _excuse_luck(
    theirs: Arrays, ours: Arrays, truth: Arrays, slack: float, in_float64: Callable[[], Arrays]
) -> tuple[Comparison, int]:
    """Examples in which the original lies near float64 by luck, so that 4 times that is nothing.

    Each must have the right value when the port runs in float64, and in float32 be no further from
    it than 4 times the original is anywhere in the batch; and no more of them may there be than
    chance allows among the examples that rounding moves beyond the slack.
    """
    exact = in_float64()
    excused, count = {}, 0
    for key, original in theirs.items():
        far, near = (per_example(side - truth[key]) for side in (ours[key], original))
        beyond = far > 4 * near + slack
        right = per_example(exact[key] - truth[key]) <= _LUCK_TOLERANCE
        excusable = beyond & right & (far <= 4 * near.max() + slack)
        if excusable.sum() <= _by_chance(int((np.maximum(far, near) > slack).sum())):
            count = max(count, int(excusable.sum()))
            rows = rows_of(excusable, original)
            excused[key] = np.where(rows, original, ours[key])
        else:
            excused[key] = ours[key]
    return compare_to_truth(theirs, excused, truth, slack=slack), count


def _by_chance(count: int) -> float:
    """How many of so many examples may have 4 times the original's error, both being of one kind.

    Where the errors of both sides are one normal number each, one is more than 4 times the other
    with a probability of 2 / pi * atan(1 / 4), and seldomer where they are several numbers. Three
    standard deviations more, and one example always.
    """
    share = 2 / math.pi * math.atan(1 / 4)
    return max(1.0, count * share + 3 * math.sqrt(count * share * (1 - share)))


def per_example(array: Array) -> Array:
    """The largest absolute entry of each example."""
    found: Array = np.abs(array).reshape(len(array), -1).max(axis=1)
    return found


def saturated_examples(expected: Arrays) -> int:
    """How many examples have a label whose float32 softmax rounds to exactly 1."""
    miss = expected.get("label_miss")
    return 0 if miss is None else int(saturated(miss).sum())


def gradients(expected: Arrays, names: Iterable[str], turn: int = 0) -> Arrays:
    """The original's float64 gradients, of a step by its number."""
    return {
        name: expected[f"gradient64/{turn}/{name}" if turn else f"gradient64/{name}"]
        for name in names
    }


def rows_of(examples: Array, like: Array) -> Array:
    """A number for each example, so that it meets all entries of its example."""
    return examples.reshape(-1, *[1] * (like.ndim - 1))
