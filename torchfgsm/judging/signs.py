"""Signs of float32 gradients judged by float64: is a difference rounding noise, or a fault?

Where a gradient is almost zero its sign differs between two correct float32 programs. The judge is
the original's own gradient in float64, from the same weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from torchfgsm.judging.comparison import Difference
from torchfgsm.judging.label_slope import LabelSlope, error_of_both, moves

_Floats = NDArray[np.float64]
_EXPLAINED_LIMIT = 1e-3
_WORST_KEPT = 10
_SAME = 1e-9  # of its largest entry: two programs in float64


@dataclass(frozen=True)
class SignMismatch:
    """One element whose sign differs between the original and the port.

    Attributes:
        index: index of the element, the example first.
        g64: |gradient| of the element in float64.
        noise: e, the original's largest float32 error in that example, where both sides agree.
        judged: what was judged: g64 (linf), or the largest distance between the |g64| of the
            places that compete for the maximum (l1); or the error of the label's slope that
            explains all of the example.
        ratio: judged / allowed, where e (linf), 2 e (l1) or the rounding of the label's slope is
            allowed: explained up to 1.
        explained: whether rounding noise explains the mismatch.
        rounded: whether it is the rounding of the label's slope that does.
    """

    index: tuple[int, ...]
    g64: float
    noise: float
    judged: float
    ratio: float
    explained: bool
    rounded: bool = False


@dataclass(frozen=True)
class SignVerdict:
    """The judgement of all signs of a batch; true when nothing is left unexplained.

    Attributes:
        elements: number of elements compared.
        mismatches: number of elements whose signs differ.
        explained: how many of these rounding noise explains.
        unexplained: how many of these it does not.
        worst: the mismatches with the largest ratios, worst first, at most ten.
        rounded: how many of the explained ones are the rounding of the label's slope.
    """

    elements: int
    mismatches: int
    explained: int
    unexplained: int
    worst: tuple[SignMismatch, ...]
    rounded: int = 0

    @property
    def passed(self) -> bool:
        """Whether elements were compared, all explained, and at most 0.1% needed explaining.

        Those that the rounding of the label's slope explains may be more: it is computed, and one
        number has to explain all signs of an example.
        """
        few = self.explained - self.rounded <= _EXPLAINED_LIMIT * self.elements
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
        rounded = f" ({self.rounded} by that of a softmax near 1)" if self.rounded else ""
        too_many = "" if self.passed or self.unexplained else ", more than 0.1% of the elements"
        return (
            f"{self.mismatches} of {self.elements} signs differ, {self.explained} explained by "
            f"float32 noise{too_many}{rounded}, {self.unexplained} unexplained"
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
    label: LabelSlope | None = None,
    near: Callable[[int], np.ndarray] | None = None,
) -> SignVerdict:
    """Judges every element at which two L-inf or L1 perturbations differ in sign.

    Let e be the original's largest |g32 - g64| over those elements of the example on which both
    sides' signs agree. A mismatch is explained in L-inf where |g64| <= e, and in L1, where noise
    moves the place of the maximum, where all the |g64| of the competing places lie within 2 e of
    each other and the steps there do not contradict each other's direction. More than 0.1% of
    the elements explained is a failure too.

    With `label`, an example is explained as a whole where one error of the label's slope, no larger
    than its rounding, gives all of the port's signs; e is then what is left of the original's
    error without its own error of that slope. Such mismatches may be any number.

    With `near`, what is left is explained where the example lies on a kink: where at one of the
    points that rounding leads to the float64 gradient has all of the port's signs, within e.

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
        label: what the label's slope rounds to, where the loss is a softmax cross-entropy.
        near: example -> the float64 gradients (K, ...) at that example and at points that differ
            from it by rounding alone, of any scale; the first, at the example itself, must be its
            `g64`, or they explain nothing.

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
    steps = np.asarray(expected) - origin, np.asarray(actual) - origin
    signs = np.sign(steps[0]), np.sign(steps[1])
    mismatches: list[SignMismatch] = []
    for example in np.unique(np.argwhere(~_same(*signs))[:, 0]):
        left, right, own, true = (
            np.asarray(a[example], dtype=np.float64) for a in (*signs, g32, g64)
        )
        judged = _judge_example(left, right, own, true, norm=norm)
        pair = steps[0][example], steps[1][example]
        if label is not None:
            slope = np.asarray(label.slope[example], np.float64)
            limit = float(label.rounding[example])
            judged = _judge_label(judged, pair, (own, true), slope, limit, norm)
        if near is not None and not all(m.explained for m in judged):
            judged = _judge_kink(judged, pair, true, near(int(example)), norm)
        mismatches += [replace(m, index=(int(example), *m.index)) for m in judged]
    explained = sum(m.explained for m in mismatches)
    worst = sorted(mismatches, key=lambda m: (m.explained, -m.ratio))[:_WORST_KEPT]
    return SignVerdict(
        signs[0].size,
        len(mismatches),
        explained,
        len(mismatches) - explained,
        tuple(worst),
        sum(m.rounded for m in mismatches),
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


def _judge_label(
    mismatches: list[SignMismatch],
    steps: tuple[np.ndarray, np.ndarray],
    gradients: tuple[_Floats, _Floats],
    slope: _Floats,
    limit: float,
    norm: str,
) -> list[SignMismatch]:
    """The mismatches of one example, explained where errors of the label's slope do it."""
    found = error_of_both(steps, gradients, slope, limit, norm)
    if found is None:
        return mismatches
    noise, error = found
    return [
        replace(m, noise=noise, judged=error, ratio=error / limit, explained=True, rounded=True)
        for m in mismatches
    ]


def common_scale(own: np.ndarray, theirs: np.ndarray) -> float:
    """The positive factor that makes one float64 gradient the other; 0 where none does.

    Args:
        own: a gradient.
        theirs: a gradient of a multiple of the same loss, same shape.
    """
    size = float((own * own).sum())
    scale = float((own * theirs).sum()) / size if size else 0.0
    same = np.abs(scale * own - theirs).max() <= _SAME * np.abs(theirs).max()
    return scale if same and scale > 0 else 0.0


def _judge_kink(
    mismatches: list[SignMismatch],
    steps: tuple[np.ndarray, np.ndarray],
    g64: _Floats,
    near: np.ndarray,
    norm: str,
) -> list[SignMismatch]:
    """The mismatches of one example, explained where a gradient beside it has the port's signs."""
    scale = common_scale(near[0], g64)
    if not scale:
        return mismatches
    noise = mismatches[0].noise
    expected, actual = moves(steps[0]), moves(steps[1])
    # What the port alone did not move was stopped at a bound.
    wanted = np.where((actual == 0) & (norm == "linf"), -expected, actual)
    for gradient in scale * near[1:]:
        least = -noise if norm == "linf" else float(np.abs(gradient).max()) - 2 * noise
        if wanted.any() and ((wanted * gradient >= least) | (wanted == 0)).all():
            return [replace(m, explained=True) for m in mismatches]
    return mismatches


def _gap(expected: _Floats, actual: _Floats, g64: _Floats, noise: float) -> float:
    """Spread of |g64| over the places that either side chose; inf if directions contradict."""
    chosen = (expected != 0) | (actual != 0)
    size = np.abs(g64[chosen])
    along = np.sign(g64) * np.where(expected != 0, expected, actual)
    if (expected * actual < 0).any() or np.unique(along[chosen & (np.abs(g64) > noise)]).size > 1:
        return float("inf")
    return float(size.max() - size.min())
