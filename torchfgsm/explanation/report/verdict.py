"""The answer in a few sentences: whether two sides differ, by how much, and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from torchfgsm.explanation.report.formatting import number, share, shown
from torchfgsm.explanation.result import Array, Explanation, Measures


def names(explanation: Explanation) -> tuple[str, str]:
    """What the two sides are called; a library against itself is told apart by a letter."""
    a, b = explanation.a.configuration.title, explanation.b.configuration.title
    return (a, b) if a != b else (f"{a} (a)", f"{b} (b)")


def verdict(explanation: Explanation) -> tuple[str, ...]:
    """One to four sentences."""
    a, b = names(explanation)
    if not explanation.differs:
        return (f"Nothing differs: {a} and {b} give the same perturbation.", _idle(explanation))
    return (
        _how_far(explanation),
        *_causes(explanation),
        _what_it_does(explanation),
        *_mend(explanation),
    )


def distance_left(explanation: Explanation) -> float:
    """Relative L2 distance of a's perturbation from b's, with b's norm as the unit."""
    a, b = explanation.a.perturbations, explanation.b.perturbations
    distance = _norm({name: np.asarray(a[name], float) - b[name] for name in b})
    norm = _norm(b)
    if norm == 0:
        return math.inf if distance else 0.0
    return distance / norm


def _norm(arrays: Mapping[str, Array]) -> float:
    return math.hypot(*(float(np.linalg.norm(v.astype(float).ravel())) for v in arrays.values()))


def _idle(explanation: Explanation) -> str:
    fields = [effect.name for effect in explanation.effects]
    if not fields:
        return "The two recipes are the same in every field."
    differ = "differs" if len(fields) == 1 else "differ"
    return f"{', '.join(fields)} {differ}, without an effect on this model and batch."


def _how_far(explanation: Explanation) -> str:
    (a, b), total = names(explanation), explanation.total
    if total.examples == 0:
        return (
            f"{a} and {b} differ by rounding alone: their perturbations are "
            f"{number(total.relative_l2)} apart in relative L2, and no entry by more than a "
            "thousandth of its example's largest."
        )
    count = len(next(iter(explanation.inputs.values())))
    return (
        f"{a} and {b} differ: b's perturbation is {number(total.relative_l2)} away from a's in "
        f"relative L2, {share(total.sign_flips)} of its signs differ, and {total.examples} of "
        f"{count} examples are moved in another way."
    )


def _causes(explanation: Explanation) -> tuple[str, ...]:
    """The choice that moves most, and the one that flips most signs where it is another."""
    longest, size = _largest(explanation, lambda m: m.relative_l2)
    turning, flips = _largest(explanation, lambda m: m.sign_flips)
    found = []
    if longest:
        found.append(
            f"The largest cause is {longest}: by itself it moves the perturbation by up to "
            f"{number(size)} in relative L2."
        )
    if turning and turning != longest:
        found.append(f"Most signs change through {turning}: {share(flips)}.")
    return tuple(found)


def _largest(explanation: Explanation, size: Callable[[Measures], float]) -> tuple[str, float]:
    """The choice of the largest effect from either end, and that effect; "" for none."""
    found: list[tuple[float, str]] = []
    alone = set()
    for effect in explanation.effects:
        sizes = [_sortable(size(m)) for m in (effect.from_a, effect.from_b) if m is not None]
        if sizes:
            alone.add(effect.name)
            values = " against ".join(map(shown, effect.values))
            found.append((max(sizes), f"{effect.name} ({values})"))
    # Fields that only go together are a choice of their own.
    for step in explanation.path:
        if len(step.names) > 1 and not alone.intersection(step.names):
            found.append((_sortable(size(step.change)), " with ".join(step.names)))
    largest, name = max(found, key=lambda pair: pair[0], default=(0.0, ""))
    return (name, largest) if largest > 0 else ("", 0.0)


def _sortable(value: float) -> float:
    """What is undefined counts as the largest."""
    return math.inf if math.isnan(value) else value


def _what_it_does(explanation: Explanation) -> str:
    a, b = names(explanation)
    return (
        f"Accuracy is {share(explanation.clean_accuracy)} on the clean examples, "
        f"{share(explanation.a.accuracy)} under {a} and {share(explanation.b.accuracy)} under {b}."
    )


def _mend(explanation: Explanation) -> tuple[str, ...]:
    """Which side can be made like the other."""
    if not explanation.equal:
        return ()
    called = dict(zip("ab", names(explanation), strict=True))
    able = [called[settings.side] for settings in explanation.equal if not settings.reason]
    if not able:
        return ("No configuration of either library makes them equal; the reasons are below.",)
    return (f"The settings of {' or of '.join(able)} that make them equal are below.",)
