"""`torchfgsm convert` without TensorFlow: what it writes, shows and refuses."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx2torch")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from torchfgsm import cli  # noqa: E402
from torchfgsm.converters import (  # noqa: E402
    ConversionError,
    ConvertedModel,
    export_onnx,
    load,
    writing,
)
from torchfgsm.converters.annotation import Annotation, Penalty  # noqa: E402
from torchfgsm.converters.exporting import fits, own_python  # noqa: E402
from torchfgsm.originals.environment import KERAS_2, KERAS_3  # noqa: E402

Capture = pytest.CaptureFixture[str]


def dense(opset: int = 15, ir_version: int = 8, kind: int = TensorProto.FLOAT) -> Any:
    kernel = np.arange(12, dtype=np.float32).reshape(4, 3) / 10
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "kernel"], ["z"], "dense"),
            helper.make_node("Softmax", ["z"], ["y"], "softmax", axis=-1),
        ],
        "graph",
        [helper.make_tensor_value_info("x", kind, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(dense(), path)
    return path


def run(capsys: Capture, *arguments: Any) -> tuple[int, str, list[str]]:
    code = cli.main(["convert", *map(str, arguments)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err.splitlines()


def refused(capsys: Capture, *arguments: Any) -> str:
    """Returns the one line that a refusal says, after the steps that were begun."""
    code, out, lines = run(capsys, *arguments)
    said = [line for line in lines if " s  " not in line]
    assert code == 2
    assert out == ""
    assert len(said) == 1, lines
    return said[0]


def test_it_writes_an_annotated_file_and_says_what_it_is(
    capsys: Capture, model_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.onnx"
    data = tmp_path / "data.npz"
    np.savez(data, x=np.ones((2, 4)), label=np.zeros(2))
    code, text, steps = run(capsys, model_file, "-o", out, "--data", data)
    assert code == 0
    names = [line.split(" s  ")[1].split()[0] for line in steps]
    assert names == ["reading", "building", "verifying", "writing", "done"]
    lines = text.splitlines()
    assert "input 'x': (N, 4) float32" in lines
    assert any("12 numbers to train" in line for line in lines)
    assert any("cut Softmax" in line for line in lines)
    assert "PASSED" in lines[-1]
    annotation = Annotation.read(onnx.load(out))
    assert annotation is not None
    assert [weight.name for weight in annotation.weights] == ["kernel"]
    assert out.stat().st_mode & 0o777 == 0o644


def test_json_is_all_there_is_on_stdout(capsys: Capture, model_file: Path) -> None:
    code, text, _ = run(capsys, model_file, "--json", "--no-verify")
    found = json.loads(text)
    assert code == 0
    assert found["file"] is None
    assert found["verification"]["passed"] is False
    assert found["weights"] == [
        {"name": "kernel", "parameter": "weights.kernel", "shape": [4, 3], "kind": "trainable"}
    ]


def _bad_input(folder: Path) -> dict[str, tuple[list[Any], str]]:
    """Name -> (arguments after the model's own, what the line must say)."""
    good, out = folder / "model.onnx", folder / "out.onnx"
    (folder / "empty").mkdir()
    (folder / "there.onnx").write_bytes(b"old")
    files = {
        "corrupt.onnx": b"no protobuf",
        "corrupt.keras": b"no archive",
        "model.txt": b"",
        "saved_model.pb": b"",
        "bad.npz": b"no archive",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    for name, model in {
        "new_ir.onnx": dense(ir_version=99),
        "new_opset.onnx": dense(opset=99),
        "old_opset.onnx": dense(opset=6),
        "text.onnx": dense(kind=TensorProto.STRING),
    }.items():
        (folder / name).write_bytes(model.SerializeToString())
    o = ["-o", out]
    return {
        "missing": ([folder / "missing.onnx", *o], "no such file"),
        "missing Keras": ([folder / "missing.keras", *o], "no such file or folder"),
        "suffix": ([folder / "model.txt", *o], "got the suffix '.txt'"),
        "folder": ([folder / "empty", *o], "no saved_model.pb"),
        "saved_model.pb": ([folder / "saved_model.pb", *o], "give the SavedModel's folder"),
        "corrupt archive": ([folder / "corrupt.keras", *o], "zip archive"),
        "corrupt ONNX": ([folder / "corrupt.onnx", *o], "could not be read as an ONNX model"),
        "IR version": ([folder / "new_ir.onnx", *o], "got 99: install a newer onnx"),
        "new opset": ([folder / "new_opset.onnx", *o], "got 99"),
        "old opset": ([folder / "old_opset.onnx", *o], "opset from 7 to"),
        "strings": ([folder / "text.onnx", *o], "'x' takes strings"),
        "out suffix": ([good, "-o", folder / "out.pt"], "suffix .onnx"),
        "out folder": ([good, "-o", folder / "none" / "out.onnx"], "expected an existing folder"),
        "out is there": ([good, "-o", folder / "there.onnx"], "--force"),
        "out is the model": ([good, "-o", good, "--force"], "expected another file"),
        "no data": ([good, *o, "--data", folder / "none.npz"], "no such file"),
        "bad data": ([good, *o, "--data", folder / "bad.npz"], "expected an .npz file"),
        "names": ([good, *o, "--inputs", "x"], "frozen graphs"),
        "dtype": ([good, *o, "--dtype", "float64"], "'x' is float32"),
        "training": ([good, *o, "--verify-training"], "Keras model is needed"),
        "custom objects": ([good, *o, "--custom-objects", folder / "no.py"], "no file"),
        "time": ([good, *o, "--timeout", "0"], "timeout"),
    }


def test_bad_input_is_one_line_and_nothing_written(capsys: Capture, model_file: Path) -> None:
    folder = model_file.parent
    cases = _bad_input(folder)
    before = {path: path.is_file() and path.read_bytes() for path in folder.iterdir()}
    for name, (arguments, message) in cases.items():
        assert message in refused(capsys, *arguments), name
    assert before == {path: path.is_file() and path.read_bytes() for path in folder.iterdir()}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_not_writable(capsys: Capture, model_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    assert "not writable" in refused(capsys, model_file, "-o", folder / "out.onnx")


def _full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("fault", "message"), [(_full, "No space left on device"), (_interrupted, "interrupted")]
)
def test_what_breaks_the_writing_off_leaves_the_folder_as_it_was(
    capsys: Capture,
    model_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Any,
    message: str,
) -> None:
    old = model_file.parent / "old.onnx"
    old.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", fault)
    assert message in refused(capsys, model_file, "-o", old, "--force")
    assert old.read_bytes() == b"old"
    assert sorted(p.name for p in old.parent.iterdir()) == ["model.onnx", "old.onnx"]


def test_models_beyond_one_file_are_refused(
    capsys: Capture, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "LARGEST", 100)
    out = model_file.parent / "out.onnx"
    assert "which is what an ONNX file can hold" in refused(capsys, model_file, "-o", out)
    assert not out.exists()


def test_export_onnx_replaces_a_file_only_where_it_may(model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    first = export_onnx(model_file, out)
    with pytest.raises(ConversionError, match="is there already"):
        export_onnx(model_file, out, overwrite=False)
    x = torch.rand(2, 4)
    assert torch.equal(load(out)(x), first(x))


def test_layer_losses_are_those_of_the_annotation(model_file: Path) -> None:
    graph = onnx.load(model_file)
    plain = load(model_file)
    assert plain.layer_losses() == ()
    values = {**vars(plain.annotation), "penalties": (Penalty("kernel", 0.5, 0.25),)}
    annotation = Annotation(**{**values, "lost": ("an activity regularizer",)})
    annotation.write(graph)
    onnx.save(graph, model_file)
    model = load(model_file)
    (loss,) = model.layer_losses()
    kernel = model.get_parameter("weights.kernel")
    (gradient,) = torch.autograd.grad(loss, kernel)
    torch.testing.assert_close(loss, 0.5 * kernel.abs().sum() + 0.25 * (kernel**2).sum())
    torch.testing.assert_close(gradient, 0.5 * kernel.sign() + 0.5 * kernel)
    assert model.lost == ("an activity regularizer",)
    assert "lost: an activity regularizer" in repr(model)


def _distribution(folder: Path, name: str, version: str) -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.mark.parametrize(
    ("packages", "keras_2", "keras_3"),
    [
        ({"tensorflow": "2.15.1", "keras": "2.15.0", "tf2onnx": "1.17.0"}, True, False),
        (
            {
                "tensorflow": "2.21.0",
                "keras": "3.15.1",
                "tf-keras": "2.21.0",
                "tf2onnx": "1.17.0",
            },
            True,
            True,
        ),
        ({"tensorflow-cpu": "2.21.0", "keras": "3.15.1", "tf2onnx": "1.17.0"}, False, True),
        ({"tensorflow": "2.16.0rc0", "keras": "3.0.0", "tf2onnx": "1.16.1"}, False, True),
        ({"tensorflow": "2.21.0", "keras": "3.15.1"}, False, False),
        ({"keras": "3.15.1", "tf2onnx": "1.17.0"}, False, False),
        ({"tensorflow": "2.9.0", "keras": "2.9.0", "tf2onnx": "1.17.0"}, False, False),
    ],
)
def test_the_users_own_tensorflow_serves_where_it_fits(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    packages: dict[str, str],
    keras_2: bool,
    keras_3: bool,
) -> None:
    for name, version in packages.items():
        _distribution(tmp_path, name, version)
    assert fits(KERAS_2, [str(tmp_path)]) is keras_2
    assert fits(KERAS_3, [str(tmp_path)]) is keras_3
    monkeypatch.setattr("site.getsitepackages", lambda: [str(tmp_path)])
    assert isinstance(own_python(KERAS_3), Path) is keras_3
    monkeypatch.setenv("TORCHFGSM_PYTHON_TENSORFLOW_2_21", "/elsewhere/python")
    assert own_python(KERAS_3) is None


def test_a_model_without_weights_takes_any_float(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], "relu")],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )
    path = tmp_path / "relu.onnx"
    opsets = [helper.make_opsetid("", 15)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    model: ConvertedModel = load(path)
    assert model.dtype == torch.float32
    assert model(torch.rand(2, 3).double()).dtype == torch.float64
