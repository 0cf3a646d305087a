"""Rounding or fault, where an ONNX runtime and differences judge instead of TensorFlow."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("onnx")
pytest.importorskip("onnx2torch")

from onnx import TensorProto, helper, numpy_helper
from onnx_models import FLOAT, dense, graph_of, module_of, single
from planted_faults import Fault, OffByAThousandth, ScaledGradient

from torchfgsm.converters import ConvertedModel
from torchfgsm.converters.errors import ConversionError
from torchfgsm.converters.onnx_side.inference import infer
from torchfgsm.converters.onnx_side.precision import in_float64
from torchfgsm.converters.onnx_side.runtime import runner
from torchfgsm.converters.verification import runtime_check, slopes
from torchfgsm.converters.verification.interpreter_check import (
    compare_outputs as compare_with_interpreter,
)
from torchfgsm.converters.verification.measuring import Question, measure
from torchfgsm.judging.comparison import Comparison

node = helper.make_node


class Cancelled:
    """y = (x w + 10000) - 10000, which float32 rounds to 1e-3, and a runtime that rounds too."""

    def __init__(self, off: float = 4e-4, fault: Callable[[Tensor], Tensor] | None = None) -> None:
        tail = [node("Add", ["z", "big"], ["s"]), node("Sub", ["s", "big"], ["y"])]
        self.graph = dense([[1.0, -0.5], [0.3, 2.0]], [0.1, 0.2], tail, [("y", FLOAT, [2])])
        self.graph.graph.initializer.append(numpy_helper.from_array(single([1e4]), "big"))
        self.model = module_of(self.graph)
        self.question = Question.about(self.model, {"x": single([[0.3, 0.7], [0.11, 0.13]])})
        exact = measure(self.model.double(), self.question.in_precision("float64"))["output y"]
        self.model.float()
        self.runtime = {"output y": (exact + off).astype(np.float32)}
        if fault is not None:
            self.model.network = Fault(self.model.network, behind=lambda y: (fault(y[0]),))

    def verdict(self) -> Comparison:
        found = runtime_check.compare_outputs(
            self.model, self.graph, lambda batch: self.runtime, self.question, "batch"
        )
        return Comparison.join("", found)


def test_float64_judges_outputs_that_float32_leaves_open() -> None:
    verdict = Cancelled().verdict()
    assert verdict, verdict.to_text()
    single_row, wide_row = verdict.rows
    assert single_row.max_abs > 1e-4
    assert wide_row.name == "batch, in float64: output y"
    assert wide_row.max_abs < 1e-11


def test_a_wrong_operation_is_found_however_large_rounding_is() -> None:
    failed = Cancelled(fault=lambda y: y * (1 + 1e-5)).verdict().failures
    assert [row.name for row in failed] == ["batch, in float64: output y"]
    failed = Cancelled(fault=lambda y: y + 5e-3 * (y.dtype == torch.float32)).verdict().failures
    assert [row.name for row in failed] == ["batch: output y"]


def test_without_a_float64_runtime_float32_stays_the_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(graph: Any, annotation: Any) -> Any:
        raise ConversionError("no kernel")

    monkeypatch.setattr(runtime_check, "runner", refuses)
    assert [row.name for row in Cancelled().verdict().failures] == ["batch: output y"]
    assert Cancelled(off=0.0).verdict().rows[0].measured == {}


def test_the_graph_in_float64_computes_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """In branches, casts and constants of every kind, by ONNX Runtime and without it."""
    third, seventh = (numpy_helper.from_array(single([1 / n])) for n in (3, 7))
    made = [
        node("Constant", [], ["third"], value=third),
        node("Cast", ["count"], ["c"], to=FLOAT),
        node("ConstantOfShape", ["one"], ["seventh"], value=seventh),
        node("Mul", ["x", "third"], ["m"]),
        node("Add", ["m", "c"], ["a"]),
        node("Add", ["a", "seventh"], ["b"]),
    ]  # fmt: skip
    branches = {
        name: helper.make_graph(made, name, [], [helper.make_tensor_value_info("b", FLOAT, None)])
        for name in ("then_branch", "else_branch")
    }
    constants = {"yes": np.array(True), "count": np.array(2), "one": np.array([1])}
    graph = graph_of(
        [node("If", ["yes"], ["y"], **branches)],
        constants,
        [("x", FLOAT, [2])],
        [("y", FLOAT, [2])],
    )
    wide = in_float64(graph)
    assert graph.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    x = np.array([[0.1, 0.7]])
    expected = x * np.float64(np.float32(1 / 3)) + 2 + np.float64(np.float32(1 / 7))
    for _ in range(2):
        (y,) = runner(wide, infer(wide, "test"))({"x": x}).values()
        np.testing.assert_allclose(y, expected, rtol=1e-15)
        monkeypatch.setitem(sys.modules, "onnxruntime", None)


@pytest.mark.parametrize("sizes", [(5,), (2, 3), (2, 2, 3)])
def test_the_reference_evaluator_pools_in_any_rank(
    monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...]
) -> None:
    ends = [3, *[1] * len(sizes)]
    graph = graph_of(
        [node("GlobalMaxPool", ["x"], ["y"])], {}, [("x", FLOAT, [3, *sizes])], [("y", FLOAT, ends)]
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    x = np.random.default_rng(0).normal(size=(2, 3, *sizes)).astype(np.float32)
    (y,) = runner(graph, infer(graph, "test"))({"x": x}).values()
    assert np.array_equal(y.reshape(2, 3), x.reshape(2, 3, -1).max(axis=2))


def test_the_reference_evaluator_has_erf_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of([node("Erf", ["x"], ["y"])], {}, [("x", FLOAT, [1])], [("y", FLOAT, [1])])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    wide = in_float64(graph)
    (y,) = runner(wide, infer(wide, "test"))({"x": np.array([[4.0]])}).values()
    assert y.dtype == np.float64
    assert y.item() == math.erf(4.0) < 1


def kinked(distance: float) -> tuple[ConvertedModel, Question]:
    """x + 5 relu(x - k), where k lies at a distance ahead of where the differences start."""
    x = single([[0.3]])
    start = float(x[0, 0]) + 0.01 * float(np.random.default_rng(2).random((1, 1))[0, 0])
    coarse = np.float32(start)
    constants = {
        "coarse": single([coarse]), "fine": single([start - float(coarse) + distance]),
        "five": single([5.0]), "weight": single([[1.0]]),
    }  # fmt: skip
    nodes = [
        node("MatMul", ["x", "weight"], ["z"]),
        node("Sub", ["z", "coarse"], ["c"]),
        node("Sub", ["c", "fine"], ["f"]),
        node("Relu", ["f"], ["r"]),
        node("Mul", ["r", "five"], ["m"]),
        node("Add", ["m", "z"], ["y"]),
    ]
    model = module_of(graph_of(nodes, constants, [("x", FLOAT, [1])], [("y", FLOAT, [1])]))
    return model, Question.about(model, {"x": x})


def compared(model: ConvertedModel, question: Question) -> Comparison:
    found = slopes.compare_slopes(model, question, "batch")
    assert found is not None
    return found


@pytest.mark.parametrize("distance", [3e-8, -3e-8, 2e-9, -2e-9, 1e-13, -1e-13])
def test_a_kink_inside_the_step_is_no_fault(
    monkeypatch: pytest.MonkeyPatch, distance: float
) -> None:
    model, question = kinked(distance)
    found = compared(model, question)
    assert found, found.to_text()
    model.network = Fault(model.network, OffByAThousandth.apply)
    assert len(compared(model, question).failures) == 3
    model.network = model.network.network
    monkeypatch.setattr(slopes, "_STEPS", (1e-7,))
    assert not compared(model, question)


@pytest.mark.parametrize("large", [0.0, 1e3, 1e5])
def test_rounding_of_values_is_no_fault(large: float) -> None:
    """Of (x w + large) - large small steps know nothing; a wrong gradient is found all the same."""
    tail = [
        node("Add", ["z", "large"], ["a"]),
        node("Sub", ["a", "large"], ["s"]),
        node("Tanh", ["s"], ["y"]),
    ]
    random = np.random.default_rng(0)
    graph = dense(random.normal(size=(6, 3)), np.zeros(3), tail, [("y", FLOAT, [3])])
    graph.graph.initializer.append(numpy_helper.from_array(single([large]), "large"))
    model = module_of(graph)
    question = Question.about(model, {"x": single(random.random((5, 6)))})
    found = compared(model, question)
    assert found, found.to_text()
    model.network = Fault(
        model.network, ScaledGradient.apply if large < 1e5 else OffByAThousandth.apply
    )
    assert [row.name for row in compared(model, question).failures][:1] == ["slope 0"]


def test_a_gradient_of_many_entries_is_compared_along_itself() -> None:
    """Along random directions its entries' errors cancel with the entries."""
    random = np.random.default_rng(0)
    graph = dense(random.normal(size=(5000, 3)) / 70, np.zeros(3), [], [("z", FLOAT, [3])])
    model = module_of(graph)
    model.network = Fault(model.network, ScaledGradient.apply)
    question = Question.about(model, {"x": single(random.random((2, 5000)))})
    assert [row.name for row in compared(model, question).failures] == ["slope 0"]


def test_the_interpreter_is_asked_about_the_graphs_kinks() -> None:
    clip = [node("Clip", ["z", "low", "high"], ["y"])]
    graph = dense(np.eye(2), np.zeros(2), clip, [("y", FLOAT, [2])])
    limits = {"low": np.float32(0.125), "high": np.float32(0.875)}
    graph.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in limits.items())
    asked = []

    class Interpreter:
        def call(self, method: str, arrays: dict[str, np.ndarray]) -> Any:
            asked.append(arrays["input/x"])
            self.arrays = {"output/0": np.clip(arrays["input/x"], 0.125, 0.875)}
            return self

    interpreter: Any = Interpreter()
    assert compare_with_interpreter(module_of(graph), interpreter, None, graph)
    assert {0.125, 0.875} <= set(np.concatenate(asked).ravel().tolist())
