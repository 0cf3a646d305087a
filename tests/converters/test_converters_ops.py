"""Each ONNX operation against ONNX Runtime, and its derivatives against differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx2torch")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import helper  # noqa: E402
from onnx_cases import (  # noqa: E402
    CASES,
    F32,
    IDS,
    LINE,
    MORE_RESIZES,
    ONES,
    PICTURE,
    ROI,
    Case,
)

from torchfgsm.converters import ConversionError  # noqa: E402
from torchfgsm.converters.onnx_side.inference import infer  # noqa: E402
from torchfgsm.converters.torch_side.building import build  # noqa: E402

_FLAT = {"ArgMax", "ArgMin", "IsInf", "IsNaN", "Equal", "Less", "Greater", "LessOrEqual",
         "GreaterOrEqual"}  # fmt: skip


RUNTIME = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])
# The first ONNX Runtime that takes an opset above 19.
FIRST_WITH_OPSET = {20: (1, 17), 21: (1, 18), 22: (1, 20)}
# Forms that 1.16 itself gets wrong: it stops at the first, and loses a column of the second.
OLD_FAULTS = ("noop_with_empty_axes=1", "ceil_mode=1-count_include_pad=1")
# What versions up to 1.23 have no implementation of, in this opset.
LATE = ("ReduceSum-15-noop_with_empty_axes=1", "LpNormalization-22-axis=1-p=1")
pytestmark = pytest.mark.usefixtures("one_thread")
_SLOW = [pytest.param(case, marks=pytest.mark.slow) for case in MORE_RESIZES]
_DIFFERENTIABLE = [
    case
    for case in CASES
    if case.operation not in _FLAT and any(a.dtype.kind == "f" for a in case.arrays())
]


@pytest.mark.parametrize("case", [*CASES, *_SLOW], ids=str)
def test_values_agree_with_onnx_runtime(case: Case) -> None:
    needed = FIRST_WITH_OPSET.get(case.opset, (1, 17) if str(case).endswith(OLD_FAULTS) else (0, 0))
    if needed > RUNTIME or (str(case) in LATE and RUNTIME < (1, 24)):
        pytest.skip(f"ONNX Runtime {onnxruntime.__version__} cannot run {case}")
    arrays = case.arrays()
    session = onnxruntime.InferenceSession(
        case.model().SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = session.run(None, {f"x{i}": a for i, a in enumerate(arrays)})
    actual = _all(case.convert()(*(torch.from_numpy(a) for a in arrays)))
    for theirs, ours in zip(expected, actual, strict=True):
        assert theirs.dtype == ours.detach().numpy().dtype
        np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("case", [*_DIFFERENTIABLE, *_SLOW], ids=str)
def test_derivatives_agree_with_differences(case: Case) -> None:
    tensors = [torch.from_numpy(a) for a in case.arrays()]
    tensors = [t.double().requires_grad_() if t.is_floating_point() else t for t in tensors]
    model = case.convert().double()
    assert torch.autograd.gradcheck(lambda *x: _all(model(*x))[0], tensors, fast_mode=True)


def _all(output: Any) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else list(output)


@pytest.mark.parametrize(
    "case",
    [
        Case("Clip", [LINE], [F32(0), F32(1)]),
        Case("Gelu", [LINE], opset=20),
        Case("Mish", [LINE], opset=18),
        Case("Softplus", [LINE]),
        Case("HardSwish", [LINE]),
        Case("MaxPool", [PICTURE], attributes={"kernel_shape": [3, 2], "auto_pad": "SAME_UPPER"}),
        Case("AveragePool", [PICTURE], attributes={"kernel_shape": [3, 2], "pads": [1, 0, 0, 0]}),
        Case("Resize", [(1, 1, 4, 5)], [ROI, np.array([1, 1, 2, 2], F32)], {"mode": "linear"}),
        Case("InstanceNormalization", [PICTURE, (3,), (3,)]),
        Case("LayerNormalization", [LINE, (7,), (7,)], opset=17),
        Case("TopK", [LINE], [np.array([3])], outputs=2),
        Case("ReduceMax", [LINE]),
    ],
    ids=str,
)
def test_second_derivatives(case: Case) -> None:
    tensors = [torch.from_numpy(a).double().requires_grad_() for a in case.arrays()]
    model = case.convert().double()
    assert torch.autograd.gradgradcheck(lambda *x: _all(model(*x))[0], tensors, fast_mode=True)


@pytest.mark.parametrize(
    ("mode", "exclude"), [("nearest", 0), ("linear", 0), ("cubic", 0), ("cubic", 1)]
)
def test_sizes_that_the_graph_computes(mode: str, exclude: int) -> None:
    """The result takes its height and width from another input's."""
    node = helper.make_node
    info = helper.make_tensor_value_info
    nodes = [
        node("Shape", ["x"], ["front"], end=2),
        node("Shape", ["like"], ["back"], start=2),
        node("Concat", ["front", "back"], ["sizes"], axis=0),
        node("Resize", ["x", "", "", "sizes"], ["y"], mode=mode, exclude_outside=exclude),
    ]
    inputs = [info(n, onnx.TensorProto.FLOAT, ["n", 1, "h" + n, "w" + n]) for n in ("x", "like")]
    outputs = [info("y", onnx.TensorProto.FLOAT, ["n", 1, "h", "w"])]
    graph = helper.make_graph(nodes, "graph", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    converted = build(model, infer(model, "test"))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for size in ((6, 9), (3, 2)):
        x, like = torch.rand(2, 1, 4, 5), torch.rand(2, 1, *size)
        (expected,) = session.run(None, {"x": x.numpy(), "like": like.numpy()})
        np.testing.assert_allclose(converted(x, like).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("p", [1, 2])
def test_a_vector_of_no_length_stays_zero(p: int) -> None:
    x = torch.zeros(1, 2, requires_grad=True)
    y = Case("LpNormalization", [(1, 2)], attributes={"p": p}).convert()(x)
    assert isinstance(y, Tensor)
    assert y.tolist() == [[0, 0]]
    assert torch.autograd.grad(y.sum(), x)[0].isfinite().all()


def test_numbers_in_float64_are_those_that_were_meant() -> None:
    """ONNX holds 0.3 in float32; a float64 model is to compute with 0.3 itself."""
    x = torch.tensor([-1.0, 2.0], dtype=torch.float64)
    for case, expected in (
        (Case("LeakyRelu", [(2,)], attributes={"alpha": 0.3}), [-0.3, 2.0]),
        (Case("Clip", [(2,)], [F32(-0.3), F32(0.7)]), [-0.3, 0.7]),
        (Case("Selu", [(2,)]), [1.0507009873554805 * 1.6732632423543772 * np.expm1(-1),
                                2 * 1.0507009873554805]),
    ):  # fmt: skip
        actual = case.convert().double()(x)
        np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-15)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (Case("DequantizeLinear", [np.zeros(3, np.int8)], [F32(1)]), "convert the float model"),
        (Case("QuantizeLinear", [LINE], [F32(1), np.int8(0)]), "convert the float model"),
        (Case("RandomNormalLike", [LINE]), "in inference mode"),
        (Case("LpPool", [PICTURE], attributes={"kernel_shape": [2, 2]}), "LpPool"),
        (Case("MaxPool", [PICTURE], attributes={"kernel_shape": [2, 2]}, outputs=2), "one output"),
        (Case("LRN", [PICTURE], attributes={"size": 2}), "odd size, got 2"),
        (Case("ReduceSum", [LINE, np.array([1])]), "constant axes"),
        (Case("OneHot", [IDS, np.array(3), np.array([0, 1])]), "constant depth"),
        (Case("ScatterND", [(4, 3)], [IDS[:, :1] % 2, np.ones((2, 3), F32)],
              {"reduction": "mul"}, opset=18), "got 'mul'"),
        (Case("Resize", [PICTURE], [None, np.array([1, 1, 2, 2], F32)],
              {"antialias": 1, "mode": "linear"}, opset=18), "no antialias"),
        (Case("Resize", [PICTURE, np.array([1, 1, 2, 2], F32)][:1], [np.zeros(8, F32), ONES],
              {"coordinate_transformation_mode": "tf_crop_and_resize"}), "tf_crop_and_resize"),
        (Case("LayerNormalization", [LINE, (7,)], outputs=2, opset=17), "one output"),
        (Case("BatchNormalization", [PICTURE, (3,), (3,)], [ONES, ONES], {"training_mode": 1},
              outputs=3), "in inference mode"),
        (Case("AveragePool", [PICTURE], attributes={"kernel_shape": [2, 2], "dilations": [2, 2]},
              opset=19), "no dilations"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_converted_is_named(case: Case, message: str) -> None:
    with pytest.raises(ConversionError, match=rf"layer 'layer'.*{case.operation}.*{message}|"
                       rf"layer 'layer'.*{message}"):  # fmt: skip
        case.convert()
