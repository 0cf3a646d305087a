"""Compares a converted TFLite model with the TFLite interpreter, which knows outputs alone."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from torchfgsm.converters.annotation import Array
from torchfgsm.converters.exporting import Exporter
from torchfgsm.converters.model import ConvertedModel
from torchfgsm.converters.verification.batches import Data, batches, hints_of
from torchfgsm.converters.verification.judging import (
    FACTOR,
    FLOAT32_TOLERANCE,
    ROUNDING,
    Arrays,
    spread_of,
)
from torchfgsm.converters.verification.measuring import Question, is_float, measure
from torchfgsm.converters.verification.scaled import compare_scaled, largest
from torchfgsm.judging.by_float64 import compare_to_truth
from torchfgsm.judging.comparison import Comparison


def compare_outputs(
    model: ConvertedModel, source: Exporter, data: Data | None, graph: Any
) -> Comparison:
    """Returns how far the outputs are from the interpreter's, batch by batch.

    Args:
        model: the module.
        source: the TensorFlow side, which has exported the model.
        data: the user's examples.
        graph: the exported ONNX model, which tells where its kinks are.
    """
    parts: list[Comparison] = []
    for title, batch in batches(model.annotation.inputs, data, hints_of(graph)).items():
        reply = source.call("outputs", {f"input/{name}": x for name, x in batch.items()})
        names = enumerate(model.output_names)
        expected = {f"output {name}": reply.arrays[f"output/{i}"] for i, name in names}
        parts += _compare(model, Question.about(model, batch), expected, title)
    return Comparison.join("TFLite interpreter", parts)


def _compare(
    model: ConvertedModel, question: Question, expected: Arrays, title: str
) -> list[Comparison]:
    """Compares outputs, where that is not enough by how far rounding moves the module's own.

    The interpreter has no float64. Where the module's float32 rounds much, the interpreter's does
    too; it must lie near the module's float64, as a second float32 of the same model would.
    """
    actual = {name: array for name, array in measure(model, question).items() if name in expected}
    part = compare_scaled(expected, actual, FLOAT32_TOLERANCE, title, per_example=False)
    unclear = [row.name for row in part.failures if _alike(expected, actual, row.name)]
    if not unclear:
        return [part]

    def compute(moved: ConvertedModel, precision: str, noise: float) -> dict[str, Array]:
        return measure(moved, question.in_precision(precision, noise))

    exact = compute(copy.deepcopy(model).double(), "float64", 0.0)
    sides = (expected, actual, exact)
    theirs, ours, wide = ({n: s[n].astype(expected[n].dtype) for n in unclear} for s in sides)
    spread = spread_of(model, compute, ours, ROUNDING)
    slack = {}
    for name, array in theirs.items():
        own = np.maximum(spread[name], largest(ours[name] - exact[name]))
        slack[name] = FLOAT32_TOLERANCE * largest(array).max() + FACTOR * own
    judged = compare_to_truth(theirs, ours, theirs, factor=0.0, slack=slack)
    again = {row.name: row for row in judged.rows}
    rows = tuple(again.get(row.name, row) for row in part.rows)
    heading = f"{title}, float64 of the module"
    near = compare_to_truth(theirs, wide, theirs, factor=0.0, slack=slack, title=heading)
    return [Comparison(title, rows), near]


def _alike(expected: Arrays, actual: Arrays, name: str) -> bool:
    """Whether both sides have floating-point results of one shape under a name."""
    sides = [side.get(name) for side in (expected, actual)]
    known = [array for array in sides if array is not None and is_float(array)]
    return len(known) == len(sides) and known[0].shape == known[1].shape
