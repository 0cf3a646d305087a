"""The table of verdicts, for people and for programs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from torchfgsm.judging.label_slope import saturation_sentence
from torchfgsm.parity.cases import Case
from torchfgsm.parity.verdict import Verdict

# What the originals do and the port does not, by library; see the dialects' documentation.
FAULTS_NOT_COPIED = {
    "nsl": "half-precision L2 gives NaN on a zero gradient; the port gives no step",
    "cleverhans3": "moving statistics of a Keras BatchNormalization never move in training; L2, L1 "
    "and iterated attacks fail on float64",
    "cleverhans-tf2": "float64 input is cast to float32; the port keeps float64",
    "cleverhans-torch": "gradients collect in the parameters, BatchNorm statistics move, float64 "
    "models fail, eps 0 returns the caller's own tensor, L1 and L2 raise AssertionError on zero "
    "gradients and some ties; the port gives the formula's value and leaves no trace",
}


def faults(libraries: Iterable[str]) -> str:
    """The faults of the compared originals that are not copied, a line each."""
    lines = [f"  {name}: {FAULTS_NOT_COPIED[name]}" for name in libraries]
    return "\n".join(["faults of the originals that are not copied:", *lines])


def row_of(verdict: Verdict) -> dict[str, Any]:
    """One verdict as a flat row of JSON-able values."""
    far = _from_float64(verdict)
    return {
        "case": verdict.case.name,
        "verdict": verdict.word,
        "passed": verdict.passed,
        "max_abs_difference": _finite(verdict.max_abs),
        "port_from_float64": far["port"],
        "original_from_float64": far["original"],
        "signs_within_noise": verdict.explained,
        "elements": verdict.elements,
        "examples_by_float64": verdict.lucky,
        "saturated_examples": verdict.saturated,
        "rule": verdict.rule,
        "note": verdict.case.note,
    }


def _from_float64(verdict: Verdict) -> dict[str, float | None]:
    """The largest distance of each side from float64, where it was measured."""
    measured = [row.measured for row in verdict.comparison.rows]
    return {
        side: max((m[side] for m in measured if side in m), default=None)
        for side in ("port", "original")
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def heading() -> str:
    """The table's first line."""
    return f"{'case':<62} {'verdict':<36} largest difference"


def line(verdict: Verdict) -> str:
    """A verdict as a line, followed by what failed."""
    text = f"{verdict.case.name:<62} {verdict.word:<36} {verdict.max_abs:<8.2g}"
    far = _from_float64(verdict)
    if None not in far.values():
        text += f" from float64: port {far['port']:.1e}, original {far['original']:.1e}"
    elif verdict.case.kind == "function" and verdict.max_abs > 0:
        text += f" {verdict.rule}"
    if verdict.case.note:
        text += f" ({verdict.case.note})"
    for row in verdict.comparison.failures:
        text += f"\n    {row.name}: {row.reason or 'differs'}, allowed {row.allowed or row.atol}"
        if row.first_bad is not None:
            text += f", first at {row.first_bad}"
    return text.rstrip()


def notes(libraries: Iterable[str], verdicts: Sequence[Verdict]) -> str:
    """What a reader has to know besides: the originals' faults, and saturation."""
    return "\n".join(filter(None, [faults(libraries), saturation(verdicts)]))


def saturation(verdicts: Iterable[Verdict]) -> str:
    """One sentence where examples' softmax rounds to 1, for the case that has most; else empty."""
    most = max(verdicts, key=lambda verdict: verdict.saturated, default=None)
    if most is None or not most.saturated:
        return ""
    return saturation_sentence(most.saturated, most.examples)


def summary(verdicts: Sequence[Verdict], failed: Sequence[tuple[Case, str]] = ()) -> str:
    """The last line: PASSED, DIFFERENT, or what could not be compared."""
    bad = [v for v in verdicts if not v.passed]
    exact = sum(v.word == "bit-equal" for v in verdicts)
    words = f"{len(verdicts)} compared, {exact} of them bit-equal, {len(bad)} different"
    if failed:
        return f"COULD NOT COMPARE {len(failed)} cases; {words}"
    if not verdicts:
        return "COULD NOT COMPARE: no cases"
    return ("DIFFERENT: " if bad else "PASSED: ") + words


def to_dict(
    verdicts: Sequence[Verdict],
    versions: dict[str, Any],
    failed: Sequence[tuple[Case, str]] = (),
) -> dict[str, Any]:
    """Everything as JSON-able values."""
    return {
        "passed": bool(verdicts) and all(v.passed for v in verdicts) and not failed,
        "summary": summary(verdicts, failed),
        "saturation": saturation(verdicts),
        "versions": versions,
        "rows": [row_of(v) for v in verdicts],
        "comparisons": {v.case.name: v.comparison.to_dict() for v in verdicts},
        "could_not_compare": {case.name: reason for case, reason in failed},
    }
