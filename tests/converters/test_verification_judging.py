"""Rounding or fault: how differences of float32 are judged."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("onnx2torch")

from onnx import helper, numpy_helper
from onnx_models import FLOAT, dense, graph_of, module_of, single
from planted_faults import Fault, ScaledInFloat32

from torchfgsm.converters import ConvertedModel
from torchfgsm.converters.verification.judging import judge
from torchfgsm.converters.verification.measuring import Question, measure
from torchfgsm.converters.verification.rounding import UNITS, OtherRounding
from torchfgsm.judging.comparison import Comparison


def relus() -> Any:
    """relu(0.3 - 3 x): at x = 0.1 the float32 sum rounds to 0, in float64 it is 7e-9."""
    tail = [
        helper.make_node("Relu", ["z"], ["r"]),
        helper.make_node("MatMul", ["r", "second"], ["y"]),
    ]
    graph = dense([[-3.0, 1.0]], [0.3, 0.5], tail, [("y", FLOAT, [2])])
    second = single([[1, -1], [0.5, 2]])
    graph.graph.initializer.append(numpy_helper.from_array(second, "second"))
    return graph


class Judged:
    """A module and what an original would say that equals its float64."""

    def __init__(self, x: list[list[float]], fault: Any = None, graph: Any = None) -> None:
        self.model = module_of(relus() if graph is None else graph)
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


# y0 = max(x @ a, x @ b), which tie but for rounding where all of x are equal.
A, B = [0.1, 0.2, 0.3], [0.3, 0.2, 0.1]
TIED, APART = [0.7, 0.7, 0.7], [0.7, 0.2, 0.1]  # apart, b wins


def tie(x: list[list[float]], winner: list[float]) -> Judged:
    """The module, and an original in which rounding let one of the two win."""
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["xa"]),
        helper.make_node("MatMul", ["x", "b"], ["xb"]),
        helper.make_node("Max", ["xa", "xb"], ["y"]),
    ]
    constants = {name: single([[w, 0.0] for w in side]) for name, side in (("a", A), ("b", B))}
    graph = graph_of(nodes, constants, [("x", FLOAT, [3])], [("y", FLOAT, [2])])
    case = Judged(x, graph=graph)
    linear = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    weight = {"w": single([[w, 0.0] for w in winner])}
    original = Judged(x, graph=graph_of(linear, weight, [("x", FLOAT, [3])], [("y", FLOAT, [2])]))
    case.truth, case.expected = original.truth, original.expected
    return case


@pytest.mark.parametrize("winner", [A, B])
@pytest.mark.parametrize("in_float64", [True, False])
def test_a_tie_that_rounding_decides_is_no_fault(winner: list[float], in_float64: bool) -> None:
    case = tie([TIED], winner)
    verdict = case.verdict(case.truth if in_float64 else None)
    assert verdict, verdict.to_text()


@pytest.mark.parametrize("in_float64", [True, False])
def test_a_tie_excuses_no_other_example(in_float64: bool) -> None:
    case = tie([TIED, APART], A)
    case.expected["output y"] = case.actual["output y"]
    failed = case.verdict(case.truth if in_float64 else None)
    assert "gradient x" in {row.name.split(": ")[1] for row in failed.failures}
    case = tie([TIED, APART], B)
    verdict = case.verdict(case.truth if in_float64 else None)
    assert verdict, verdict.to_text()


@pytest.mark.parametrize("in_float64", [True, False])
def test_a_kink_that_the_inputs_hit_exactly_is_judged(in_float64: bool) -> None:
    """At 0 rounding changes nothing: there relu is flat, and its gradient must be 0."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Relu", ["m"], ["y"])]
    graph = graph_of(nodes, {"w": single([[3.0]])}, [("x", FLOAT, [1])], [("y", FLOAT, [1])])
    case = Judged([[0.0], [0.5]], graph=graph)
    assert case.verdict(case.truth if in_float64 else None)
    for side in (case.truth, case.expected):
        side["gradient x"][0] = 3.0
    failed = case.verdict(case.truth if in_float64 else None)
    assert {row.name.split(": ")[1] for row in failed.failures} == {"gradient x"}


def cancelling(x: list[list[float]], fault: Any = None) -> Judged:
    """y = 1000 (x a - x b), nearly nothing of large sums: float32 keeps few of its digits."""
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["xa"]),
        helper.make_node("MatMul", ["x", "b"], ["xb"]),
        helper.make_node("Sub", ["xa", "xb"], ["y"]),
    ]
    constants = {"a": single([[1000.1], [999.9]]), "b": single([[1000.0], [1000.0]])}
    graph = graph_of(nodes, constants, [("x", FLOAT, [2])], [("y", FLOAT, [1])])
    return Judged(x, fault, graph)


def test_an_output_of_cancelled_sums_may_move_as_rounding_moves_it() -> None:
    case = cancelling([[0.7, 0.7003], [0.4, 0.4002]])
    truth = case.truth["output y"]
    off = np.abs(case.actual["output y"] - truth) / np.abs(truth)
    assert off.max() > 1e-5
    verdict = case.verdict(case.truth)
    assert verdict, verdict.to_text()


def test_a_wrong_output_of_cancelled_sums_is_a_fault() -> None:
    case = cancelling([[0.7, 0.7003], [0.4, 0.4002]])
    for side in (case.truth, case.expected):
        side["output y"] = side["output y"] * np.float32(1.00001)
    failed = case.verdict(case.truth)
    assert {row.name.split(": ")[1] for row in failed.failures} == {"output y"}


# f and x, where f's derivative is all but 0 and computed as a difference of numbers near 1.
SATURATED = [("Tanh", 7.0), ("Selu", -14.0)]


def saturated(operation: str, x: float, fault: Any = None) -> Judged:
    """y = f(x), on an example that saturates and on one that does not."""
    node = helper.make_node(operation, ["x"], ["y"])
    graph = graph_of([node], {}, [("x", FLOAT, [1])], [("y", FLOAT, [1])])
    return Judged([[x], [0.5]], fault, graph)


@pytest.mark.parametrize(("operation", "x"), SATURATED)
@pytest.mark.parametrize("in_float64", [True, False])
def test_the_last_digit_of_what_saturates_is_no_fault(
    operation: str, x: float, in_float64: bool
) -> None:
    case = saturated(operation, x)
    truth = case.truth["gradient x"]
    off = np.abs(case.actual["gradient x"] - truth) / np.abs(truth)
    assert off[0] > 1e-4 > off[1]
    verdict = case.verdict(case.truth if in_float64 else None)
    assert verdict, verdict.to_text()


@pytest.mark.parametrize(("operation", "x"), SATURATED)
def test_what_saturates_excuses_no_fault(operation: str, x: float) -> None:
    faulty = saturated(operation, x, ScaledInFloat32.apply)
    for truth in (faulty.truth, None):
        assert not faulty.verdict(truth)
    wrong = saturated(operation, x)
    for side in (wrong.truth, wrong.expected):
        side["gradient x"][0] *= np.float32(1.0001)
    failed = wrong.verdict(wrong.truth)
    assert {row.name.split(": ")[1] for row in failed.failures} == {"gradient x"}


def test_other_rounding_keeps_equal_numbers_equal_and_moves_derivatives() -> None:
    x = torch.tensor([7.0, 7.0, 0.0, -torch.inf], requires_grad=True)
    with OtherRounding(1):
        y = torch.tanh(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert y[0] == y[1] != torch.tanh(x[0])
    assert y[2] == 0
    assert abs(y[3] + 1) <= UNITS * 2.0**-23
    assert abs(gradient[2] - 1) <= 2 * UNITS * 2.0**-23
    exact = 1 / torch.cosh(x[:2].double()) ** 2
    assert 2.0**-23 < (gradient[:2] - exact).abs().max() <= 2 * UNITS * 2.0**-23
