"""Compares a converted model with its original: outputs, logits and input gradients."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from torchfgsm.converters.annotation import Array
from torchfgsm.converters.errors import ConversionError
from torchfgsm.converters.model import ConvertedModel
from torchfgsm.converters.onnx_side.precision import in_float64
from torchfgsm.converters.onnx_side.runtime import Run, runner
from torchfgsm.converters.verification.batches import Data, batches, hints_of
from torchfgsm.converters.verification.judging import (
    EXACT_TOLERANCE,
    FLOAT32_TOLERANCE,
    FLOAT64_TOLERANCE,
    compare_by_truth,
    judge,
)
from torchfgsm.converters.verification.measuring import Question, measure, named, precision_of
from torchfgsm.converters.verification.runtime_check import compare_outputs
from torchfgsm.converters.verification.scaled import compare_scaled
from torchfgsm.converters.verification.slopes import compare_slopes
from torchfgsm.judging.comparison import Comparison

if TYPE_CHECKING:
    from torchfgsm.converters.exporting import Exporter
    from torchfgsm.originals.process import Reply

Arrays = Mapping[str, Array]
_LAST_DIGIT = 2.0**-23
"""Of 1, in float32."""


def verify_with_tensorflow(
    model: ConvertedModel, exporter: Exporter, data: Data | None, graph: Any = None
) -> Comparison:
    """Compares with the original in its process, judged by its own float64 results.

    Outputs, logits and input gradients are compared for each example, on random inputs, on kinks
    and on the user's data; the gradient is that of the model's ``objectives``.

    Args:
        model: the module to judge.
        exporter: the TensorFlow side, which has exported the model.
        data: the user's examples; the first 64 are used.
        graph: the exported ONNX model. Its outputs are compared with TensorFlow's too, and it
            tells where its kinks are.
    """
    original = _Original(model, exporter)
    run = None if graph is None else runner(graph, model.annotation)
    hints = None if graph is None else hints_of(graph)
    parts: list[Comparison] = []
    numbers = False
    found = batches(model.annotation.inputs, data, hints)
    exporter.batches = len(found)
    for title, batch in found.items():
        question = Question.about(model, batch)
        actual = measure(model, question)
        if precision_of(model) == "float64":
            expected, truth = original.answer(question, "float64"), None
            parts.append(compare_scaled(expected, actual, EXACT_TOLERANCE, title))
        else:
            expected, truth = original.answer(question, "float32"), original.truth(question)
            compute = partial(_measure_in, question)
            parts += judge(model, compute, expected, actual, truth, title)
        numbers = numbers or _has_numbers(expected)
        if run is not None:
            name = f"{title}, ONNX file"
            parts.append(_compare_file(model, graph, run, batch, expected, truth, name))
    _refuse_no_numbers(numbers)
    return Comparison.join(_title(model, "TensorFlow", original.no_truth), parts)


def verify_with_onnx(model: ConvertedModel, graph: Any, data: Data | None) -> Comparison:
    """Compares outputs with an ONNX runtime, and gradients with differences in float64."""
    run = runner(graph, model.annotation)
    parts: list[Comparison] = []
    numbers = False
    for title, batch in batches(model.annotation.inputs, data, hints_of(graph)).items():
        question = Question.about(model, batch)
        numbers = numbers or _has_numbers(run(batch))
        parts += compare_outputs(model, graph, run, question, title)
        slopes = None if title.startswith("kinks") else compare_slopes(model, question, title)
        parts += [] if slopes is None else [slopes]
    _refuse_no_numbers(numbers)
    return Comparison.join(_title(model, "ONNX"), parts)


def _has_numbers(expected: Arrays) -> bool:
    return any(bool(np.isfinite(array).any()) for array in expected.values())


def _refuse_no_numbers(numbers: bool) -> None:
    """Refuses an original that gave no finite number: what it gives equals anything."""
    if not numbers:
        raise ConversionError(
            "all outputs of the original are NaN or infinite, so that nothing can be compared: "
            "look for infinite weights, or give data of the model's range"
        )


class _Original:
    """The model in TensorFlow."""

    def __init__(self, model: ConvertedModel, exporter: Exporter) -> None:
        self._model, self._exporter = model, exporter
        self.no_truth = ""
        """Why there is no float64 of it; empty where there is."""

    def answer(self, question: Question, precision: str) -> dict[str, Array]:
        """Returns what TensorFlow computes.

        Raises:
            ConversionError: it does not compute in that precision.
        """
        reply = self._ask(question, precision)
        if "unavailable" in reply.values:
            raise ConversionError(str(reply.values["unavailable"]))
        return named(self._model, reply.arrays)

    def truth(self, question: Question) -> dict[str, Array] | None:
        """Returns the same in float64, None where the model has no float64."""
        if self.no_truth:
            return None
        reply = self._ask(question, "float64")
        self.no_truth = str(reply.values.get("unavailable", ""))
        return None if self.no_truth else named(self._model, reply.arrays)

    def _ask(self, question: Question, precision: str) -> Reply:
        objectives = [objective.to_dict() for objective in question.objectives]
        return self._exporter.call(
            "evaluate", question.arrays(), objectives=objectives, precision=precision
        )


def _measure_in(
    question: Question, model: ConvertedModel, precision: str, noise: float
) -> dict[str, Array]:
    return measure(model, question.in_precision(precision, noise))


def _compare_file(
    model: ConvertedModel,
    graph: Any,
    run: Run,
    batch: Arrays,
    expected: Arrays,
    truth: Arrays | None,
    title: str,
) -> Comparison:
    """Compares the outputs of the ONNX file with TensorFlow's."""
    ours = run(batch)
    outputs = {name: expected[name] for name in ours}
    # ONNX Runtime's sigmoid and tanh are exact to the last digit of 1 alone, not of small values.
    compare = partial(compare_scaled, per_example=False, least=_LAST_DIGIT)
    part = compare(outputs, ours, _file_tolerance(model), title)
    if not part and truth is not None:
        part = compare_by_truth(outputs, ours, truth, title)
    if part or truth is None:
        return part
    # Where rounding is large in float32, the file's own operations are compared in float64.
    try:
        wide = runner(in_float64(graph), model.annotation)(
            Question.about(model, batch).in_precision("float64").batch
        )
    except ConversionError:  # no runtime has all its operations in float64
        return part
    exact = {name: truth[name] for name in ours}
    return compare(exact, wide, FLOAT64_TOLERANCE, f"{title}, in float64")


def _file_tolerance(model: ConvertedModel) -> float:
    """ONNX holds an operation's attributes in float32, in a model of float64 too."""
    return FLOAT64_TOLERANCE if precision_of(model) == "float64" else FLOAT32_TOLERANCE


def _title(model: ConvertedModel, other: str, no_truth: str = "") -> str:
    notes = []
    if not any(port.dtype.startswith("float") for port in model.annotation.inputs):
        notes.append("no input gradient exists: the inputs are whole numbers")
    if no_truth:
        notes.append(f"in float32 alone: {no_truth}")
    return f"converted model against {other}" + "".join(f" ({note})" for note in notes)
