"""Hostile and broken files without TensorFlow: each is one line, and nothing of it is run."""

from __future__ import annotations

import importlib.util
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx2torch")

import hostile_files as files  # noqa: E402
import torch  # noqa: E402
from torch import fx, nn  # noqa: E402

from torchfgsm import cli, converters  # noqa: E402
from torchfgsm.converters.tensorflow_side import archives  # noqa: E402
from torchfgsm.parity import user  # noqa: E402

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the model lies; what is beside this folder is none of its business."""
    path = tmp_path / "model"
    path.mkdir()
    return path


def refused(capsys: Capture, *arguments: Any) -> str:
    """The one line that a command ends with."""
    code = cli.main([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    before, last = shown.err.splitlines()[:-1], shown.err.splitlines()[-1]
    assert code == 2
    assert shown.out == ""
    assert all(" s  " in line or line.startswith("converting ") for line in before), before
    return last


def listed(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_hostile_and_broken_onnx_files(folder: Path, capsys: Capture) -> None:
    cases = files.onnx_files(folder)
    path = folder / "model.onnx"
    path.touch()
    before = listed(folder.parent)
    for name, (content, said) in cases.items():
        path.write_bytes(content)
        line = refused(capsys, "convert", path, "-o", folder / "out.onnx")
        assert re.search(said, line), (name, line)
        assert str(path) in line, name
        assert listed(folder.parent) == before, name


def test_names_in_an_onnx_file_are_no_code(folder: Path) -> None:
    """torch.fx writes the names of modules into Python code."""
    canary = folder / "canary"
    called = f'getattr(__import__("os"), "mkdir")("{canary}")'
    name = f'a")(input_0) if not {called} else getattr(self, "a'
    model = files.onnx_model()
    model.graph.node[0].name = name
    module = converters.load(files.save(model, folder / "model.onnx"))
    assert module.verification
    assert not canary.exists()
    root, graph = nn.Module(), fx.Graph()
    root.add_module(name, nn.Identity())
    graph.output(graph.call_module(name, (graph.placeholder("input_0"),)))
    with pytest.raises(AttributeError):
        fx.GraphModule(root, graph)(torch.ones(1))
    assert canary.exists()  # it is what the name itself would do


def test_external_data_in_the_models_folder_are_read(folder: Path, capsys: Capture) -> None:
    (folder / "kernel.bin").write_bytes(bytes(16) + files.KERNEL.tobytes())
    path = folder / "model.onnx"
    path.write_bytes(files.external(location="kernel.bin", offset=16, length=48))
    out = folder / "out.onnx"
    assert cli.main(["convert", str(path), "-o", str(out)]) == 0
    (kernel,) = onnx.load(out).graph.initializer
    assert np.array_equal(onnx.numpy_helper.to_array(kernel), files.KERNEL)


def test_hostile_data_files(folder: Path, capsys: Capture) -> None:
    canary = folder / "canary"
    model = files.save(files.onnx_model(), folder / "model.onnx")
    cases = files.data_files(folder, canary)
    before = listed(folder)
    for name, (data, said) in cases.items():
        out = folder / "out.npy"
        lines = [
            refused(capsys, "convert", model, "--data", data, "-o", folder / "out.onnx"),
            refused(capsys, "attack", model, "--no-verify", "--data", data, "-o", out, "--eps", 1),
        ]
        with pytest.raises(ValueError, match=re.escape(str(data))) as caught:
            user.read_arrays(data)
        for line in [*lines, str(caught.value)]:
            assert re.search(said, line), (name, line)
            assert str(data) in line, name
        assert listed(folder) == before, name
    np.load(cases["objects"][0], allow_pickle=True)["x"]
    assert canary.exists()  # it is what unpickling makes


def test_pickled_programs_are_read_only_where_that_is_allowed(
    folder: Path, capsys: Capture
) -> None:
    canary = folder / "canary"
    model = files.exported_program(folder / "model.pt2", canary)
    np.savez(folder / "in.npz", x=np.zeros((2, 4), np.float32), y=np.zeros(2, int))
    arguments = ("attack", model, "--data", folder / "in.npz", "-o", folder / "out.npy", "--eps", 1)
    assert "--allow-unsafe allows it" in refused(capsys, *arguments)
    assert not canary.exists()
    other = model.rename(model.with_suffix(".pt"))
    assert "got the suffix '.pt'" in refused(capsys, "convert", other)
    assert "got the suffix '.pt'" in refused(capsys, "attack", other, *arguments[2:])
    other.rename(model)
    assert not canary.exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert "expected a program that torch.export saved" in refused(
            capsys, *arguments, "--allow-unsafe"
        )
    assert canary.exists()


@pytest.mark.parametrize(
    ("members", "declared", "said"),
    [
        ({"../evil.json": b""}, {}, "inside of the archive, found one named '../evil.json'"),
        ({"/evil.json": b""}, {}, "inside of the archive"),
        ({"a\\..\\..\\evil.json": b""}, {}, "inside of the archive"),
        ({"C:evil.json": b""}, {}, "inside of the archive"),
        ({"model.weights.h5": b"0"}, {"model.weights.h5": 1 << 40}, "1099511627842 bytes"),
        ({}, {"metadata.json": 1 << 40}, "1099511627"),
        ({"metadata.json": b"[" * 100_000}, {}, "metadata.json"),
        ({"metadata.json": b"[1]"}, {}, "zip archive with metadata.json"),
        ({"metadata.json": b'{"keras_version": {}}'}, {}, "zip archive with metadata.json"),
        ({"metadata.json": b"\xff\xfe"}, {}, "could not read metadata.json"),
    ],
)
def test_keras_archives_are_checked_before_tensorflow_starts(
    members: dict[str, bytes],
    declared: dict[str, int],
    said: str,
    folder: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(*_: Any, **__: Any) -> None:
        raise AssertionError("TensorFlow was started")

    monkeypatch.setattr("torchfgsm.originals.process.Worker", start)
    path = folder / "model.keras"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two members of one name
        files.archive(path, {**files.keras_members({}), **members}, declared=declared)
    before = listed(folder.parent)
    assert said in refused(capsys, "convert", path, "-o", folder / "out.onnx")
    for arguments in (("attack", "-o", folder / "out.npy", "--eps", 1), ("compare",)):
        np.savez(folder / "in.npz", x=np.zeros((2, 3), np.float32), y=np.zeros(2, int))
        command, *more = arguments
        line = refused(capsys, command, path, "--data", folder / "in.npz", *more)
        assert str(path) in line
        (folder / "in.npz").unlink()
    assert listed(folder.parent) == before


def test_archives_of_zeros_are_not_bombs(tmp_path: Path) -> None:
    archives.refuse_growth(archives.LARGEST, 1000)
    archives.refuse_growth(archives.RATIO << 30, 1 << 30)
    with pytest.raises(ValueError, match="at most 200 times"):
        archives.refuse_growth(archives.LARGEST + 1, 1000)


def test_keras_3_models_for_the_originals_are_checked_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker that rebuilds them for Keras 2 reads the file itself."""
    monkeypatch.setattr(sys, "path", [*sys.path])  # it adds a folder
    script = Path(user.__file__).parent.parent / "originals" / "workers" / "rebuilding.py"
    spec = importlib.util.spec_from_file_location("rebuilding_worker", script)
    assert spec is not None
    assert spec.loader is not None
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    system = {"module": "os", "class_name": "function", "config": "system"}
    entry = {"name": "mine", "kernel_regularizer": {**system, "registered_name": "function"}}
    dense = {"module": "keras.layers", "class_name": "Dense", "config": entry}
    regularised = {"class_name": "Sequential", "config": {"name": "model", "layers": [dense]}}
    path = files.archive(tmp_path / "model.keras", files.keras_members(regularised))
    with pytest.raises(ValueError, match="layer 'mine': the file uses the function 'system'"):
        worker.rebuild({"model": str(path)}, {})
    files.archive(path, {**files.keras_members(regularised), "../evil": b""})
    with pytest.raises(ValueError, match="inside of the archive"):
        worker.rebuild({"model": str(path)}, {})
    assert "tensorflow" not in sys.modules
