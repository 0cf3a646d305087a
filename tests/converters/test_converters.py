"""The converter without TensorFlow: ONNX files, layouts, heads, modules, refusals."""

from __future__ import annotations

import copy
import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx2torch")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from planted_faults import Fault, ScaledGradient  # noqa: E402

from torchfgsm.converters import ConversionError, load  # noqa: E402
from torchfgsm.converters.annotation import Annotation, Port, Weight  # noqa: E402
from torchfgsm.converters.formats import needs  # noqa: E402
from torchfgsm.converters.onnx_side import graph as onnx_graph  # noqa: E402
from torchfgsm.converters.ops import activations, convolution, normalization  # noqa: E402
from torchfgsm.converters.torch_side.heads import find_heads  # noqa: E402
from torchfgsm.converters.verification.verifying import verify_with_onnx  # noqa: E402


def make_model(
    nodes: list[Any],
    weights: dict[str, np.ndarray],
    inputs: dict[str, list[int]],
    outputs: dict[str, list[int]],
    opset: int = 15,
) -> Any:
    graph = helper.make_graph(
        nodes,
        "graph",
        [_value(name, shape) for name, shape in inputs.items()],
        [_value(name, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _value(name: str, shape: list[int]) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape])


def classifier() -> Any:
    """Conv, BatchNorm, same-padded average pool, two dense layers, softmax."""
    random = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    node = helper.make_node
    nodes = [
        node("Conv", ["x", "kernel", "bias"], ["c"], "conv", kernel_shape=[3, 3],
             pads=[1, 1, 0, 0]),
        node("BatchNormalization", ["c", "gamma", "beta", "mean", "var"], ["b"], "norm"),
        node("Relu", ["b"], ["r"], "relu"),
        node("AveragePool", ["r"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2],
             auto_pad="SAME_UPPER"),
        node("Reshape", ["p", "shape"], ["f"], "flatten"),
        node("MatMul", ["f", "dense"], ["m"], "dense"),
        node("Add", ["m", "offset"], ["a"], "add"),
        node("Gemm", ["a", "second"], ["z"], "gemm", transB=1),
        node("Softmax", ["z"], ["y"], "softmax", axis=-1),
    ]  # fmt: skip
    weights = {
        "kernel": draw(3, 2, 3, 3), "bias": draw(3), "gamma": draw(3), "beta": draw(3),
        "mean": draw(3), "var": np.abs(draw(3)) + 0.5, "shape": np.array([0, -1]),
        "dense": draw(12, 4), "offset": draw(4), "second": draw(3, 4),
    }  # fmt: skip
    return make_model(nodes, weights, {"x": [2, 4, 4]}, {"y": [3]})


def saved(model: Any, folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


def test_an_onnx_file_becomes_a_verified_trainable_module(tmp_path: Path) -> None:
    model = load(saved(classifier(), tmp_path))
    assert model.verification, model.verification.to_text()
    assert model.input_names == ("x",)
    assert "cut Softmax" in model.logits
    names = {name for name, _ in model.named_parameters()}
    expected = ("kernel", "bias", "gamma", "beta", "dense", "offset", "second")
    assert names == {f"weights.{name}" for name in expected}
    assert {name for name, _ in model.weights.named_buffers()} == {"mean", "var"}
    assert set(model.state_dict()) == names | {"weights.mean", "weights.var"}
    kept = load(saved(classifier(), tmp_path), keep_head=True)
    x = torch.rand(2, 2, 4, 4)
    assert torch.equal(kept(x), model(x).softmax(dim=-1))


def test_without_onnxruntime_the_reference_evaluator_judges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    model = load(saved(classifier(), tmp_path))
    assert model.verification
    assert any("output y" in row.name for row in model.verification.rows)


def test_planted_faults_are_caught_without_tensorflow(tmp_path: Path) -> None:
    graph = classifier()
    model = load(saved(graph, tmp_path))
    for fault in (lambda x: x.flip(1), ScaledGradient.apply):
        broken = copy.deepcopy(model)
        broken.network = Fault(broken.network, fault)
        assert not verify_with_onnx(broken, graph, None)
    with torch.no_grad():
        model.get_parameter("weights.offset")[0] *= 1.001
    assert not verify_with_onnx(model, graph, None)


def test_a_model_that_disagrees_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(F, "conv2d", lambda *a, f=F.conv2d: 1.001 * f(*a))
    monkeypatch.setitem(convolution._CONV, 2, F.conv2d)
    with pytest.raises(ConversionError, match=r"does not agree[\s\S]*FAILED"):
        load(saved(classifier(), tmp_path))
    assert not load(saved(classifier(), tmp_path), verify=False).verification


def test_the_registry_of_onnx2torch_stays_as_it_was(tmp_path: Path) -> None:
    from onnx2torch.node_converters import registry

    before = dict(registry._CONVERTER_REGISTRY)
    load(saved(classifier(), tmp_path))
    assert before == registry._CONVERTER_REGISTRY


def test_the_module_is_free_of_shape_arithmetic(tmp_path: Path) -> None:
    """No shape is a tensor: one graph, no host copy."""
    model = load(saved(classifier(), tmp_path))
    explained = torch._dynamo.explain(model)(torch.rand(2, 2, 4, 4))
    assert (explained.graph_count, explained.graph_break_count) == (1, 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "could not be read as an ONNX model"),
        (b"not a protobuf", "could not be read as an ONNX model"),
    ],
)
def test_unreadable_onnx_files(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConversionError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.keras", "no such file or folder"),
        ("missing.h5", "no such file or folder"),
        ("missing", "no such file or folder"),
        ("foreign.keras", "zip archive with metadata.json"),
        ("foreign.txt", "got the suffix '.txt'"),
        ("folder", "found no saved_model.pb"),
    ],
)
def test_missing_and_foreign_files_need_no_tensorflow(
    tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "folder").mkdir()
    for foreign in ("foreign.keras", "foreign.txt"):
        (tmp_path / foreign).write_text("not a model")
    with pytest.raises(ConversionError, match=message) as caught:
        load(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (helper.make_node("Det", ["x"], ["y"], name="model/layer/Det"), "layer 'layer'.*Det"),
        (
            helper.make_node("FusedThing", ["x"], ["y"], name="a/b/c", domain="vendor"),
            "layer 'b'.*vendor:FusedThing.*not in the ONNX standard",
        ),
    ],
)
def test_unsupported_operations_are_named(tmp_path: Path, node: Any, message: str) -> None:
    model = make_model([node], {}, {"x": [3, 3]}, {"y": []})
    if node.domain:
        model.opset_import.append(helper.make_opsetid("vendor", 1))
    with pytest.raises(ConversionError, match=message):
        load(saved(model, tmp_path))


def test_the_environment_follows_the_file(tmp_path: Path) -> None:
    for version, environment in (("2.15.0", "keras-2"), ("3.15.1", "keras-3")):
        path = tmp_path / f"{version}.keras"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("metadata.json", json.dumps({"keras_version": version}))
        assert needs(path) == (environment, "keras")
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "saved_model.pb").touch()
    assert needs(folder) == ("keras-3", "saved_model")
    metadata = folder / "keras_metadata.pb"
    metadata.write_bytes(b'{"class_name": "Dense"}')
    assert needs(folder) == ("keras-2", "keras")
    # Keras would run the layer's Python code; the graph alone is read instead.
    metadata.write_bytes(b'{"class_name": "Lambda"}')
    assert needs(folder) == ("keras-2", "saved_model")


def test_a_saved_model_names_the_tensorflow_that_wrote_it(tmp_path: Path) -> None:
    def field(number: int, content: bytes) -> bytes:
        size = len(content)
        return bytes([number << 3 | 2, size & 127 | 128, size >> 7]) + content

    for version, keras in (("1.15.0", "2"), ("2.4.1", "2"), ("2.16.0-rc0", "3")):
        # Before it in its message: the same field in one inside, and eight bytes of a number.
        info = field(2, field(5, b"2.0.0")) + b"\x31" + bytes(8) + field(5, version.encode())
        contents = b"\x08\x01" + field(2, field(1, info) + field(2, bytes(300)))
        (tmp_path / "saved_model.pb").write_bytes(contents)
        assert needs(tmp_path) == (f"keras-{keras}", "saved_model")
        for broken in (contents[:4], b"\xff" * 9, b"\x07" + contents, contents[:-302] + b"\xff"):
            (tmp_path / "saved_model.pb").write_bytes(broken)
            needs(tmp_path)


def test_damaged_annotations_are_refused(tmp_path: Path) -> None:
    model = classifier()
    for text, message in (
        ("{", "annotation is damaged"),
        (json.dumps({"format": 99}), "format 2, got 99"),
        (json.dumps({"format": 2}), "annotation is damaged"),
    ):
        del model.metadata_props[:]
        model.metadata_props.add(key="torchfgsm", value=text)
        with pytest.raises(ConversionError, match=message):
            load(saved(model, tmp_path))
    port = Port("x", "x", shape=(2, 4, 4)), Port("y", "y", shape=(3,))
    lost = Weight("gone", "gone", (3,))
    Annotation("file", port[:1], port[1:], "single", (lost,)).write(model)
    with pytest.raises(ConversionError, match=r"lacks the weights \['gone'\]"):
        load(saved(model, tmp_path))


def test_annotations_survive_the_file(tmp_path: Path) -> None:
    settings = {"momentum": 0.9, "unbiased": True, "frozen": False}
    annotation = Annotation(
        "file",
        (Port("image", "x", "float32", (None, 4, 2)),),
        (Port("y", "y", shape=(3,)),),
        "dict",
        (
            Weight("k", "kernel", (3, 3, 2, 3), (("transpose", (3, 2, 0, 1)),), trainable=False),
            Weight("m", "mean", (3,), statistic=True, batch_norm=settings),
        ),
        ("GaussianNoise 'noise'",),
    )
    model = classifier()
    annotation.write(model)
    annotation.write(model)
    assert len(model.metadata_props) == 1
    assert Annotation.read(onnx.load(saved(model, tmp_path))) == annotation


@given(st.permutations(range(4)), st.permutations(range(3)))
def test_layouts_are_undone_exactly(first: list[int], second: list[int]) -> None:
    shape = (2, 3, 4, 5)
    middle = np.empty(shape).transpose(first).shape
    steps = (
        ("transpose", tuple(first)),
        ("reshape", (middle[0] * middle[1], *middle[2:])),
        ("transpose", tuple(second)),
    )
    weight = Weight("w", "w", shape, steps)
    array = np.random.default_rng(0).random(shape)
    assert np.array_equal(weight.to_keras(weight.to_onnx(array)), array)


def test_layout_steps_are_folded_for_all_uses_alike_or_not_at_all() -> None:
    node = helper.make_node

    def two_uses(second_perm: list[int]) -> Any:
        nodes = [
            node("Transpose", ["w"], ["t1"], "t1", perm=[1, 0]),
            node("Transpose", ["w"], ["t2"], "t2", perm=second_perm),
            node("MatMul", ["x", "t1"], ["h"], "m1"),
            node("MatMul", ["h", "t2"], ["y"], "m2"),
        ]
        weights = {"w": np.arange(9, dtype=np.float32).reshape(3, 3)}
        return make_model(nodes, weights, {"x": [3]}, {"y": [3]})

    same = two_uses([1, 0])
    assert onnx_graph.fold_layout(same, "w", (3, 3)) == ("t1", (("transpose", (1, 0)),))
    assert [list(n.input) for n in same.graph.node] == [["x", "t1"], ["h", "t1"]]
    different = two_uses([0, 1])
    assert onnx_graph.fold_layout(different, "w", (3, 3)) == ("w", ())
    assert len(different.graph.node) == 4


@pytest.mark.parametrize(
    ("tail", "opset", "kind", "text"),
    [
        ([("Softmax", {"axis": -1})], 15, "Softmax", "cut Softmax"),
        ([("Softmax", {"axis": 1})], 15, "Softmax", "cut Softmax"),
        ([("Softmax", {})], 11, "Softmax", "cut Softmax"),
        ([("Softmax", {"axis": 0})], 15, None, "not over the last axis"),
        ([("Sigmoid", {}), ("Identity", {})], 15, "Sigmoid", "cut Sigmoid"),
        ([("Softmax", {}), ("Transpose", {"perm": [0, 1]})], 15, "Softmax", "cut Softmax"),
        ([("LogSoftmax", {})], 15, None, "log-probabilities serve as logits"),
        ([("Relu", {})], 15, None, "last operation is Relu"),
    ],
)
def test_heads(tail: list[tuple[str, dict[str, Any]]], opset: int, kind: str, text: str) -> None:
    values = ["x", *(f"v{i}" for i in range(len(tail) - 1)), "y"]
    nodes = [
        helper.make_node(operation, [values[i]], [values[i + 1]], **attributes)
        for i, (operation, attributes) in enumerate(tail)
    ]
    model = make_model(nodes, {}, {"x": [3]}, {"y": [3]}, opset)
    (head,) = find_heads(model, [Port("y", "y", shape=(3,))])
    assert head.kind == kind
    assert text in head.text


@pytest.mark.parametrize("unbiased", [True, False])
def test_batch_norm_moves_its_statistics_as_keras(unbiased: bool) -> None:
    module = normalization.KerasBatchNorm(1e-3, 0.9, unbiased, frozen=False)
    x = torch.rand(4, 2, 3, dtype=torch.float64)
    mean, var = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    gamma, beta = torch.rand(2, 2, dtype=torch.float64)
    y = module(x, gamma, beta, mean, var)
    expected = F.batch_norm(x, None, None, gamma, beta, True, 0.0, 1e-3)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(mean, 0.1 * x.mean((0, 2)))
    torch.testing.assert_close(var, 0.9 + 0.1 * x.var((0, 2), unbiased=unbiased))
    one = torch.rand(1, 2, dtype=torch.float64)
    torch.testing.assert_close(module(one, gamma, beta, mean, var), beta[None])
    assert torch.isfinite(var).all()


def test_extremum_gives_ties_to_the_first_operand() -> None:
    a = torch.tensor([0.0, 1.0, float("nan"), 2.0], requires_grad=True)
    b = torch.tensor([0.0, 2.0, 0.0, float("nan")], requires_grad=True)
    for largest, share in ((True, [1.0, 0.0, 1.0, 0.0]), (False, [1.0, 1.0, 1.0, 0.0])):
        y = activations.Extremum(largest)(a, b)
        assert torch.isnan(y[2:]).all()
        (gradient,) = torch.autograd.grad(y.sum(), a)
        assert gradient.tolist() == share


@pytest.mark.parametrize("size", [5, 6, 7, 8])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 3), (4, 1)])
def test_same_padding_has_tensorflows_output_size(size: int, kernel: int, stride: int) -> None:
    pads = convolution.same_padding([size], [kernel], [stride], "SAME_UPPER")
    assert 0 <= pads[1] - pads[0] <= 1
    assert (size + sum(pads) - kernel) // stride + 1 == -(-size // stride)
    mean = convolution.AveragePool([kernel], [stride], "SAME_UPPER", count=False)
    assert torch.equal(mean(torch.ones(1, 1, size)), torch.ones(1, 1, -(-size // stride)))


def test_names_and_arguments_are_checked(tmp_path: Path) -> None:
    model = load(saved(classifier(), tmp_path))
    with pytest.raises(KeyError, match=r"such as 'weights\.kernel', got 'kernel'"):
        model.keras_arrays({"kernel": torch.zeros(3)})
    with pytest.raises(ConversionError, match=r"shape \(N, 2, 4, 4\)"):
        load(tmp_path / "model.onnx", data=np.ones((3, 4, 4, 2)))


def test_importing_the_converters_stays_light() -> None:
    import subprocess

    code = (
        "import sys, torchfgsm.converters\n"
        "heavy = {'onnx', 'onnx2torch', 'onnxruntime', 'tensorflow', 'torchvision'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, env=dict(os.environ))
