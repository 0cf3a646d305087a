"""What verification compares and how it judges, without TensorFlow."""

from __future__ import annotations

import copy
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("onnx")
pytest.importorskip("onnx2torch")

from onnx import TensorProto, helper
from onnx_models import FLOAT, INT, Value, dense, graph_of, module_of, single

from torchfgsm.converters import ConversionError
from torchfgsm.converters.annotation import Port
from torchfgsm.converters.onnx_side.inference import infer
from torchfgsm.converters.onnx_side.runtime import runner
from torchfgsm.converters.torch_side.heads import Head
from torchfgsm.converters.verification.batches import Hints, batches, hints_of
from torchfgsm.converters.verification.measuring import (
    Question,
    _objective,
    labels_for,
    measure,
    objective_values,
)
from torchfgsm.converters.verification.scaled import compare_scaled
from torchfgsm.converters.verification.verifying import verify_with_onnx


def test_the_kinks_are_among_the_batches() -> None:
    ports = [Port("x", "x", shape=(4, 6, 1)), Port("y", "y", shape=(4, 6, 1))]
    found = batches(ports, None, Hints(kinks=(0.7,)))
    assert {n: len(b["x"]) for n, b in found.items()} == {
        "random x5": 5, "random x1": 1, "kinks": 15,
    }  # fmt: skip
    kinks = found["kinks"]["x"].reshape(15, -1)
    assert kinks.dtype == np.float32
    constant = {float(row[0]) for row in kinks if (row == row[0]).all()}
    assert {np.float32(0.7), 0.0, 1.0, -2.5, 2.5, -3.0, 3.0, 6.0, -1.0, 0.5, -0.5} == constant
    half, neighbours, board = kinks[0], kinks[1], kinks[2].reshape(4, 6)
    assert not half[:12].any()
    assert half[12:].all()
    assert np.array_equal(neighbours[::2], neighbours[1::2])
    assert len(np.unique(neighbours)) == 12
    assert np.array_equal(board, np.indices((4, 6)).sum(axis=0) % 2)
    # Two inputs tie on the constants, and only there and on the board.
    equal = (found["kinks"]["x"] == found["kinks"]["y"]).reshape(15, -1).all(axis=1)
    assert equal.sum() == 12


def test_large_examples_are_split_and_stay_whole() -> None:
    port = Port("x", "x", shape=(512, 512, 3))
    found = batches([port], np.zeros((3, 512, 512, 3)))
    kinks = [batch["x"] for name, batch in found.items() if name.startswith("kinks")]
    assert [len(part) for part in kinks] == [1] * 14
    assert [n for n in found if n.startswith("data")] == [
        "data from 0",
        "data from 1",
        "data from 2",
    ]


def test_whole_numbers_stay_inside_the_table() -> None:
    nodes = [
        helper.make_node("Cast", ["words"], ["index"], to=INT),
        helper.make_node("Gather", ["table", "index"], ["rows"]),
        helper.make_node("ReduceMean", ["rows"], ["y"], axes=[1], keepdims=0),
    ]
    table = np.random.default_rng(0).random((9, 2), dtype=np.float32)
    graph = graph_of(nodes, {"table": table}, [("words", INT, [6])], [("y", FLOAT, [2])])
    hints = hints_of(graph)
    assert hints.limits == {"words": 9}
    found = batches([Port("words", "words", "int64", (6,))], None, hints)
    values = np.concatenate([batch["words"].ravel() for batch in found.values()])
    assert (values.min(), values.max()) == (0, 8)
    known = batches([Port("words", "words", "int64", (6,))], None)
    assert {int(n) for batch in known.values() for n in np.unique(batch["words"])} == {0, 1}
    model = module_of(graph)
    result = verify_with_onnx(model, graph, None)
    assert result, result.to_text()
    assert "no input gradient exists" in result.title


def test_the_graph_tells_kinks_and_pixels() -> None:
    node = helper.make_node
    constants = {
        "scale": np.float32(1 / 255), "low": np.float32(0.25), "high": np.float32(0.75),
        "edge": np.float32(0.4), "vector": single([0.1, 0.2]), "most": np.float32(3e38),
    }  # fmt: skip
    nodes = [
        node("Mul", ["x", "scale"], ["a"]),
        node("Clip", ["a", "low", "high"], ["b"]),
        node("Max", ["b", "edge"], ["c"]),
        node("Min", ["c", "most"], ["d"]),
        node("Greater", ["d", "vector"], ["e"]),
        node("HardSigmoid", ["d"], ["f"], alpha=0.5, beta=0.5),
        node("ThresholdedRelu", ["f"], ["y"], alpha=2.0),
    ]
    hints = hints_of(graph_of(nodes, constants, [("x", FLOAT, [2])], [("y", FLOAT, [2])]))
    assert hints.kinks == pytest.approx((-1.0, 0.25, 0.4, 0.75, 1.0, 2.0))
    assert hints.pixels == {"x"}
    found = batches([Port("x", "x", shape=(2,))], None, hints)
    assert found["random x5"]["x"].max() > 100
    assert 255.0 in found["kinks"]["x"]


def test_the_objective_is_the_cross_entropy_over_the_heads_axis() -> None:
    z = torch.randn(4, 3, 5, dtype=torch.float64)
    for axis, moved in ((1, z.movedim(1, -1)), (-2, z.movedim(1, -1)), (-1, z), (2, z)):
        head = Head("Softmax", "z", "", axis=axis)
        objective = _objective(Port("y", "y", shape=(3, 5)), head)
        assert objective.axis in (-1, -2)
        labels = labels_for([objective], 4)
        (values,) = objective_values([z], [objective], labels)
        expected = -moved.log_softmax(-1).gather(-1, torch.from_numpy(labels[0])[..., None])
        torch.testing.assert_close(values, expected[..., 0])


@pytest.mark.parametrize(
    ("port", "head", "kind"),
    [
        (Port("y", "y", "int64", (3,)), Head(None, "z", ""), "none"),
        (Port("y", "y", shape=(3,)), Head(None, "z", ""), "cross_entropy"),
        (Port("y", "y", shape=(3,)), Head(None, "z", "", probabilities=True), "squares"),
        (Port("y", "y", shape=(1,)), Head(None, "z", ""), "squares"),
        (Port("y", "y", shape=()), Head(None, "z", ""), "squares"),
        (Port("y", "y", shape=(None, 3)), Head(None, "z", ""), "squares"),
        (Port("y", "y", shape=(2,)), Head("Sigmoid", "z", ""), "binary"),
    ],
)
def test_each_output_has_its_objective(port: Port, head: Head, kind: str) -> None:
    assert _objective(port, head).kind == kind


def _whole_outputs() -> object:
    tail = [
        helper.make_node("ArgMax", ["z"], ["best"], axis=1, keepdims=0),
        helper.make_node("Sub", ["z", "z"], ["nothing"]),
    ]
    weight = np.random.default_rng(0).normal(size=(4, 3))
    outputs: list[Value] = [("best", INT, []), ("nothing", FLOAT, [3]), ("z", FLOAT, [3])]
    return dense(weight, np.arange(3.0), tail, outputs)


def test_whole_outputs_are_compared_exactly_and_have_no_part_in_the_gradient() -> None:
    graph = _whole_outputs()
    model = module_of(graph)
    result = verify_with_onnx(model, graph, None)
    assert result, result.to_text()
    arrays = measure(model, Question.about(model, {"x": np.ones((2, 4), np.float32)}))
    assert arrays["output best"].dtype == np.int64
    other = {**arrays, "output best": arrays["output best"] + 1}
    failed = compare_scaled(arrays, other, 10.0, "")
    assert [row.name for row in failed.failures] == ["output best"]


def test_an_output_without_inputs_gives_a_zero_gradient() -> None:
    tail = [helper.make_node("Sub", ["z", "z"], ["y"])]
    graph = dense(np.eye(3), np.zeros(3), tail, [("y", FLOAT, [3])])
    model = module_of(graph)
    arrays = measure(model, Question.about(model, {"x": np.ones((2, 3), np.float32)}))
    assert not arrays["gradient x"].any()


def test_a_failure_says_how_far_it_is_and_what_would_have_passed() -> None:
    expected = {"output y": np.array([[1.0, 2.0]]), "gradient x": np.array([[4.0]])}
    actual = {"output y": np.array([[1.0, 2.5]]), "gradient x": np.array([[5.0]])}
    text = compare_scaled(expected, actual, 1e-5, "random").to_text()
    assert "needs 0.25" in text
    assert text.count("FAILED: 1 of") == 2
    assert "allowed" in text
    assert "1e-05" in text


def test_scaled_comparison_knows_nan_and_vanishing_gradients() -> None:
    nan = {"output y": np.array([[np.nan, 1.0], [np.inf, 2.0]])}
    assert compare_scaled(nan, copy.deepcopy(nan), 1e-6, "")
    assert not compare_scaled(nan, {"output y": np.ones((2, 2))}, 1e-6, "")
    # What should be zero is rounding alone: it is held against the larger gradients.
    expected = {"gradient a": np.array([[1.0]]), "gradient b": np.array([[1e-17]])}
    assert compare_scaled(expected, {**expected, "gradient b": np.array([[3e-17]])}, 1e-6, "")
    assert not compare_scaled(expected, {**expected, "gradient b": np.array([[1e-8]])}, 1e-6, "")


def test_float64_models_run_where_onnxruntime_lacks_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = helper.make_node("Selu", ["x"], ["y"])
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node], "graph", [value("x", TensorProto.DOUBLE, ["n", 2])],
        [value("y", TensorProto.DOUBLE, ["n", 2])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    run = runner(model, infer(model, "test"))
    (y,) = run({"x": np.array([[1.0, -1.0]])}).values()
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, [[1.0507009873554805, -1.1113307378125625]], rtol=1e-6)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert np.array_equal(next(iter(runner(model, infer(model, "test"))(
        {"x": np.array([[1.0, -1.0]])}).values())), y)  # fmt: skip


def test_an_onnx_model_that_cannot_run_is_refused_in_one_line() -> None:
    graph = dense(np.eye(3), np.zeros(3), [], [("z", FLOAT, [3])])
    run = runner(graph, infer(graph, "test"))
    with pytest.raises(ConversionError, match="cannot run") as caught:
        run({"x": np.zeros((2, 5), np.float32)})
    assert "\n" not in str(caught.value)
