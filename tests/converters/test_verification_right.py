"""Right conversions that the check itself once refused, and faults in them that it must find."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx2torch")

from onnx import helper, numpy_helper  # noqa: E402
from onnx_cases import Case  # noqa: E402
from onnx_models import FLOAT, dense, graph_of, module_of, single  # noqa: E402
from planted_faults import Fault, OffByAThousandth  # noqa: E402

from torchfgsm.converters import ConversionError, load  # noqa: E402
from torchfgsm.converters.onnx_side.inference import infer  # noqa: E402
from torchfgsm.converters.onnx_side.precision import in_float64  # noqa: E402
from torchfgsm.converters.onnx_side.runtime import runner  # noqa: E402
from torchfgsm.converters.tensorflow_side.pipelines import lost_preprocessor  # noqa: E402
from torchfgsm.converters.verification.interpreter_check import compare_outputs  # noqa: E402
from torchfgsm.converters.verification.judging import judge  # noqa: E402
from torchfgsm.converters.verification.measuring import (  # noqa: E402  # noqa: E402
    BINARY,
    CROSS_ENTROPY,
    Objective,
    Question,
    measure,
    objective_values,
)
from torchfgsm.converters.verification.verifying import verify_with_onnx  # noqa: E402

node = helper.make_node
OLD_EVALUATOR = tuple(int(part) for part in onnx.__version__.split(".")[:2]) < (1, 19)


@pytest.mark.parametrize("lead", [-300.0, -30.0, -8.0, 0.0, 8.0, 19.99, 20.01, 30.0, 300.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_objective_of_a_sure_classifier_has_all_digits(lead: float, dtype: Any) -> None:
    """log(1 + exp(-lead)) and its derivative -1 / (1 + exp(lead)), in closed form."""
    lead = float(torch.tensor(lead, dtype=dtype))
    if dtype == torch.float32 and lead == 300:
        pytest.skip("exp(-300) is no float32")
    value = math.log1p(math.exp(-lead)) if lead > 0 else -lead + math.log1p(math.exp(lead))
    slope = -math.exp(-max(lead, 0)) / (1 + math.exp(-abs(lead)))
    for objective, rest in ((Objective(BINARY, classes=2), ()), (Objective(CROSS_ENTROPY), (0.0,))):
        z = torch.tensor([[lead, *rest]], dtype=dtype, requires_grad=True)
        label = np.ones((1, 1), int) if objective.kind == BINARY else np.zeros(1, int)
        (found,) = objective_values([z], [objective], {0: label})
        (gradient,) = torch.autograd.grad(found.sum(), z)
        close = 8 * torch.finfo(dtype).eps
        assert found.item() == pytest.approx(value, rel=close)
        assert gradient[0, 0].item() == pytest.approx(slope, rel=close)


@pytest.mark.parametrize("bias", [[-12.0], [32.0], [15.0, 0, 0], [100.0, 0, 0]])
def test_a_sure_classifier_is_verified(bias: list[float]) -> None:
    head = node("Sigmoid" if len(bias) == 1 else "Softmax", ["z"], ["y"], name="head")
    weight = np.random.default_rng(0).uniform(-0.1, 0.1, (4, len(bias)))
    graph = dense(weight, bias, [head], [("y", FLOAT, [len(bias)])])
    model = module_of(graph)
    found = verify_with_onnx(model, graph, None)
    assert found, found.to_text()
    model.network = Fault(model.network, before=OffByAThousandth.apply)
    assert not verify_with_onnx(model, graph, None)


def test_float64_alone_judges_what_float32_cannot_hold() -> None:
    """x * 1e20 * 1e20 is beyond float32 for x = 1 and not for x = 1e-10."""
    tail = [node("Mul", ["z", "big"], ["a"]), node("Mul", ["a", "big"], ["y"])]
    graph = dense([[1.0]], [0.0], tail, [("y", FLOAT, [1])])
    graph.graph.initializer.append(numpy_helper.from_array(single([1e20]), "big"))
    model = module_of(graph)
    question = Question.about(model, {"x": single([[1.0], [1e-10]])})
    kept = ("output y",)

    def compute(module: Any, precision: str, noise: float = 0.0) -> dict[str, np.ndarray]:
        found = measure(module, question.in_precision(precision, noise))
        return {name: found[name] for name in kept}

    actual = compute(model, "float32")
    assert np.isinf(actual["output y"]).tolist() == [[True], [False]]
    big = float(np.float32(1e20))
    truth = {"output y": question.batch["x"].astype(np.float64) * big * big}
    parts = judge(model, compute, actual, actual, truth, "batch")
    assert all(parts), [part.to_text() for part in parts]
    assert parts[0].rows[0].measured["too large for float32"] == 1
    wrong = {"output y": truth["output y"] * [[1.001], [1.0]]}
    assert not all(judge(model, compute, actual, actual, wrong, "batch"))


def test_float64_is_asked_about_the_examples_that_float32_leaves_in_doubt() -> None:
    """The second example lies on a kink, where the rounding of a constant decides in float64."""
    model = module_of(dense([[1.0]], [0.0], [node("Relu", ["z"], ["y"])], [("y", FLOAT, [1])]))
    question = Question.about(model, {"x": single([[1.0], [2.0]])})
    truth = {"gradient x": np.array([[1.0], [2.0]])}
    expected = {"gradient x": truth["gradient x"].astype(np.float32)}
    actual = {"gradient x": expected["gradient x"] * single([[1 + 2e-6], [1.0]])}

    def judged(first: float, second: float) -> bool:
        def compute(module: Any, precision: str, noise: float = 0.0) -> dict[str, np.ndarray]:
            if precision == "float64":
                return {"gradient x": truth["gradient x"] * [[first], [second]]}
            output = measure(module, question.in_precision(precision, noise))["output y"]
            return {"gradient x": output * (actual["gradient x"] / truth["gradient x"])}

        return all(judge(model, compute, expected, actual, truth, "batch"))

    assert judged(1.0, 0.5)
    assert not judged(1.001, 1.0)


_NORMAL = np.random.default_rng(5).normal(size=(2, 4, 3, 5)).astype(np.float32)


def _batch_norm(x: np.ndarray) -> np.ndarray:
    return np.asarray(0.3 * (x - 2) / np.sqrt(2 + 0.1) + 0.3)


def _group_norm(x: np.ndarray) -> np.ndarray:
    rows = x.reshape(2, 2, -1)
    centred = rows - rows.mean(-1, keepdims=True)
    return np.asarray(
        (centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 0.1)).reshape(x.shape)
    )


def _old_softmax(x: np.ndarray) -> np.ndarray:
    found = np.exp(x.reshape(len(x), -1))
    return np.asarray((found / found.sum(1, keepdims=True)).reshape(x.shape))


def _same_lower(x: np.ndarray) -> np.ndarray:
    wide = np.pad(x, [(0, 0), (0, 0), (1, 0), (1, 0)], constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(wide, (2, 2), axis=(2, 3))
    return np.asarray(windows[:, :, ::2, ::2].max((-1, -2)))


def _local_response(x: np.ndarray) -> np.ndarray:
    found = np.empty_like(x)
    for c in range(x.shape[1]):
        near = x[:, max(0, c - 1) : c + 2]
        found[:, c] = x[:, c] / (2 + 0.3 / 3 * (near**2).sum(1)) ** 0.75
    return found


FOUR = np.ones(4, np.float32)
# What the evaluator has in another way; each against its definition, in float64.
WITNESSED = [
    *((Case("BatchNormalization", [_NORMAL], [FOUR * F, FOUR * F, FOUR * 2, FOUR * 2],
            {"epsilon": 0.1}, opset=opset), _batch_norm)
      for opset in (7, 9, 13, 15) for F in [np.float32(0.3)]),
    (Case("GroupNormalization", [_NORMAL], [FOUR, FOUR * 0], {"num_groups": 2, "epsilon": 0.1},
          opset=21), _group_norm),
    (Case("Softmax", [_NORMAL], attributes={"axis": 1}, opset=11), _old_softmax),
    (Case("LogSoftmax", [_NORMAL], attributes={"axis": 1}, opset=11),
     lambda x: np.log(_old_softmax(x))),
    (Case("Softmax", [_NORMAL], attributes={"axis": 0}, opset=13),
     lambda x: np.exp(x) / np.exp(x).sum(0)),
    (Case("LpNormalization", [_NORMAL], attributes={"axis": 1, "p": 1}),
     lambda x: x / np.abs(x).sum(1, keepdims=True)),
    (Case("LRN", [_NORMAL], attributes={"size": 3, "alpha": 0.3, "bias": 2.0}), _local_response),
    (Case("MaxPool", [_NORMAL], attributes={
        "kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"}), _same_lower),
    (Case("GatherElements", [_NORMAL], [np.ones((2, 1, 3, 2), np.int64)], {"axis": 1}),
     lambda x: x[:, 1:2, :, :2]),
    (Case("Resize", [_NORMAL], [np.array([], np.float32), np.array([1, 1, 2, 1], np.float32)],
          {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
     lambda x: x.repeat(2, axis=2)),
]  # fmt: skip


def _name(value: Any) -> str:
    """The same in each process, as a function's text with its address is not."""
    return str(getattr(value, "__name__", value))[:40]


@pytest.mark.parametrize("runtime", [True, False], ids=["runtime", "evaluator"])
@pytest.mark.parametrize(("case", "right"), WITNESSED, ids=_name)
def test_the_witness_is_one(
    monkeypatch: pytest.MonkeyPatch, case: Case, right: Any, runtime: bool
) -> None:
    if case.operation == "Resize" and OLD_EVALUATOR:
        pytest.skip("the onnx package before 1.19 needs the region that the standard leaves empty")
    if not runtime:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    graph = case.model()
    x = _NORMAL.astype(np.float64)
    (y,) = runner(in_float64(graph), infer(graph, "test"))({"x0": x}).values()
    assert y.dtype == np.float64
    # Attributes, such as an epsilon, are float32 in a file.
    np.testing.assert_allclose(y, right(x), rtol=2e-8, atol=2e-8)


def test_a_normalisation_of_one_colour_is_verified() -> None:
    """Its variance is 0, so that it divides rounding by the root of epsilon."""
    nodes = [node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2)]
    random = np.random.default_rng(0)
    constants = {name: single(random.normal(size=4)) for name in ("s", "b")}
    graph = graph_of(nodes, constants, [("x", FLOAT, [4, 5, 5])], [("y", FLOAT, [4, 5, 5])])
    graph.opset_import[0].version = 21
    graph.ir_version = 10
    model = module_of(graph)
    found = verify_with_onnx(model, graph, None)
    assert found, found.to_text()
    model.network = Fault(model.network, behind=lambda y: (y[0] * (1 + 1e-4),))
    assert not verify_with_onnx(model, graph, None)


def written(path: Path, nodes: list[Any], size: int, constants: dict[str, Any]) -> Path:
    graph = graph_of(nodes, constants, [("x", FLOAT, [2, 2])], [("y", FLOAT, [4])])
    for value in [*graph.graph.input, *graph.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = size
    onnx.save(graph, path)
    return path


@pytest.mark.parametrize("size", [1, 2])
def test_a_file_of_one_batch_size_gives_a_module_of_any(tmp_path: Path, size: int) -> None:
    nodes = [node("Reshape", ["x", "to"], ["f"]), node("MatMul", ["f", "w"], ["y"])]
    weight = single(np.random.default_rng(0).normal(size=(4, 4)))
    path = written(tmp_path / "m.onnx", nodes, size, {"to": np.array([size, 4]), "w": weight})
    model = load(path)
    x = torch.rand(5, 2, 2)
    torch.testing.assert_close(model(x), x.reshape(5, 4) @ torch.from_numpy(weight))
    assert "(N, 2, 2)" in str(model)


def test_a_file_that_depends_on_its_batch_size_keeps_it(tmp_path: Path) -> None:
    """The largest number of the whole batch: of one example that is its own."""
    nodes = [
        node("ReduceMax", ["x"], ["top"], keepdims=0),
        node("Sub", ["x", "top"], ["d"]),
        node("Reshape", ["d", "to"], ["y"]),
    ]
    path = written(tmp_path / "m.onnx", nodes, 1, {"to": np.array([1, 4])})
    model = load(path)
    x = torch.rand(1, 2, 2)
    torch.testing.assert_close(model(x), (x - x.max()).reshape(1, 4))
    assert "(1, 2, 2)" in str(model)
    with pytest.raises(ValueError, match=r"expected \(1, 2, 2\)"):
        model(torch.rand(3, 2, 2))


def test_a_file_that_is_not_verified_keeps_its_batch_size(tmp_path: Path) -> None:
    """Whether it is right for others nobody has asked."""
    path = written(
        tmp_path / "m.onnx", [node("Reshape", ["x", "to"], ["y"])], 2, {"to": np.array([2, 4])}
    )
    assert "(N, 2, 2)" in str(load(path))
    model = load(path, verify=False)
    (told,) = model.lost
    assert "written for batches of 2; others are refused" in told
    x = torch.rand(2, 2, 2)
    torch.testing.assert_close(model(x), x.reshape(2, 4))
    with pytest.raises(ValueError, match=r"expected \(2, 2, 2\) .* batches of that one size"):
        model(x[:1])


def test_one_number_goes_with_every_batch(tmp_path: Path) -> None:
    graph = graph_of(
        [node("Mul", ["x", "k"], ["y"])], {}, [("x", FLOAT, [3]), ("k", FLOAT, [])],
        [("y", FLOAT, [3])],
    )  # fmt: skip
    del graph.graph.input[1].type.tensor_type.shape.dim[:]
    onnx.save(graph, tmp_path / "m.onnx")
    x, k = torch.rand(4, 3), torch.tensor(3.0)
    given: Any = {"x": x.numpy(), "k": 3.0}
    for data in (None, given):
        model = load(tmp_path / "m.onnx", data=data)
        torch.testing.assert_close(model(x, k), x * 3)
    with pytest.raises(ConversionError, match="expected one number for 'k'"):
        load(tmp_path / "m.onnx", data={"x": x.numpy(), "k": np.ones(4)})


class Interpreter:
    """Stands for TFLite: the module's float64, off by a share of its largest entry."""

    def __init__(self, compute: Any, off: float) -> None:
        self.compute, self.off = compute, off
        self.arrays: dict[str, np.ndarray] = {}

    def call(self, method: str, arrays: dict[str, np.ndarray]) -> Any:
        y = self.compute(arrays["input/x"].astype(np.float64))
        self.arrays = {"output/0": (y + self.off * np.abs(y).max()).astype(np.float32)}
        return self


def test_the_interpreter_may_be_off_as_rounding_is() -> None:
    """With 1e5 times the differences of sums, float32 is off by far more than 1e-5."""
    random = np.random.default_rng(0)
    weight = random.normal(size=(64, 1)).astype(np.float32)
    twin = np.concatenate([weight, -weight * np.float32(1.0001)])
    graph = dense(twin, [0.0], [node("Identity", ["z"], ["y"])], [("y", FLOAT, [1])])
    model = module_of(graph)

    def verdict(off: float, weight: np.ndarray) -> Any:
        other: Any = Interpreter(lambda x: x @ weight.astype(np.float64), off)
        return compare_outputs(model, other, {"x": single(np.ones((2, 128)))}, graph)

    assert verdict(1e-7, twin), verdict(1e-7, twin).to_text()
    assert not verdict(2e-3, twin)
    assert not verdict(0.0, twin * np.float32(1.001))


def test_a_softmax_is_cut_where_only_the_output_states_its_rank(tmp_path: Path) -> None:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Slice", ["s", "zero", "one"], ["n"]),
        node("Cast", ["n"], ["n32"], to=onnx.TensorProto.INT32),
        node("Cast", ["n32"], ["n64"], to=onnx.TensorProto.INT64),
        node("Concat", ["n64", "minus"], ["to"], axis=0),
        node("Reshape", ["x", "to"], ["f"]),
        node("MatMul", ["f", "w"], ["z"]),
        node("Softmax", ["z"], ["q"], axis=1),
        node("Identity", ["q"], ["y"]),
    ]
    constants = {"zero": np.array([0]), "one": np.array([1]), "minus": np.array([-1])}
    constants["w"] = single(np.random.default_rng(0).normal(size=(6, 2)))
    graph = graph_of(nodes, constants, [("x", FLOAT, [2, 3])], [("y", FLOAT, [2])])
    graph.opset_import[0].version = 11
    onnx.save(graph, tmp_path / "m.onnx")
    model = load(tmp_path / "m.onnx")
    assert model.found_heads[0].kind == "Softmax"
    x = torch.rand(4, 2, 3)
    torch.testing.assert_close(model(x), x.reshape(4, 6) @ torch.from_numpy(constants["w"]))


def test_a_preprocessor_that_is_no_part_of_the_model_is_named() -> None:
    class Task:
        preprocessor: Any = None

    class Preprocessor:
        pass

    class Own(Task):
        pass

    task = Own()
    assert lost_preprocessor(task) == []
    task.preprocessor = Preprocessor()
    assert lost_preprocessor(task) == []
    Task.__module__ = "keras_hub.src.models.task"
    (text,) = lost_preprocessor(task)
    assert "the preprocessor Preprocessor" in text
    task.preprocessor = None
    assert lost_preprocessor(task) == []
