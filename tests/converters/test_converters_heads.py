"""Heads that are cut, and heads that are kept and why; judged by ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx2torch")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from torchfgsm.converters import ConvertedModel  # noqa: E402
from torchfgsm.converters.onnx_side.inference import infer  # noqa: E402
from torchfgsm.converters.torch_side.building import build  # noqa: E402

Node = tuple[str, list[str], str, dict[str, Any]]

CONSTANTS = {
    "flat": np.array([-1, 6]),
    "rows": np.array([-1, 2, 3]),
    "column": np.array([-1, 3, 1]),
    "mixed": np.array([-1, 3, 2]),
    "merged": np.array([-1, 12]),
    "last": np.array([-1]),
    "second": np.array([1]),
    "half": np.float32(0.5),
    "two": np.float32(2.0),
    "six": np.float32(6.0),
    "three": np.float32(3.0),
    "zero": np.float32(0.0),
    "one": np.float32(1.0),
    "slope": np.float32(0.2),
}


def make(nodes: list[Node], shape: list[int], outputs: dict[str, int], opset: int) -> Any:
    made = [
        helper.make_node(operation, names, [output], f"layer/{output}", **attributes)
        for operation, names, output, attributes in nodes
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        made,
        "graph",
        [info("x", TensorProto.FLOAT, ["n", *shape])],
        [info(n, TensorProto.FLOAT, ["n", *[None] * (r - 1)]) for n, r in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in CONSTANTS.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def converted(model: Any) -> tuple[ConvertedModel, list[np.ndarray], list[Tensor], list[Tensor]]:
    """Returns the module, ONNX Runtime's outputs, the module's outputs and its logits."""
    module = build(model, infer(model, "test"))
    shape = [d.dim_value or 5 for d in model.graph.input[0].type.tensor_type.shape.dim]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 2
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = session.run([o.name for o in model.graph.output], {"x": x.numpy()})
    outputs, logits = module.outputs_and_logits(x)
    return module, expected, list(outputs), list(logits)


def to(
    operation: str, *more: str, **attributes: Any
) -> tuple[str, tuple[str, ...], dict[str, Any]]:
    return operation, more, attributes


FLOAT, DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE
# What follows x of a shape; the opset; the axis over which the softmax is cut.
CUT = {
    "softmax": ([to("Softmax")], [3], 15, -1),
    "identity": ([to("Softmax"), to("Identity")], [3], 15, -1),
    "channels first": ([to("Softmax", axis=1)], [3, 2, 4], 15, -3),
    "column": ([to("Softmax"), to("Reshape", "column")], [3], 15, -2),
    "rows": ([to("Softmax"), to("Reshape", "rows")], [1, 2, 3], 15, -1),
    "transpose": ([to("Softmax"), to("Transpose", perm=[0, 2, 1])], [2, 3], 15, -2),
    "transpose and reshape": (
        [to("Softmax", axis=1), to("Transpose", perm=[0, 2, 3, 1]), to("Reshape", "rows")],
        [3, 1, 2], 15, -1),
    "squeeze": ([to("Softmax"), to("Squeeze", "second")], [1, 3], 15, -1),
    "old squeeze": ([to("Softmax", axis=2), to("Squeeze", axes=[1])], [1, 3], 11, -1),
    "unsqueeze": ([to("Softmax"), to("Unsqueeze", "last")], [3], 15, -2),
    "unsqueeze before": ([to("Softmax"), to("Unsqueeze", "second")], [3], 15, -1),
    "flatten": ([to("Softmax", axis=1), to("Flatten")], [3, 1, 1], 15, -1),
    "cast to the same": ([to("Softmax"), to("Cast", to=FLOAT)], [3], 15, -1),
    "opset 11": ([to("Softmax")], [3], 11, -1),
    "opset 11, one place behind": ([to("Softmax", axis=1)], [3, 1, 1], 11, -3),
    "opset 11, one place before": ([to("Softmax", axis=1)], [1, 1, 3], 11, -1),
}  # fmt: skip


def chain(steps: list[Any]) -> list[Node]:
    names = ["x", *(f"v{i}" for i in range(len(steps) - 1)), "y"]
    return [
        (operation, [names[i], *more], names[i + 1], attributes)
        for i, (operation, more, attributes) in enumerate(steps)
    ]


@pytest.mark.parametrize("name", CUT)
def test_a_softmax_is_cut_behind_which_only_the_shape_changes(name: str) -> None:
    steps, shape, opset, axis = CUT[name]
    rank = {"column": 3, "rows": 3, "squeeze": 2, "old squeeze": 2, "flatten": 2,
            "transpose and reshape": 3, "unsqueeze": 3, "unsqueeze before": 3}  # fmt: skip
    model = make(chain(steps), shape, {"y": rank.get(name, len(shape) + 1)}, opset)
    nodes = len(model.graph.node)
    module, (expected,), (output,), (logits,) = converted(model)
    (head,) = module.found_heads
    assert (head.kind, head.axis, head.probabilities) == ("Softmax", axis, False)
    assert "cut Softmax" in head.text
    assert logits.shape == expected.shape
    np.testing.assert_allclose(output.numpy(), expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(logits.softmax(head.axis).numpy(), expected, rtol=1e-5, atol=1e-7)
    assert len(model.graph.node) == nodes


@pytest.mark.parametrize("behind", [[], [to("Reshape", "rows")], [to("Transpose", perm=[0, 1])]])
def test_a_sigmoid_is_cut(behind: list[Any]) -> None:
    rank = 3 if behind and behind[0][0] == "Reshape" else 2
    model = make(chain([to("Sigmoid"), *behind]), [6], {"y": rank}, 15)
    module, (expected,), (output,), (logits,) = converted(model)
    assert module.found_heads[0].kind == "Sigmoid"
    np.testing.assert_allclose(logits.sigmoid().numpy(), expected, rtol=1e-5)
    assert torch.equal(output, logits.sigmoid())


# What follows x; its shape; the opset; whether it is kept as probabilities; and why.
KEPT = {
    "over the batch": ([to("Softmax", axis=0)], [3], 15, True, "not over the last axis"),
    "opset 11": ([to("Softmax", axis=1)], [2, 3], 11, True, "not over the last axis"),
    "merged": ([to("Softmax"), to("Reshape", "merged")], [4, 3], 15, True, "Reshape behind it"),
    "moved": ([to("Softmax", axis=1), to("Reshape", "mixed")], [2, 3], 15, True,
              "Reshape behind it"),
    "to the batch": ([to("Softmax"), to("Transpose", perm=[1, 0])], [3], 15, True,
                     "Transpose behind it"),
    "other type": ([to("Softmax"), to("Cast", to=DOUBLE), to("Cast", to=FLOAT)], [3], 15, True,
                   "Cast behind it"),
    "log": ([to("LogSoftmax")], [3], 15, False, "log-probabilities serve as logits"),
    "log, reshaped": ([to("LogSoftmax"), to("Reshape", "column")], [3], 15, False,
                      "log-probabilities serve as logits"),
    "log, merged": ([to("LogSoftmax"), to("Reshape", "merged")], [4, 3], 15, False,
                    "log-probabilities, since its LogSoftmax has Reshape"),
    "scaled": ([to("Softmax"), to("Mul", "two")], [3], 15, False, "last operation is Mul"),
    "halved": ([to("Softmax"), to("Div", "two")], [3], 15, False, "last operation is Div"),
    "hard sigmoid": ([to("HardSigmoid")], [3], 15, True, "last operation is HardSigmoid"),
    "hard sigmoid of Keras 2": (
        [to("Mul", "slope"), to("Add", "half"), to("Min", "one"), to("Max", "zero")],
        [3], 15, True, "last operation is Max"),
    "hard sigmoid of Keras 3": ([to("Add", "three"), to("Clip", "zero", "six"), to("Div", "six")],
                                [3], 15, True, "last operation is Div"),
    "relu": ([to("Relu")], [3], 15, False, "last operation is Relu"),
    "linear": ([to("Add", "one")], [3], 15, False, "last operation is Add"),
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_any_other_head_is_kept_with_the_reason(name: str) -> None:
    steps, shape, opset, probabilities, text = KEPT[name]
    rank = {"merged": 2, "log, merged": 2, "log, reshaped": 3}.get(name, len(shape) + 1)
    module, (expected,), (output,), (logits,) = converted(
        make(chain(steps), shape, {"y": rank}, opset)
    )
    (head,) = module.found_heads
    assert (head.kind, head.probabilities) == (None, probabilities)
    assert text in head.text
    assert torch.equal(output, logits)
    np.testing.assert_allclose(output.numpy(), expected, rtol=1e-5, atol=1e-6)
    if name == "log, reshaped":
        assert head.axis == -2


def test_hand_written_and_averaged_softmaxes_are_kept_as_probabilities() -> None:
    nodes: list[Node] = [
        ("Exp", ["x"], "e", {}),
        ("ReduceSum", ["e", "last"], "s", {}),
        ("Div", ["e", "s"], "by_hand", {}),
        ("Softmax", ["x"], "p", {}),
        ("Neg", ["x"], "n", {}),
        ("Softmax", ["n"], "q", {}),
        ("Add", ["p", "q"], "sum", {}),
        ("Mul", ["sum", "half"], "average", {}),
        ("Sub", ["p", "q"], "difference", {}),
    ]
    outputs = {"by_hand": 2, "average": 2, "sum": 2, "difference": 2}
    module, expected, actual, _ = converted(make(nodes, [3], outputs, 15))
    assert [h.kind for h in module.found_heads] == [None] * 4
    assert [h.probabilities for h in module.found_heads] == [True, True, False, False]
    for theirs, ours in zip(expected, actual, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5, atol=1e-6)


def test_a_softmax_with_other_users_is_cut_at_its_output_alone() -> None:
    nodes: list[Node] = [
        ("Relu", ["x"], "logits", {}),
        ("Softmax", ["logits"], "p", {}),
        ("Reshape", ["p", "column"], "shaped", {}),
        ("Mul", ["shaped", "two"], "other", {}),
        ("Identity", ["p"], "same", {}),
    ]
    outputs = {"shaped": 3, "p": 2, "other": 3, "logits": 2, "same": 2}
    module, expected, actual, logits = converted(make(nodes, [3], outputs, 15))
    kinds = [h.kind for h in module.found_heads]
    assert kinds == ["Softmax", "Softmax", None, None, "Softmax"]
    for theirs, ours in zip(expected, actual, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5, atol=1e-6)
    assert torch.equal(logits[0][..., 0], logits[1])
    assert torch.equal(logits[1], logits[3])
    assert torch.equal(logits[4], logits[3])


@pytest.mark.parametrize(("made_as", "hidden"), [("Transpose__66", False), ("seg/Reshape", True)])
def test_a_transpose_that_was_written_as_a_reshape_hides_no_head(
    made_as: str, hidden: bool
) -> None:
    """tf2onnx moves one channel so; a reshape of the model's own hides the sigmoid from Keras."""
    model = make(chain([to("Sigmoid"), to("Reshape", "column")]), [3], {"y": 3}, 15)
    model.graph.node[-1].name = made_as
    (head,) = converted(model)[0].found_heads
    assert head.kind == "Sigmoid"
    assert head.hidden_from_keras is hidden
