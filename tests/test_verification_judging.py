"""Rounding or fault: how differences of float32 are judged."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx2torch")

from onnx import helper, numpy_helper
from onnx_models import FLOAT, dense, module_of, single
from planted_faults import Fault, ScaledInFloat32

from torchfgsm.comparison import Comparison
from torchfgsm.converters import ConvertedModel
from torchfgsm.converters.judging import judge
from torchfgsm.converters.measuring import Question, measure


class Judged:
    """A module and what an original would say that equals its float64."""

    def __init__(self, x: list[list[float]], fault: Any = None) -> None:
        # relu(0.3 - 3 x): at x = 0.1 the float32 sum rounds to 0, in float64 it is 7e-9.
        tail = [
            helper.make_node("Relu", ["z"], ["r"]),
            helper.make_node("MatMul", ["r", "second"], ["y"]),
        ]
        graph = dense([[-3.0, 1.0]], [0.3, 0.5], tail, [("y", FLOAT, [2])])
        second = single([[1, -1], [0.5, 2]])
        graph.graph.initializer.append(numpy_helper.from_array(second, "second"))
        self.model = module_of(graph)
        if fault is not None:
            self.model.network = Fault(self.model.network, fault)
        self.question = Question.about(self.model, {"x": single(x)})
        self.actual = self.compute(self.model, "float32")
        self.truth = self.compute(copy.deepcopy(self.model).double(), "float64")
        self.expected = {name: array.astype(np.float32) for name, array in self.truth.items()}

    def compute(
        self, model: ConvertedModel, precision: str, noise: float = 0.0
    ) -> dict[str, np.ndarray]:
        return measure(model, self.question.in_precision(precision, noise))

    def verdict(self, truth: dict[str, np.ndarray] | None) -> Comparison:
        parts = judge(self.model, self.compute, self.expected, self.actual, truth, "batch")
        return Comparison.join("", parts)


def test_a_relu_within_rounding_of_zero_is_no_fault() -> None:
    case = Judged([[0.1], [0.05]])
    gradients = case.actual["gradient x"], case.truth["gradient x"]
    assert not np.isclose(gradients[0][0], gradients[1][0], rtol=0.1)
    verdict = case.verdict(case.truth)
    assert verdict, verdict.to_text()
    assert any("in float64" in row.name for row in verdict.rows)
    assert case.verdict(None)


def test_a_jump_of_the_original_alone_is_no_fault() -> None:
    """As TensorFlow's own float32 gradient of ResNet50 is off by 1e-2 at one example."""
    case = Judged([[0.2], [0.05]])
    case.expected["gradient x"][0] *= 1.02
    verdict = case.verdict(case.truth)
    assert verdict, verdict.to_text()
    # But it does not excuse a module that is off as far.
    faulty = Judged([[0.2], [0.05]], ScaledInFloat32.apply)
    faulty.expected["gradient x"][0] *= 1.02
    assert not faulty.verdict(faulty.truth)


@pytest.mark.parametrize("x", [[[0.2], [0.05]], [[0.1], [0.05]]])
def test_a_wrong_gradient_is_a_fault_in_float64_too(x: list[list[float]]) -> None:
    case = Judged(x)
    for side in (case.truth, case.expected):
        side["gradient x"] = side["gradient x"] * np.float32(1.0001)
    failed = case.verdict(case.truth)
    assert {row.name.split(": ")[1] for row in failed.failures} == {"gradient x"}
    assert all(np.isfinite(row.tolerance_needed) for row in failed.failures)


def test_a_fault_of_float32_alone_is_not_taken_for_rounding() -> None:
    case = Judged([[0.2], [0.05]], ScaledInFloat32.apply)
    assert not case.verdict(case.truth)
    assert not case.verdict(None)
