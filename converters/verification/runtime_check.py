"""Compares a converted ONNX model's outputs with those of an ONNX runtime."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torchfgsm.converters.annotation import Array
from torchfgsm.converters.errors import ConversionError
from torchfgsm.converters.model import ConvertedModel
from torchfgsm.converters.onnx_side.precision import in_float64
from torchfgsm.converters.onnx_side.runtime import Run, runner
from torchfgsm.converters.verification.judging import (
    FACTOR,
    FLOAT32_TOLERANCE,
    FLOAT64_TOLERANCE,
    ROUNDING,
    Arrays,
    spread_of,
)
from torchfgsm.converters.verification.measuring import Question, is_float, measure, precision_of
from torchfgsm.converters.verification.overflow import told, without_overflow
from torchfgsm.converters.verification.scaled import compare_scaled, largest
from torchfgsm.judging.by_float64 import compare_to_truth
from torchfgsm.judging.comparison import Comparison


def compare_outputs(
    model: ConvertedModel, graph: Any, run: Run, question: Question, title: str
) -> list[Comparison]:
    """Returns how far the outputs are from the runtime's, and in float64 where float32 is unclear.

    Where a model makes rounding large, two correct programs disagree in float32. Then they must
    agree in float64, and the module's float32 may be off as the runtime's own float32 is, or as
    far as rounding moves it.

    Args:
        model: the module.
        graph: the ONNX model.
        run: calls it.
        question: the inputs.
        title: heading of the rows.
    """
    expected, actual = run(question.batch), measure(model, question)
    actual = {name: actual[name] for name in expected}
    wide_model = precision_of(model) == "float64"
    # ONNX holds an operation's attributes in float32, in a model of float64 too.
    tolerance = FLOAT64_TOLERANCE if wide_model else FLOAT32_TOLERANCE
    # ONNX Runtime's sigmoid and tanh are exact to the last digit of 1 alone, not of small values.
    part = compare_scaled(expected, actual, tolerance, title, per_example=False)
    unclear = {row.name for row in part.failures if row.name in expected}
    if not unclear or wide_model:
        return [part]
    wide = question.in_precision("float64")
    try:
        truth = runner(in_float64(graph), model.annotation)(wide.batch)
    except ConversionError:  # no runtime has all its operations in float64
        return [part]
    ours = measure(copy.deepcopy(model).double(), wide)
    truth, ours = ({n: side[n] for n in unclear} for side in (truth, ours))
    exact = compare_scaled(
        truth, ours, FLOAT64_TOLERANCE, f"{title}, in float64", per_example=False
    )
    sides = [{n: side[n] for n in unclear} for side in (expected, actual)]
    left, right, exactly, beyond = without_overflow(sides[0], sides[1], truth)
    slack = {n: tolerance * largest(a).max() * is_float(a) for n, a in exactly.items()}
    judged = compare_to_truth(left, right, exactly, factor=FACTOR, slack=slack, per_example=False)
    if not judged:
        judged = _but_for_rounding(model, question, (left, right), exactly, slack)
    again = {row.name: row for row in told(judged, beyond).rows}
    rows = tuple(again.get(row.name, row) for row in part.rows)
    return [Comparison(title, rows), exact]


def _but_for_rounding(
    model: ConvertedModel,
    question: Question,
    sides: Sequence[Arrays],
    truth: Arrays,
    slack: Mapping[str, float],
) -> Comparison:
    """Judges again, where each example may be as far off as rounding moves it.

    Where a variance is 0, as in a picture of one colour, a normalisation divides by next to
    nothing, and two correct programs differ by how they sum.
    """

    def compute(moved: ConvertedModel, precision: str, noise: float) -> dict[str, Array]:
        return measure(moved, question.in_precision(precision, noise))

    expected, actual = sides
    spread = spread_of(model, compute, actual, ROUNDING)
    allowed = {}
    for name, array in expected.items():
        own = largest(array - truth[name]).max() if is_float(array) else 0.0
        allowed[name] = slack[name] + FACTOR * (own + spread[name])
    return compare_to_truth(expected, actual, truth, factor=0.0, slack=allowed)
