"""A disk without room, a real one of 1 MB: one line, nothing half-made, and the next run works."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from processes import SUPPORT

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx2torch")

from attack_files import classes, inputs, write_model  # noqa: E402
from onnx_models import FLOAT, dense  # noqa: E402

from torchfgsm import cli  # noqa: E402
from torchfgsm.originals.process import Worker, WorkerError  # noqa: E402

WORKER = SUPPORT / "protocol_worker.py"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root can make a small disk, and not in every container")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def full(disk: Path) -> Iterator[Path]:
    """The disk, filled but for 20 kB."""
    filling = disk / "filling"
    with filling.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(filling, filling.stat().st_size - 20_000)
    yield disk
    for path in disk.iterdir():
        path.unlink()


def make_room(disk: Path) -> None:
    (disk / "filling").unlink()


def refused(capsys: Capture, *arguments: object) -> str:
    """The last line of a refusal, which says what the matter is."""
    code = cli.main(list(map(str, arguments)))
    shown = capsys.readouterr()
    assert (code, shown.out) == (2, "")
    assert "Traceback" not in shown.err
    return shown.err.splitlines()[-1]


def test_convert(capsys: Capture, full: Path, tmp_path: Path) -> None:
    model, out = tmp_path / "model.onnx", full / "out.onnx"
    kernel = np.random.default_rng(0).normal(size=(200, 100))
    onnx.save(dense(kernel, np.zeros(100), [], [("z", FLOAT, [100])]), model)
    out.write_bytes(b"old")
    arguments = ["convert", model, "-o", out, "--no-verify", "--force"]
    line = refused(capsys, *arguments)
    assert line == f"torchfgsm: {out}: could not be written: No space left on device"
    assert out.read_bytes() == b"old"
    assert sorted(p.name for p in full.iterdir()) == ["filling", "out.onnx"]
    make_room(full)
    assert cli.main(list(map(str, arguments))) == 0
    assert list(full.iterdir()) == [out]


def test_attack(capsys: Capture, full: Path, tmp_path: Path) -> None:
    model, data, out = write_model(tmp_path / "m.onnx"), tmp_path / "in.npz", full / "out.npy"
    np.savez(data, x=inputs(2000), y=classes(2000))
    arguments = ["attack", model, "--no-verify", "--data", data, "-o", out, "--eps", "0.1"]
    line = refused(capsys, *arguments)
    assert line == f"torchfgsm: {out}.part: could not be written: No space left on device"
    assert [p.name for p in full.iterdir()] == ["filling"]
    make_room(full)
    assert cli.main(list(map(str, arguments))) == 0
    assert sorted(p.name for p in full.iterdir()) == [
        "out.labels.npy", "out.npy", "out.recipe.json",
    ]  # fmt: skip


def test_temporary_files_and_output_of_a_worker(
    full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(full))
    with Worker(Path(sys.executable), WORKER) as worker:
        with pytest.raises(WorkerError, match="No space left on device") as caught:
            worker.call("chatters", size=2_000_000, pause=0)
        assert caught.value.kind == "OSError"
        assert worker.call("echo", x=1).values == {"x": 1}
    assert [path.name for path in full.iterdir()] == ["filling"]


@pytest.mark.parametrize("length", [10, 100_000])  # written when the command ends, and before
@pytest.mark.parametrize("says", ["No space left on device", "Broken pipe"])
def test_standard_output(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, says: str, length: int
) -> None:
    def command(_: object) -> int:
        print("x" * length)
        return 0

    reading, target = os.pipe()
    os.close(reading)
    if says != "Broken pipe":
        os.close(target)
        target = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(cli.commands, "_env", command)
    with open(target, "w") as output, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", output)
        assert cli.main(["env"]) == 2
    # Closing it said nothing more, nor does the interpreter at its end.
    assert re.fullmatch(rf"torchfgsm: .*{says}\n", capsys.readouterr().err)
