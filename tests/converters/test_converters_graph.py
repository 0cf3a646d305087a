"""Shapes, loops, branches and recurrent operations against ONNX's own runtimes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from no_waiting import NoWaiting
from torch import Tensor

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx2torch")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from torchfgsm.converters import ConversionError, load  # noqa: E402
from torchfgsm.converters.onnx_side import graph as onnx_graph  # noqa: E402
from torchfgsm.converters.ops import recurrent  # noqa: E402
from torchfgsm.converters.ops.host_values import evaluator  # noqa: E402

Array = np.ndarray[Any, Any]
node = helper.make_node
RANDOM = np.random.default_rng(0)
LAST = 2**63 - 1


def draw(*shape: int) -> Array:
    return RANDOM.normal(size=shape).astype(np.float32)


def ints(*numbers: int) -> Array:
    return np.array(numbers, np.int64)


def make_graph(
    nodes: list[Any], constants: dict[str, Array], inputs: list[Any], outputs: list[Any]
) -> Any:
    tensors = [numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()]
    return helper.make_graph(nodes, "graph", inputs, outputs, tensors)


def value(name: str, shape: list[Any] | None = None, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def make_model(graph: Any, opset: int = 15) -> Any:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def loaded(model: Any, folder: Path, verify: bool = False) -> Any:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return load(path, verify=verify)


def simple(nodes: list[Any], constants: dict[str, Array], shape: list[Any], opset: int) -> Any:
    """A model of one input x and one output y, whose shape is left open."""
    inputs, outputs = [value("x", ["n", *shape])], [value("y", ["n", *[None] * len(shape)])]
    return make_model(make_graph(nodes, constants, inputs, outputs), opset)


def agrees(model: Any, folder: Path, *shape: int) -> None:
    module = loaded(model, folder)
    for count in (2, 3):
        x = draw(count, *shape)
        (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
        with NoWaiting():
            actual = module(torch.from_numpy(x))
        np.testing.assert_array_equal(actual.numpy(), expected)


@pytest.mark.parametrize(
    ("operation", "inputs", "attributes"),
    [
        ("Abs", [ints(-2, 3)], {}),
        ("Add", [ints(1, 2), ints(3)], {}),
        ("And", [np.array([True, True]), np.array([True, False])], {}),
        ("Cast", [ints(0, 2)], {"to": TensorProto.BOOL}),
        ("Concat", [ints(1), ints(2, 3)], {"axis": 0}),
        ("Div", [ints(-7, 7, -8), ints(2)], {}),
        ("Equal", [ints(1, 2), ints(1, 3)], {}),
        ("Gather", [ints(4, 5, 6), ints(-1, 0)], {}),
        ("Gather", [ints(4, 5, 6), np.array(1)], {}),
        ("Greater", [ints(1, 2), ints(1)], {}),
        ("GreaterOrEqual", [ints(1, 2), ints(2)], {}),
        ("Identity", [ints(1)], {}),
        ("Less", [np.array(1), np.array(2)], {}),
        ("LessOrEqual", [ints(1, 2), ints(1)], {}),
        ("Max", [ints(1, 5), ints(3, 3), ints(2)], {}),
        ("Min", [ints(1, 5), ints(3, 3)], {}),
        ("Mod", [ints(-7, 7), ints(3)], {}),
        ("Mul", [ints(2, 3), ints(4)], {}),
        ("Neg", [ints(2, -3)], {}),
        ("Not", [np.array([True, False])], {}),
        ("Or", [np.array([False, False]), np.array([True, False])], {}),
        ("ReduceMax", [ints(2, 5, 3)], {}),
        ("ReduceMin", [ints(2, 5, 3)], {"keepdims": 0}),
        ("ReduceProd", [ints(2, 5, 3)], {"keepdims": 0}),
        ("ReduceSum", [ints(2, 5, 3)], {}),
        ("Reshape", [np.array(4), ints(1)], {}),
        ("Slice", [ints(1, 2, 3, 4), ints(-3), ints(LAST), ints(0), ints(2)], {}),
        ("Slice", [ints(1, 2, 3, 4), ints(-1), ints(-LAST), ints(0), ints(-1)], {}),
        ("Split", [ints(1, 2, 3), ints(1, 2)], {}),
        ("Squeeze", [ints(3), ints(0)], {}),
        ("Sub", [ints(2, 3), ints(4)], {}),
        ("Unsqueeze", [np.array(3), ints(0)], {}),
        ("Where", [np.array([True, False]), ints(1, 2), ints(3)], {}),
    ],
)
def test_numbers_on_the_host_are_those_of_onnx(
    operation: str, inputs: list[Array], attributes: dict[str, Any]
) -> None:
    names = [f"i{i}" for i in range(len(inputs))]
    outputs = ["a", "b"] if operation == "Split" else ["a"]
    made = node(operation, names, outputs, **attributes)
    expected = ReferenceEvaluator(made).run(None, dict(zip(names, inputs, strict=True)))
    function = evaluator(operation, attributes, len(outputs))
    assert function is not None
    found = function(*(array.tolist() for array in inputs))
    found = list(found) if len(outputs) > 1 else [found]
    assert found == [np.asarray(array).tolist() for array in expected]


@pytest.mark.parametrize(
    ("nodes", "constants", "shape"),
    [
        ([node("Slice", ["x", "s", "e", "a", "t"], ["y"])],
         {"s": ints(-1, 1), "e": ints(-LAST, LAST), "a": ints(2, 1), "t": ints(-2, 2)}, (5, 6)),
        ([node("Slice", ["x", "s", "e", "a", "t"], ["y"])],
         {"s": ints(3), "e": ints(0), "a": ints(-1), "t": ints(-2)}, (5,)),
        ([node("Pad", ["x", "p", "v"], ["y"])],
         {"p": ints(0, 1, 3, 0, 2, 0), "v": np.float32(3)}, (2, 3)),
        ([node("Pad", ["x", "p"], ["y"], mode="reflect")], {"p": ints(0, 2, 1, 0, 1, 2)}, (3, 4)),
        ([node("Pad", ["x", "p"], ["y"], mode="edge")],
         {"p": ints(0, 1, 0, 0, 2, 0, 0, 0, 3, 0)}, (2, 1, 3, 2)),
        ([node("Gather", ["x", "i"], ["y"], axis=1)], {"i": np.array(-1)}, (3, 2)),
        ([node("Gather", ["x", "i"], ["y"], axis=-1)], {"i": ints(1, -1, 0)}, (3, 2)),
        ([node("Gather", ["x", "i"], ["y"], axis=1)], {"i": np.array([[0, 2], [-1, 1]])}, (3, 2)),
        ([node("Tile", ["x", "r"], ["y"])], {"r": ints(1, 2, 3)}, (2, 3)),
        ([node("Expand", ["x", "s"], ["y"])], {"s": ints(2, 1, 4, 1)}, (1, 3)),
        ([node("Split", ["x", "s"], ["y", "z"], axis=1)], {"s": ints(2, 3)}, (5,)),
        ([node("Split", ["x"], ["y", "z"], axis=-1)], {}, (4,)),
        ([node("Flatten", ["x"], ["y"], axis=2)], {}, (2, 3, 4)),
        ([node("Flatten", ["x"], ["y"], axis=-1)], {}, (2, 3)),
        ([node("Squeeze", ["x", "a"], ["y"])], {"a": ints(1, -1)}, (1, 3, 1)),
        ([node("Unsqueeze", ["x", "a"], ["y"])], {"a": ints(-1, 1)}, (3,)),
        ([node("Concat", ["x", "x"], ["y"], axis=-1)], {}, (3,)),
        ([node("Transpose", ["x"], ["y"])], {}, (3, 2)),
        ([node("Reshape", ["x", "s"], ["y"])], {"s": ints(0, -1, 2)}, (2, 4)),
        ([node("Cast", ["x"], ["c"], to=TensorProto.INT32),
          node("Cast", ["c"], ["y"], to=TensorProto.FLOAT)], {}, (3,)),
        ([node("ReverseSequence", ["x", "l"], ["y"], time_axis=1, batch_axis=2)],
         {"l": ints(1, 4, 2)}, (4, 3, 2)),
        # sizes of the input: rows and columns change places, then a range is added
        ([node("Shape", ["x"], ["s"]), node("Gather", ["s", "swap"], ["t"]),
          node("Reshape", ["x", "t"], ["r"]), node("Gather", ["s", "one"], ["w"]),
          node("Range", ["zero", "w", "one"], ["k"]), node("Cast", ["k"], ["f"], to=1),
          node("Unsqueeze", ["f", "last"], ["u"]), node("Add", ["r", "u"], ["y"])],
         {"swap": ints(0, 2, 1), "one": np.array(1), "zero": np.array(0), "last": ints(1)}, (3, 3)),
        # a mask of the batch's size, made of sizes alone
        ([node("Shape", ["x"], ["s"]), node("ConstantOfShape", ["s"], ["m"]),
          node("Size", ["x"], ["k"]), node("Cast", ["k"], ["f"], to=1),
          node("Add", ["m", "f"], ["a"]), node("Add", ["a", "x"], ["y"])], {}, (3,)),
        # the last row, by an index computed from the sizes
        ([node("Shape", ["x"], ["s"]), node("Gather", ["s", "one"], ["w"]),
          node("Sub", ["w", "one"], ["i"]), node("Gather", ["x", "i"], ["y"], axis=1)],
         {"one": np.array(1)}, (3, 2)),
        # every example reversed, as tf.reverse is exported
        ([node("Shape", ["x"], ["s"]), node("Gather", ["s", "one"], ["w"]),
          node("Gather", ["s", "two"], ["b"]), node("Expand", ["w", "b"], ["l"]),
          node("ReverseSequence", ["x", "l"], ["y"], time_axis=1, batch_axis=2)],
         {"one": ints(1), "two": ints(2)}, (4, 3)),
    ],
)  # fmt: skip
def test_shape_operations_compute_what_onnx_says(
    tmp_path: Path, nodes: list[Any], constants: dict[str, Array], shape: tuple[int, ...]
) -> None:
    agrees(simple(nodes, constants, list(shape), 15), tmp_path, *shape)


def test_negative_padding_crops(tmp_path: Path) -> None:
    x = torch.rand(2, 4, 3)
    for mode in ("constant", "reflect", "edge"):
        made = [node("Pad", ["x", "p"], ["y"], mode=mode)]
        module = loaded(simple(made, {"p": ints(0, -1, 0, 0, -2, 1)}, [4, 3], 15), tmp_path)
        last = {"constant": torch.zeros(2, 1), "reflect": x[:, 1:2, 1], "edge": x[:, 1:2, 2]}
        expected = torch.cat([x[:, 1:2], last[mode][:, :, None]], dim=2)
        assert torch.equal(module(x), expected)


def test_reflection_has_two_derivatives(tmp_path: Path) -> None:
    made = [node("Pad", ["x", "p"], ["y"], mode="reflect")]
    module = loaded(simple(made, {"p": ints(0, 1, 0, 0)}, [3], 15), tmp_path).double()
    x = torch.rand(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, x)
    assert torch.autograd.gradgradcheck(module, x)


def counting_loop(limit: str, condition: str) -> Any:
    """h = tanh(h w), and h + k is given each time; it ends by itself after ``turns`` turns."""
    body = make_graph(
        [
            node("MatMul", ["h", "w"], ["m"]),
            node("Tanh", ["m"], ["h2"]),
            node("Add", ["k", "one"], ["k2"]),
            node("Cast", ["k2"], ["kf"], to=1),
            node("Less", ["kf", "turns"], ["go2"]),
            node("Add", ["h2", "kf"], ["each"]),
        ],
        {"one": np.array(1)},
        [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("h", None),
         value("k", [], TensorProto.INT64)],
        [value("go2", [], TensorProto.BOOL), value("h2", None), value("k2", [], TensorProto.INT64),
         value("each", [None, 3])],
    )  # fmt: skip
    return node("Loop", [limit, condition, "x", "zero"], ["end", "count", "all"], body=body)


def loop_model(turns: int, limit: str = "", tail: list[Any] | None = None) -> Any:
    """Runs the loop as often as ``turns`` says; by default the sum of all and the last is y."""
    tail = tail or [node("ReduceSum", ["all", "axis"], ["s"], keepdims=0),
                    node("Add", ["s", "end"], ["y"])]  # fmt: skip
    nodes = [node("Less", ["floor", "turns"], ["go"]), counting_loop(limit, "go"), *tail]
    constants = {"turns": np.float32(turns), "floor": np.float32(0), "zero": np.array(0),
                 "w": draw(3, 3), "axis": ints(0), "two": np.array(2)}  # fmt: skip
    return simple(nodes, constants, [3], 15)


@pytest.mark.parametrize(("turns", "limit"), [(4, ""), (1, ""), (4, "two")])
def test_loops_over_known_turns_wait_for_nothing(tmp_path: Path, turns: int, limit: str) -> None:
    model = loop_model(turns, limit)
    module = loaded(model, tmp_path, verify=True)
    assert [name for name, _ in module.named_parameters()] == ["weights.w"]
    x = draw(2, 3)
    w = onnx_graph.constants(model)["w"]
    h, total = x, np.zeros_like(x)
    for k in range(min(turns, 2) if limit else turns):
        h = np.tanh(h @ w)
        total = total + h + k + 1
    with NoWaiting():
        actual = module(torch.from_numpy(x))
    np.testing.assert_allclose(actual.detach().numpy(), total + h, rtol=1e-5)
    compiled: Any = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(torch.from_numpy(x)), actual)


def test_a_loop_of_no_turns_gives_its_start(tmp_path: Path) -> None:
    module = loaded(loop_model(0, tail=[node("Identity", ["end"], ["y"])]), tmp_path)
    x = torch.rand(2, 3)
    assert torch.equal(module(x), x)
    shape = [node("Shape", ["all"], ["a"]), node("Cast", ["a"], ["y"], to=1)]
    assert loaded(loop_model(0, tail=shape), tmp_path)(x).tolist() == [0, 0, 3]


def test_a_loop_may_end_by_what_it_computes(tmp_path: Path) -> None:
    """Doubles until the sum is at least 100; the condition is a tensor."""
    body = make_graph(
        [
            node("Add", ["h", "h"], ["h2"]),
            node("ReduceSum", ["h2"], ["s"], keepdims=0),
            node("Less", ["s", "hundred"], ["go2"]),
        ],
        {},
        [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("h", None)],
        [value("go2", [], TensorProto.BOOL), value("h2", None)],
    )
    nodes = [node("Loop", ["", "yes", "x"], ["y"], body=body)]
    model = simple(nodes, {"hundred": np.float32(100), "yes": np.array(True)}, [2], 15)
    module = loaded(model, tmp_path)
    for start in (1.0, 30.0):
        x = np.full((1, 2), start, np.float32)
        (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
        assert np.array_equal(module(torch.from_numpy(x)).numpy(), expected)


def branches(condition: str) -> Any:
    def branch(operation: str) -> Any:
        return make_graph([node(operation, ["x", "w"], ["r"])], {}, [], [value("r", None)])

    return node(
        "If", [condition], ["y"], then_branch=branch("MatMul"), else_branch=branch("Add")
    )  # fmt: skip


def test_branches_follow_sizes_and_tensors(tmp_path: Path) -> None:
    w = draw(3, 3)
    by_size = [node("Shape", ["x"], ["s"]), node("Gather", ["s", "zero"], ["n"]),
               node("Equal", ["n", "three"], ["c"]), branches("c")]  # fmt: skip
    by_value = [node("ReduceSum", ["x"], ["s"], keepdims=0), node("Less", ["s", "w0"], ["c"]),
                branches("c")]  # fmt: skip
    constants = {"w": w, "zero": np.array(0), "three": np.array(3), "w0": np.float32(0)}
    cases: Any = ((by_size, NoWaiting()), (by_value, contextlib.nullcontext()))
    for nodes, mode in cases:
        model = simple(nodes, constants, [3], 15)
        module = loaded(model, tmp_path)
        for x in (np.ones((1, 3), np.float32), -np.ones((3, 3), np.float32)):
            found: Any = ReferenceEvaluator(model).run(None, {"x": x})
            with mode:
                actual = module(torch.from_numpy(x))
            np.testing.assert_allclose(actual.detach().numpy(), found[0], rtol=1e-6)


def recurrent_model(kind: str, side: str, lengths: bool = False, **attributes: Any) -> Any:
    gates, states = {"LSTM": (4, 2), "GRU": (3, 1), "RNN": (1, 1)}[kind]
    directions = 2 if side == "bidirectional" else 1
    shapes = {"w": (gates * 3, 2), "r": (gates * 3, 3), "b": (gates * 6,)}
    constants = {n: draw(directions, *shape) for n, shape in shapes.items()}
    constants |= {n: draw(directions, 2, 3) for n in ("h", "c")[:states]}
    if lengths:
        constants["len"] = np.array([2, 4], np.int32)
    inputs = ["x", "w", "r", "b", "len" if lengths else "", "h", "c"][: 5 + states]
    outputs = ["y", "y_h", "y_c"][: states + 1]
    made = node(kind, inputs, outputs, hidden_size=3, direction=side, **attributes)
    graph = make_graph(
        [made], constants, [value("x", [4, 2, 2])], [value(n, [None] * 3) for n in outputs[1:]]
    )
    graph.output.insert(0, value("y", [None] * 4))
    return make_model(graph)


@pytest.mark.parametrize("side", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(
    ("kind", "attributes"),
    [("LSTM", {}), ("GRU", {}), ("GRU", {"linear_before_reset": 1}), ("RNN", {})],
)
@pytest.mark.parametrize("lengths", [False, True])
def test_recurrent_layers_compute_what_onnxruntime_does(
    tmp_path: Path, kind: str, attributes: dict[str, Any], side: str, lengths: bool
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    model = recurrent_model(kind, side, lengths, **attributes)
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = draw(4, 2, 2)
    module = loaded(model, tmp_path)
    assert {"weights.w", "weights.r", "weights.b"} == {n for n, _ in module.named_parameters()}
    for actual, expected in zip(
        module(torch.from_numpy(x)), session.run(None, {"x": x}), strict=True
    ):
        np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_lists_of_sizes_compile() -> None:
    multiply = evaluator("Mul", {}, 1)
    assert multiply is not None
    torch._dynamo.reset()
    doubled = torch.compile(
        lambda x: x.new_zeros(multiply(list(x.shape), [2])), fullgraph=True, backend="eager"
    )
    for rows in (2, 5, 7):
        assert doubled(torch.rand(rows, 3)).shape == (2 * rows, 6)


def test_layout_1_puts_the_batch_first(tmp_path: Path) -> None:
    weights = [torch.rand(1, 12, 2), torch.rand(1, 12, 3)]
    x, h, c = torch.rand(4, 2, 2), torch.rand(1, 2, 3), torch.rand(1, 2, 3)
    cell = recurrent.LstmCell((torch.sigmoid, torch.tanh, torch.tanh))
    plain = recurrent.Recurrent([cell], [False], False, 3)(x, *weights, None, None, h, c)
    turned = [t.transpose(0, 1) for t in (x, h, c)]
    first = recurrent.Recurrent([cell], [False], True, 3)(
        turned[0], *weights, None, None, *turned[1:]
    )
    torch.testing.assert_close(first[0], plain[0].permute(2, 0, 1, 3))
    torch.testing.assert_close(first[1], plain[1].transpose(0, 1))


def test_peepholes_follow_their_formula_and_gradients_are_exact() -> None:
    """One step by hand, as the ONNX standard writes it; then first and second derivatives."""
    shapes = [(2, 1, 2), (1, 1, 2), (1, 1, 2), (1, 8, 2), (1, 8, 2), (1, 6)]
    x, h, c, w, r, p = (torch.rand(shape, dtype=torch.float64) for shape in shapes)
    cell = recurrent.LstmCell((torch.sigmoid, torch.tanh, torch.tanh))
    layer = recurrent.Recurrent([cell], [False], False, 3)
    _, last, _ = layer(x[:1], w, r, None, None, h, c, p)
    i, o, f, new = (x[0] @ w[0].T + h[0] @ r[0].T).chunk(4, dim=-1)
    p_i, p_o, p_f = p[0].chunk(3)
    after = (f + p_f * c[0]).sigmoid() * c[0] + (i + p_i * c[0]).sigmoid() * new.tanh()
    torch.testing.assert_close(last[0], (o + p_o * after).sigmoid() * after.tanh())

    def call(*tensors: Tensor) -> Any:
        x, w, r, p = tensors
        return layer(x, w, r, None, torch.tensor([1]), h, c, p)

    tensors = [t.requires_grad_() for t in (x, w, r, p)]
    assert torch.autograd.gradcheck(call, tensors)
    assert torch.autograd.gradgradcheck(call, tensors)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [({"clip": 1.0}, "'clip'"), ({"activations": ["Elu"]}, "'Elu'")],
)
def test_forms_of_recurrent_layers_are_refused_by_name(
    tmp_path: Path, attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConversionError, match=f"operation RNN.*{message}"):
        loaded(recurrent_model("RNN", "forward", **attributes), tmp_path)


def test_changes_of_a_graph_reach_its_bodies() -> None:
    model = loop_model(2)
    onnx_graph.rename(model, {"w": "kernel", "x": "image"})
    loop = model.graph.node[1]
    body = loop.attribute[0].g
    assert body.node[0].input[:] == ["h", "kernel"]
    assert loop.input[2] == "image"
    assert onnx_graph.consumers(model)["kernel"] == 1
    onnx_graph.remove_dead(model)
    assert "kernel" in onnx_graph.constants(model)
    body = next(n for n in model.graph.node if n.op_type == "Loop").attribute[0].g
    body.node.insert(0, node("Constant", [], ["bias"], value_floats=[1.0]))
    onnx_graph.lift_constant_nodes(model)
    body = next(n for n in model.graph.node if n.op_type == "Loop").attribute[0].g
    assert {t.name for t in body.initializer} == {"one", "bias"}


def test_a_weight_that_a_body_captures_keeps_its_layout() -> None:
    model = loop_model(2)
    model.graph.node.insert(0, node("Transpose", ["w"], ["t"], perm=[1, 0]))
    model.graph.node.append(node("MatMul", ["y", "t"], ["z"]))
    assert onnx_graph.fold_layout(model, "w", (3, 3)) == ("w", ())


def test_weights_of_tables_and_bodies_are_found(tmp_path: Path) -> None:
    nodes = [
        node("Cast", ["x"], ["i"], to=TensorProto.INT64),
        node("Gather", ["table", "i"], ["e"]),
        node("MatMul", ["e", "w"], ["m"]),
        node("Add", ["m", "b"], ["y"]),
    ]
    constants = {"table": draw(5, 3), "w": draw(3, 2), "b": draw(2)}
    module = loaded(simple(nodes, constants, [], 15), tmp_path)
    assert {n for n, _ in module.named_parameters()} == {f"weights.{n}" for n in constants}


FAKE = "raise SystemExit('torchvision was imported')"
CODE = """
import sys
sys.path[:0] = [{fake!r}]
from torchfgsm.converters import load
load({path!r}, verify=False)
sys.exit('torchvision' in sys.modules)
"""


def test_conversion_does_not_import_torchvision(tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision/__init__.py").write_text(FAKE)
    onnx.save(simple([node("Sign", ["x"], ["y"])], {}, [3], 15), tmp_path / "model.onnx")
    code = CODE.format(fake=str(tmp_path), path=str(tmp_path / "model.onnx"))
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, env=dict(os.environ))


@pytest.mark.parametrize("operation", ["NonMaxSuppression", "RoiAlign"])
def test_operations_of_torchvision_are_refused(tmp_path: Path, operation: str) -> None:
    count = 2 if operation == "NonMaxSuppression" else 3
    model = simple([node(operation, ["x"] * count, ["y"], "detect/op")], {}, [2, 4], 15)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ConversionError, match=f"layer 'detect'.*{operation}.*torchvision"):
        load(tmp_path / "model.onnx", verify=False)
