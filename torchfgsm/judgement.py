"""Float32 results judged by float64: is a difference rounding noise, or a fault?

Two correct float32 programs differ by rounding, and where a gradient is almost zero its sign may
differ with it. The judge is the original's own result in float64, from the same weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from torchfgsm.comparison import (
    Comparison,
    Difference,
    distance_between,
    first_index,
    measured_row,
    names_of_both,
    unequal_in_kind,
)

_Floats = NDArray[np.float64]
_EXPLAINED_LIMIT = 1e-3
_WORST_KEPT = 10


@dataclass(frozen=True)
class SignMismatch:
    """One element whose sign differs between the original and the port.

    Attributes:
        index: index of the element, the example first.
        g64: |gradient| of the element in float64.
        noise: e, the original's largest float32 error in that example, where both sides agree.
        judged: what was judged: g64 (linf), or the largest distance between the |g64| of the
            places that compete for the maximum (l1).
        ratio: judged / allowed, where e (linf) or 2 e (l1) is allowed: explained up to 1.
        explained: whether rounding noise explains the mismatch.
    """

    index: tuple[int, ...]
    g64: float
    noise: float
    judged: float
    ratio: float
    explained: bool


@dataclass(frozen=True)
class SignVerdict:
    """The judgement of all signs of a batch; true when nothing is left unexplained.

    Attributes:
        elements: number of elements compared.
        mismatches: number of elements whose signs differ.
        explained: how many of these rounding noise explains.
        unexplained: how many of these it does not.
        worst: the mismatches with the largest ratios, worst first, at most ten.
    """

    elements: int
    mismatches: int
    explained: int
    unexplained: int
    worst: tuple[SignMismatch, ...]

    @property
    def passed(self) -> bool:
        """Whether elements were compared, all explained, and at most 0.1% needed explaining."""
        few = self.explained <= _EXPLAINED_LIMIT * self.elements
        return self.elements > 0 and not self.unexplained and few

    def __bool__(self) -> bool:
        return self.passed

    def to_text(self) -> str:
        """Returns one line per listed mismatch and a verdict line."""
        lines = [
            f"{m.index}: |g64| {m.g64:.3g}, e {m.noise:.3g}, judged {m.judged:.3g}, "
            f"ratio {m.ratio:.3g}, {'explained' if m.explained else 'NOT explained'}"
            for m in self.worst
        ]
        return "\n".join([*lines, f"{'PASSED' if self.passed else 'FAILED'}: {self.summary}"])

    @property
    def summary(self) -> str:
        """The counts in words."""
        if not self.elements:
            return "nothing compared"
        too_many = "" if self.passed or self.unexplained else ", more than 0.1% of the elements"
        return (
            f"{self.mismatches} of {self.elements} signs differ, {self.explained} explained by "
            f"float32 noise{too_many}, {self.unexplained} unexplained"
        )

    def to_difference(self, name: str) -> Difference:
        """Returns the verdict as a row, so that a `Comparison` can hold it."""
        worst = self.worst[0] if self.worst else None
        counts = {"mismatches": self.mismatches, "explained": self.explained}
        return Difference(
            name,
            (self.elements,),
            first_bad=worst.index if worst and not self.passed else None,
            passed=self.passed,
            reason="" if self.passed else self.summary,
            allowed="signs, noise explained",
            measured={key: float(count) for key, count in counts.items()}
            | ({"ratio": worst.ratio} if worst else {}),
        )


def judge_signs(
    expected: np.ndarray,
    actual: np.ndarray,
    g32: np.ndarray,
    g64: np.ndarray,
    *,
    norm: str,
    x: np.ndarray | None = None,
) -> SignVerdict:
    """Judges every element at which two L-inf or L1 perturbations differ in sign.

    Let e be the original's largest |g32 - g64| over those elements of the example on which both
    sides' signs agree. A mismatch is explained in L-inf where |g64| <= e, and in L1, where noise
    moves the place of the maximum, where all the |g64| of the competing places lie within 2 e of
    each other and the steps there do not contradict each other's direction. More than 0.1% of
    the elements explained is a failure too.

    In PGD a flipped sign changes all later iterates. The caller passes the data of the first
    iterate at which the two sides differ: its steps, and the gradients at their common point.

    Args:
        expected: the original's perturbations or their signs, (N, ...); adversarial examples
            when `x` is given.
        actual: the port's, likewise.
        g32: the original's float32 input gradient, (N, ...).
        g64: the original's input gradient in float64, (N, ...).
        norm: "linf" or "l1".
        x: the unperturbed inputs, (N, ...).

    Raises:
        ValueError: another norm, or shapes that differ.
    """
    if norm not in ("linf", "l1"):
        raise ValueError(
            f"expected norm 'linf' or 'l1' (others have no signs to judge), got {norm!r}"
        )
    arrays = {"expected": expected, "actual": actual, "g32": g32, "g64": g64}
    shapes = {name: np.shape(array) for name, array in arrays.items()}
    if x is not None:
        shapes["x"] = np.shape(x)
    if len(set(shapes.values())) > 1 or not shapes["expected"]:
        raise ValueError(f"expected arrays of one shape (N, ...), got {shapes}")
    origin = 0.0 if x is None else np.asarray(x)
    signs = np.sign(np.asarray(expected) - origin), np.sign(np.asarray(actual) - origin)
    mismatches: list[SignMismatch] = []
    for example in np.unique(np.argwhere(~_same(*signs))[:, 0]):
        rows = tuple(np.asarray(a[example], dtype=np.float64) for a in (*signs, g32, g64))
        mismatches += [
            replace(m, index=(int(example), *m.index)) for m in _judge_example(*rows, norm=norm)
        ]
    explained = sum(m.explained for m in mismatches)
    worst = sorted(mismatches, key=lambda m: (m.explained, -m.ratio))[:_WORST_KEPT]
    return SignVerdict(
        signs[0].size, len(mismatches), explained, len(mismatches) - explained, tuple(worst)
    )


def _same(left: np.ndarray, right: np.ndarray) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = (left == right) | (np.isnan(left) & np.isnan(right))
    return same


def _judge_example(
    expected: _Floats, actual: _Floats, g32: _Floats, g64: _Floats, *, norm: str
) -> list[SignMismatch]:
    """Judges the mismatches of one example; the indices are within the example."""
    agree = _same(expected, actual)
    error = np.abs(g32 - g64)[agree]
    # Where nothing agrees, or the gradient is not finite, noise explains nothing.
    noise = float(error.max()) if error.size and np.isfinite(error).all() else 0.0
    places = np.argwhere(~agree)
    if norm == "l1" and expected.any() and actual.any():
        allowed, judged = 2 * noise, _gap(expected, actual, g64, noise)
    else:
        allowed, judged = noise, None
    mismatches = []
    for place in map(tuple, places.tolist()):
        size = float(np.abs(g64[place]))
        value = size if judged is None else judged
        ratio = value / allowed if allowed > 0 else (np.inf if value else 0.0)
        mismatches.append(SignMismatch(place, size, noise, value, ratio, value <= allowed))
    return mismatches


def _gap(expected: _Floats, actual: _Floats, g64: _Floats, noise: float) -> float:
    """Spread of |g64| over the places that either side chose; inf if directions contradict."""
    chosen = (expected != 0) | (actual != 0)
    size = np.abs(g64[chosen])
    along = np.sign(g64) * np.where(expected != 0, expected, actual)
    if (expected * actual < 0).any() or np.unique(along[chosen & (np.abs(g64) > noise)]).size > 1:
        return float("inf")
    return float(size.max() - size.min())


def compare_to_truth(
    expected32: Mapping[str, np.ndarray],
    actual32: Mapping[str, np.ndarray],
    truth64: Mapping[str, np.ndarray],
    *,
    factor: float = 4.0,
    slack: float | np.ndarray | Mapping[str, float | np.ndarray] = 0.0,
    per_example: bool = True,
    title: str = "",
) -> Comparison:
    """Judges float32 results by their distance from float64, relative to the original's own.

    Per example (axis 0) the port's largest distance from the truth may be at most `factor` times
    the original's largest distance in that example, plus the slack: float32 results of two
    correct programs differ by rounding, and a fixed tolerance would be loose or brittle.

    Args:
        expected32: the original's float32 results by name.
        actual32: the port's float32 results by name.
        truth64: the same results in float64 by name.
        factor: how many times the original's distance is allowed, >= 0.
        slack: absolute distance allowed on top: one number, an array (N,), an array of the
            results' shape (its largest entry per example counts), or one of these by name.
        per_example: False takes each whole array (a parameter gradient, a scalar loss) as one
            example.
        title: heading of the comparison.

    Returns:
        One row per name. `max_abs` and its neighbours compare the port with the original;
        `measured` holds "port" and "original", the largest distances from float64, and "ratio",
        the largest of the examples' quotients.

    Raises:
        ValueError: a slack of another shape.
        KeyError: the truth, or a slack given by name, lacks an array that both sides have.
    """
    rows = []
    for name in names_of_both(expected32, actual32):
        unequal = unequal_in_kind(name, expected32, actual32)
        if unequal is not None:
            rows.append(unequal)
            continue
        allowance = slack[name] if isinstance(slack, Mapping) else slack
        arrays = expected32[name], actual32[name], truth64[name]
        rows.append(_truth_difference(name, arrays, factor, np.asarray(allowance), per_example))
    return Comparison(title, tuple(rows))


def _truth_difference(
    name: str,
    arrays: tuple[np.ndarray, np.ndarray, np.ndarray],
    factor: float,
    slack: np.ndarray,
    per_example: bool,
) -> Difference:
    expected, actual, truth = map(np.asarray, arrays)
    if truth.shape != expected.shape:
        reason = f"shape {expected.shape} against {truth.shape} in float64"
        return Difference(name, expected.shape, reason=reason)
    examples = expected.shape[0] if per_example and expected.ndim else 1
    ours, theirs = distance_between(truth, actual), distance_between(truth, expected)
    port, original = (d.reshape(examples, -1).max(axis=1) for d in (ours, theirs))
    slack = slack.reshape(examples, -1).max(axis=1) if slack.ndim > 1 else slack
    if slack.shape not in ((), (1,), (examples,)):
        raise ValueError(f"{name}: expected slack of shape {(examples,)}, got {slack.shape}")
    excess = port - factor * np.where(np.isfinite(original), original, 0.0)
    bad = ~(excess <= slack) | np.isinf(port)
    comparable = (original > 0) & np.isfinite(original)
    quotient = np.divide(port, original, out=np.full_like(port, np.inf), where=comparable)
    worst = np.broadcast_to(bad[:, None], (examples, expected.size // examples))
    worst = worst.reshape(expected.shape)
    return replace(
        measured_row(name, expected, distance_between(expected, actual)),
        first_bad=first_index(worst & (ours == ours[worst].max())) if bad.any() else None,
        atol=float(slack.max()),
        tolerance_needed=max(0.0, float(excess.max())),
        passed=not bad.any(),
        reason=f"{int(bad.sum())} of {examples} examples too far from float64" * bool(bad.any()),
        allowed=f"{factor:.3g} x original + {float(slack.max()):.3g}",
        measured={
            "port": float(port.max()),
            "original": float(original.max()),
            "ratio": float(np.where(port == 0, 0.0, quotient).max()),
        },
    )
