"""What became of a draw, and the rules by which a disagreement is explained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.conversions.twins import Array
from benchmarks.evidence.differential_draws import Draw
from torchfgsm.judging.comparison import Difference
from torchfgsm.parity.cases import Case, norm_of
from torchfgsm.parity.judge_perturbation import per_example
from torchfgsm.parity.originals_side import iterations
from torchfgsm.parity.verdict import Verdict

SAME, FLOAT64, NOISE = "the same bits", "equal by float64", "signs within noise"
ALONE, CLOSE = "float32 noise alone", "extremes, within 1e-5"
COMPARED = (SAME, FLOAT64, NOISE, ALONE, CLOSE)
NOISE_ALLOWED = 0.01  # of all draws
REFUSED, FAULT, STRICT = "both refuse", "the original fails", "the port refuses by rule"
FINDINGS = DIFFERENT, UNCLEAR, PORT_REFUSES, ORIGINAL_REFUSES = (
    "DIFFERENT",
    "THE PORT'S REFUSAL IS UNCLEAR",
    "THE PORT REFUSES ALONE",
    "THE ORIGINAL REFUSES ALONE",
)
_REFUSALS = (ValueError, TypeError, NotImplementedError)
FORMULA_TOLERANCE = 1e-9
_APART = 1e-5  # of the largest entry of a training gradient
_NEAR = 4.0
_ROUNDING = 1e-6  # of the adversarial examples themselves


@dataclass(frozen=True)
class Outcome:
    """What became of a draw.

    Attributes:
        draw: The draw.
        word: One of the words above.
        detail: Why.
        signs: Signs that differ and that float noise explains.
    """

    draw: Draw
    word: str
    detail: str = ""
    signs: int = 0

    @property
    def found(self) -> bool:
        """Whether it is a disagreement that no rule explains."""
        return self.word in FINDINGS


def noise_alone(
    expected: Mapping[str, Array], ours: Mapping[str, Array], exact: Mapping[str, Array]
) -> bool:
    """Whether the original's gradient is nothing but rounding in every example that differs.

    There its float32 gradient is further from the float64 one than that is from zero, in the first
    step or a later one, and the port in float64 gives the float64 value.
    """
    noisy: Array = np.zeros((), bool)
    for name, gradient in expected.items():
        if name.startswith("gradient/"):
            true = expected[name.replace("gradient/", "gradient64/", 1)]
            noisy = noisy | (per_example(gradient - true) >= per_example(true))
    some = False
    for name, array in ours.items():
        right = _right(expected, exact, name)
        differs = per_example(array - expected[name]) > _ROUNDING
        if (differs & ~(noisy & right)).any():
            return False
        some = some or bool(differs.any())
    return some


def noise_in_training(
    expected: Mapping[str, Array],
    ours: Mapping[str, Array],
    exact: Mapping[str, Array],
    noise: Mapping[str, float],
) -> bool:
    """Whether the original is as far from float64 at inputs nearby, and near it here by luck.

    Args:
        expected: The original's arrays, with the float64 values.
        ours: The port's.
        exact: The port's in float64, which must be those values.
        noise: Name -> the original's largest distance from float64 at inputs nearby.
    """
    for name, array in ours.items():
        true = expected.get(f"truth/{name}")
        if true is None:
            return False
        size = np.abs(true).max()
        if np.abs(exact[name] - true).max() > FORMULA_TOLERANCE * max(1.0, size):
            return False
        if not np.abs(array - true).max() <= _NEAR * noise[name] + _APART * size:
            return False
    return True


def close(
    expected: Mapping[str, Array], ours: Mapping[str, Array], examples: Sequence[int]
) -> bool:
    """Whether some examples agree within 1e-5."""
    rows = list(examples)
    return all(
        np.allclose(array[rows], ours[name][rows], rtol=1e-5, atol=1e-6, equal_nan=True)
        for name, array in expected.items()
    )


def refused(draw: Draw, ours: Exception | None, theirs: Exception | None) -> Outcome:
    """What became of a draw that a side refuses, or both."""
    kinds = {id(e): getattr(e, "kind", type(e).__name__) for e in (ours, theirs)}
    detail = "; ".join(
        f"{side}: {kinds[id(error)]}: {getattr(error, 'message', error)}"
        for side, error in (("port", ours), ("original", theirs))
        if error is not None
    )
    if ours is None:
        return Outcome(draw, FAULT if _known_fault(draw, theirs) else ORIGINAL_REFUSES, detail)
    if not isinstance(ours, _REFUSALS) or "\n" in str(ours):
        return Outcome(draw, UNCLEAR, detail)
    if theirs is not None:
        return Outcome(draw, REFUSED, detail)
    return Outcome(draw, STRICT if _stricter(draw.case) else PORT_REFUSES, detail)


def _stricter(case: Case) -> bool:
    """Whether the port is known to refuse what the original takes.

    That is one bound without the other, and no step; or a radius below 0.
    """
    one = ("clip_min" in case.params) != ("clip_max" in case.params)
    unseen = case.library == "cleverhans-torch" and one and iterations(case) == 0
    return unseen or (iterated(case) and case.params["eps"] < 0)


def _known_fault(draw: Draw, error: Exception | None) -> bool:
    """Whether the port is known not to copy this failure of the original."""
    case, text = draw.case, str(error)
    if case.library == "cleverhans3":
        # Iterated steps check their own input, which NaN fails.
        checked = "clip_min" in case.params or "clip_min" in case.extras
        if draw.batch.extreme and iterated(case) and checked:
            return "assert" in text
        return case.dtype == "float64" and (norm_of(case) != "linf" or iterated(case))
    if case.library == "cleverhans-tf2":  # numpy.all of checks of several shapes
        return bool(case.params.get("sanity_checks")) and "inhomogeneous shape" in text
    # On a zero gradient and on some ties.
    torch = case.library == "cleverhans-torch"
    return torch and norm_of(case) != "linf" and isinstance(error, AssertionError)


def iterated(case: Case) -> bool:
    """Whether an attack of CleverHans is an iterated one, if of one step."""
    return "nb_iter" in case.params


def unclipped(case: Case) -> bool:
    """Whether CleverHans' torch part returns the input as it is, beyond its bounds too."""
    steps = (case.params.get("eps"), case.params.get("eps_iter"))
    return case.library == "cleverhans-torch" and 0.0 in steps


def clipped(case: Case, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Arrays within the bounds of a case."""
    low, high = case.params.get("clip_min", -np.inf), case.params.get("clip_max", np.inf)
    return {name: np.clip(array, low, high) for name, array in arrays.items()}


def judged(draw: Draw, verdict: Verdict) -> Outcome:
    """What a verdict says of a draw.

    At most 0.1% of the signs may be explained by noise, which no few dozen numbers can keep to: all
    draws together have a limit, `NOISE_ALLOWED`.
    """
    failures = verdict.comparison.failures
    if any(not _explained(row) for row in failures):
        return Outcome(draw, DIFFERENT, verdict.comparison.to_text(), verdict.explained)
    word = NOISE if verdict.explained else FLOAT64
    return Outcome(draw, word, verdict.rule, verdict.explained)


def _explained(row: Difference) -> bool:
    """Whether it is a row of signs, all explained, that are only too many."""
    counts = row.measured
    return "explained" in counts and counts["explained"] == counts["mismatches"]


def near_noise(
    found: Outcome, verdict: Verdict, expected: Mapping[str, Array], exact: Mapping[str, Array]
) -> Outcome:
    """Signs whose gradient is at most 4 times the original's error in the same example.

    The error is the largest of so few numbers that it says little; 4 times is what values may be
    off as well. The port in float64 must give the float64 value.
    """
    counts = [row.measured for row in verdict.comparison.failures]
    near = all("explained" in c and c["ratio"] <= _NEAR for c in counts)
    if not near or not all(_right(expected, exact, name).all() for name in exact):
        return found
    signs = sum(int(c["mismatches"]) for c in counts)
    return Outcome(found.draw, NOISE, found.detail, max(signs, verdict.explained))


def _right(expected: Mapping[str, Array], exact: Mapping[str, Array], name: str) -> Array:
    """In which examples the port in float64 gives the float64 value."""
    true = expected[name.replace("adv/", "truth/", 1)]
    return per_example(exact[name] - true) <= FORMULA_TOLERANCE
