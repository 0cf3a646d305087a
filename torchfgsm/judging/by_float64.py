"""Float32 results judged by float64: is a difference rounding noise, or a fault?

Two correct float32 programs differ by rounding. The judge is the original's own result in float64,
from the same weights. Signs are judged in `torchfgsm.judging.signs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from torchfgsm.judging.comparison import (
    Comparison,
    Difference,
    distance_between,
    first_index,
    measured_row,
    names_of_both,
    unequal_in_kind,
)


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
