"""Whether the port's result of a case equals the original's, and by which rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from torchfgsm.judging.by_float64 import compare_to_truth
from torchfgsm.judging.comparison import Comparison, compare
from torchfgsm.parity import functions
from torchfgsm.parity.cases import Case, norm_of
from torchfgsm.parity.data import Array, Data
from torchfgsm.parity.exact_port import ExactPort
from torchfgsm.parity.judge_perturbation import (
    FLOAT64_TOLERANCE,
    Arrays,
    Iterate,
    judge_by_truth,
    judge_float64,
    saturated_examples,
)
from torchfgsm.parity.judge_signs import judge_signs_first
from torchfgsm.parity.verdict import Verdict

_MAX_ULPS = 3.0


def judge(
    case: Case,
    data: Data,
    expected: Arrays,
    actual: Arrays,
    iterate: Iterate,
    in_float64: Callable[[], Arrays],
    exact: ExactPort | None = None,
) -> Verdict:
    """Judges a case.

    Args:
        case: The case.
        data: The batch.
        expected: The original's arrays, with the judge's (see `Originals.run`).
        actual: The port's arrays.
        iterate: turns -> the port's arrays when it stops after that many steps.
        in_float64: The port's arrays in float64; asked for only where float32 needs it.
        exact: The port's own gradients in float64, asked for where nothing else explains a
            difference.

    Returns:
        The verdict.
    """
    theirs = compared(case, expected)
    if case.kind == "function":
        return _judge_function(case, theirs, actual)
    if case.kind == "train":
        return _judge_training(case, expected, theirs, actual)
    if case.dtype == "float64":
        return judge_float64(case, data, expected, theirs, actual)
    if norm_of(case) == "l2":
        found = judge_by_truth(case, data, expected, theirs, actual, in_float64, exact)
    else:
        ours = dict(actual)
        found = judge_signs_first(case, data, expected, theirs, ours, iterate, in_float64, exact)
    return replace(found, saturated=saturated_examples(expected), examples=len(data.y))


def compared(case: Case, expected: Arrays) -> dict[str, Array]:
    """Those of the original's arrays that are compared with the port's."""
    return {name: a for name, a in expected.items() if name.split("/")[0] in _COMPARED[case.kind]}


_COMPARED = {"perturb": ("adv",), "train": ("loss", "grad", "after"), "function": ("result",)}


def _judge_function(case: Case, theirs: Arrays, actual: Arrays) -> Verdict:
    """The same bits where nothing is rounded; L2 directions by ulps, the rest by the distances."""
    truth = functions.truth(case)
    if truth is None:
        return Verdict(case, compare(theirs, actual, title=case.name), "the same bits")
    if case.params["function"] != "direction":
        slack = functions.unit(case)
        judged = compare_to_truth(theirs, actual, {"result/x": truth}, slack=slack, title=case.name)
        return Verdict(case, judged, f"at most 4 times the original's distance plus {slack:.1e}")
    ulp = np.spacing(np.abs(truth).astype(np.float32)).astype(np.float64)
    units = {
        side: {"ulps from float64": np.abs(arrays["result/x"] - truth) / ulp}
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
            slack = FLOAT64_TOLERANCE * max(1.0, size)
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
