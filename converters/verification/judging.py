"""Is a difference between a converted model and its original rounding, or a fault?

Rounding is small, but where a relu lies within rounding of 0 it makes a float32 gradient jump, on
one side only. So float64 judges: the two sides must agree there, and a float32 gradient may lie as
far from it as it moves when weights, inputs, sums and what saturates change by a few times their
rounding. Numbers that tie but for rounding do so in float64 too: what moves there by other rounding
is not judged. Where the original's float32 overflows, float64 judges alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from torchfgsm.converters.annotation import Array
from torchfgsm.converters.model import ConvertedModel
from torchfgsm.converters.verification.measuring import is_float
from torchfgsm.converters.verification.overflow import told, without_overflow
from torchfgsm.converters.verification.rounding import UNITS, OtherRounding
from torchfgsm.converters.verification.scaled import column, compare_scaled, largest
from torchfgsm.judging.by_float64 import compare_to_truth
from torchfgsm.judging.comparison import Comparison

Arrays = Mapping[str, Array]
Compute = Callable[[ConvertedModel, str, float], dict[str, Array]]
"""Takes a module, the inputs' precision and how much noise is put on them, relative to each."""

FACTOR = 4.0
"""How many times as far from float64 as TensorFlow's float32 the module may be."""
SLACK = 1e-6
"""Allowed on top, relative to the largest entry of the example."""
FLOAT32_TOLERANCE = 1e-5
"""Relative to the example's largest entry, where two float32 results are compared."""
FLOAT64_TOLERANCE = 1e-6
"""The same in float64 for a model of float32; its ONNX file holds constants in float32."""
EXACT_TOLERANCE = 1e-12
"""The same for a model that was exported in float64."""
JUMP = 1e-4
"""From this distance between TensorFlow's float32 and float64 on, a derivative has jumped."""
_UNDERFLOW = 2.0**-100
"""Float32 results below this may have lost digits on the way, in numbers too small to have all."""
ROUNDING = UNITS * 2.0**-23
"""The change of a number of float32, as a share of it, by which rounding is imitated."""
_DRAWS = 4


def judge(
    model: ConvertedModel,
    compute: Compute,
    expected: Arrays,
    actual: Arrays,
    truth: Arrays | None,
    title: str,
    *,
    tolerance: float = FLOAT32_TOLERANCE,
) -> list[Comparison]:
    """Judges a module's float32 results.

    Args:
        model: the module.
        compute: gives the same results of a module.
        expected: the original's float32 results by name, (N, ...). Those whose name starts with
            "output" or "logits" are continuous: they have no kinks at which to jump.
        actual: the module's.
        truth: the original's results in float64, None where it has none.
        title: heading of the rows.
        tolerance: between float32 results, relative to the example's largest entry.

    Returns:
        The comparison in float32 and, where that needed it, the one in float64.
    """
    part = compare_by_truth(expected, actual, truth, title, tolerance)
    if part:
        return [part]
    alike = {n for n, a in expected.items() if n in actual and a.shape == actual[n].shape}
    unlike = [row for row in part.rows if row.name not in alike]
    if unlike:
        sides = [{n: a for n, a in side.items() if n in alike} for side in (expected, actual)]
        kept = None if truth is None else {n: a for n, a in truth.items() if n in alike}
        rest = judge(model, compute, sides[0], sides[1], kept, title, tolerance=tolerance)
        return [Comparison(title, tuple(unlike)), *(rest if alike else [])]
    return _judge_closely(model, compute, expected, actual, truth or {}, part, tolerance)


def _judge_closely(
    model: ConvertedModel,
    compute: Compute,
    expected: Arrays,
    actual: Arrays,
    truth: Arrays,
    part: Comparison,
    tolerance: float,
) -> list[Comparison]:
    """Asks float64, and how far rounding can move things, about a comparison that failed."""
    title = part.title
    whole = truth
    # Where float32 agrees there is nothing to ask: on a kink the constants' own rounding decides.
    doubted = _doubted(expected, actual, whole, tolerance)
    expected, actual, truth, beyond = without_overflow(expected, actual, truth)
    # Noise on the inputs moves them off a kink and would excuse a wrong derivative there, which
    # float64 does not.
    moving = {n: a for n, a in actual.items() if n in truth or not _is_continuous(n)}
    spread = spread_of(model, compute, moving, ROUNDING if truth else 0.0)
    wide = compute(copy.deepcopy(model).double(), "float64", 0.0)
    for name in expected.keys() - truth.keys():
        # The module's own rounding stands for the original's, which is not known.
        if is_float(actual[name]):
            rounding = largest(actual[name] - wide[name])
            limit = JUMP * largest(wide[name])
            spread[name] = np.maximum(spread.get(name, 0.0), np.minimum(rounding, limit))
    explained = told(_explained(expected, actual, truth, spread, title, tolerance), beyond)
    short = {row.name for row in part.failures if row.name in truth}
    if not short:
        return [explained]
    known = {
        name: np.where(column(doubted[name], array), wide[name], array)
        if name in doubted
        else array
        for name, array in whole.items()
    }
    exact = compare_scaled(whole, known, FLOAT64_TOLERANCE, f"{title}, in float64")
    exact = replace(exact, rows=tuple(row for row in exact.rows if row.name in short))
    if not exact:
        exact = _but_for_rounding(model, compute, whole, known, exact)
    wrong = {row.name for row in exact.failures}
    pairs = zip(part.rows, explained.rows, strict=True)
    rows = [first if first.passed or first.name in wrong else second for first, second in pairs]
    return [Comparison(title, tuple(rows)), exact]


def _but_for_rounding(
    model: ConvertedModel, compute: Compute, truth: Arrays, known: Arrays, exact: Comparison
) -> Comparison:
    """Compares again in float64, where what rounding alone decides there may differ."""
    generator = torch.Generator().manual_seed(0)
    names = {row.name for row in exact.failures if is_float(truth[row.name])}
    moves: dict[str, Array] = {name: np.zeros(len(known[name])) for name in names}
    for seed in range(_DRAWS):
        wide = copy.deepcopy(model).double()
        # The graph holds its constants in float32. Few digits, as in 1, were not rounded.
        for constant in filter(torch.is_floating_point, wide.network.buffers()):
            _move([constant], 2.0**-24 * (constant != constant.bfloat16()), generator)
        with OtherRounding(seed):
            arrays = compute(wide, "float64", 0.0)
        moves = {n: np.maximum(m, largest(arrays[n] - known[n])) for n, m in moves.items()}
    slack = {n: FLOAT64_TOLERANCE * largest(truth[n]) + FACTOR * m for n, m in moves.items()}
    sides = [{name: side[name] for name in names} for side in (truth, known)]
    again = compare_to_truth(sides[0], sides[1], sides[0], factor=0.0, slack=slack)
    passed = {row.name: row for row in again.rows if row.passed}
    return replace(exact, rows=tuple(passed.get(row.name, row) for row in exact.rows))


def compare_by_truth(
    expected: Arrays,
    actual: Arrays,
    truth: Arrays | None,
    title: str,
    tolerance: float = FLOAT32_TOLERANCE,
) -> Comparison:
    """Compares float32 results per example, by their distance from float64 where that is known.

    Examples on which the original's float32 has jumped away from its float64 are compared in
    float32: its distance from float64 would excuse anything.
    """
    judges, slack = _allowed(expected, truth, tolerance)
    return compare_to_truth(expected, actual, judges, factor=FACTOR, slack=slack, title=title)


def _doubted(expected: Arrays, actual: Arrays, truth: Arrays, tolerance: float) -> dict[str, Array]:
    """Tells for each example whether its float32 result is further than allowed, or infinite."""
    judges, slack = _allowed(expected, truth, tolerance)
    found = {}
    for name, exact in judges.items():
        if name in truth and is_float(exact):
            allowed = FACTOR * largest(expected[name] - exact) + slack[name]
            finite = np.isfinite(expected[name]).reshape(len(exact), -1).all(axis=1)
            found[name] = ~finite | ~(largest(actual[name] - exact) <= allowed)
    return found


def _allowed(
    expected: Arrays, truth: Arrays | None, tolerance: float
) -> tuple[dict[str, Array], dict[str, Array]]:
    """What judges each float32 result, and how far from it an example may be besides."""
    judges, slack = {}, {}
    for name, array in expected.items():
        judges[name], slack[name] = array, np.zeros(len(array))
        if not is_float(array):
            continue
        slack[name] = tolerance * largest(array)
        if truth is None or name not in truth or truth[name].shape != array.shape:
            continue
        far = _jumped(array, truth[name])
        judges[name] = np.where(column(far, array), array, truth[name])
        slack[name] = np.where(far, slack[name], SLACK * largest(truth[name]))
    return judges, slack


def _explained(
    expected: Arrays,
    actual: Arrays,
    truth: Arrays,
    spread: Arrays,
    title: str,
    tolerance: float,
) -> Comparison:
    """Compares again, where what can jump may lie as far away as it moves by rounding.

    Where the original's float32 has jumped, the nearer one of its two answers counts, and its
    distance from float64 excuses nothing.
    """
    originals, judges, slack = {}, {}, {}
    for name, array in expected.items():
        originals[name], judges[name] = array, truth.get(name, array)
        relative = SLACK if name in spread and name in truth else tolerance * is_float(array)
        slack[name] = relative * largest(judges[name]) + FACTOR * spread.get(name, 0.0)
        if is_float(array):
            exact, jumped = judges[name], _jumped(array, judges[name])
            nearer = largest(actual[name] - array) < largest(actual[name] - exact)
            judges[name] = np.where(column(jumped & nearer, array), array, exact)
            nearest = judges[name].astype(array.dtype)
            originals[name] = np.where(column(jumped, array), nearest, array)
            slack[name] += _UNDERFLOW
    return compare_to_truth(originals, actual, judges, factor=FACTOR, slack=slack, title=title)


def _jumped(array: Array, truth: Array) -> Array:
    """Tells for each example whether a float32 result is farther from float64 than rounding."""
    return np.asarray(largest(array - truth) > JUMP * largest(truth))


def spread_of(
    model: ConvertedModel, compute: Compute, center: Arrays, noise: float
) -> dict[str, Array]:
    """Returns how far results move when weights and sums change by rounding, (N,)."""
    generator = torch.Generator().manual_seed(0)
    found = {name: np.zeros(len(array)) for name, array in center.items()}
    for seed in range(_DRAWS):
        moved = copy.deepcopy(model)
        _move([*moved.weights.parameters(), *moved.weights.buffers()], ROUNDING, generator)
        with OtherRounding(seed):
            arrays = compute(moved, "float32", noise)
        found = {n: np.maximum(s, largest(arrays[n] - center[n])) for n, s in found.items()}
    return found


def _move(tensors: Iterable[Tensor], share: float | Tensor, generator: torch.Generator) -> None:
    """Changes each number in place by at most a share of it, at random."""
    with torch.no_grad():
        for tensor in tensors:
            draw = 2 * torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype) - 1
            tensor.mul_(1 + share * draw)


def _is_continuous(name: str) -> bool:
    """Whether a result cannot jump, as those behind a kink do."""
    return name.startswith(("output ", "logits "))
