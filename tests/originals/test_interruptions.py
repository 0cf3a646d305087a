"""Commands that are broken off by signals: one line, nothing half-made, no process left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import MARK, marked, wait_until

pytest.importorskip("onnx2torch")
pytest.importorskip("filelock")

from attack_files import classes, inputs, write_model

from torchfgsm import cli
from torchfgsm.originals import ENVIRONMENTS, installer

ROOT = Path(__file__).parents[2]
SAYS = {
    signal.SIGINT: "torchfgsm: interrupted",
    signal.SIGTERM: "torchfgsm: ended by SIGTERM",
    signal.SIGHUP: "torchfgsm: ended by SIGHUP",
}
Capture = pytest.CaptureFixture[str]


class Place:
    """A folder with a model and data, and what a command must leave as it was."""

    def __init__(self, folder: Path, mark: str) -> None:
        self.folder, self.mark = folder, mark
        self.temporary, self.busy = folder / "temporary", folder / "busy"
        self.temporary.mkdir()
        with zipfile.ZipFile(folder / "model.keras", "w") as archive:
            archive.writestr("metadata.json", json.dumps({"keras_version": "2.15.0"}))
            archive.writestr("config.json", "{}")
        np.savez(folder / "data.npz", x=np.zeros((2, 4), np.float32), y=np.array([0, 1]))
        (folder / "old.onnx").write_bytes(b"old")
        self.before = self.files()

    def script(self, path: Path, text: str) -> None:
        """Writes a shell script that stands in for a program; `hang` waits without end."""
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\nhang() {{ echo $$ > {self.busy}; exec sleep 300; }}\n{text}\n")
        path.chmod(0o755)

    def files(self) -> dict[str, bytes]:
        """The files that a user sees."""
        return {p.name: p.read_bytes() for p in self.folder.iterdir() if p.is_file()}

    def arguments(self, name: str) -> list[str]:
        """The command line of a command that needs TensorFlow."""
        model, data = str(self.folder / "model.keras"), str(self.folder / "data.npz")
        return {
            "convert": ["convert", model, "-o", str(self.folder / "old.onnx"), "--force"],
            "compare": ["compare", model, "--data", data],
            "attack": [
                "attack", model, "--data", data, "-o", str(self.folder / "out.npy"), "--eps", "0.1",
            ],
            "demo": ["demo"],
        }[name]  # fmt: skip

    def check_nothing_is_left(self) -> None:
        """No process, no temporary file, and every file as it was."""
        assert wait_until(lambda: not marked(self.mark)), marked(self.mark)
        assert wait_until(lambda: not list(self.temporary.iterdir()))
        self.busy.unlink(missing_ok=True)
        assert self.files() == self.before


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, default_signals: None) -> Place:
    made = Place(tmp_path, str(tmp_path))
    monkeypatch.setenv(MARK, made.mark)
    monkeypatch.setenv("TMPDIR", str(made.temporary))
    monkeypatch.setenv("TORCHFGSM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(made.temporary))
    for environment in ENVIRONMENTS.values():
        monkeypatch.delenv(environment.variable, raising=False)
    return made


@pytest.fixture
def hanging_tensorflow(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A TensorFlow that is busy without end; what else is run in its Python works."""
    python = place.folder / "bin" / "python"
    text = f'case "$*" in *guard.py*) ;; *serve.py*) hang ;; esac\nexec {sys.executable} "$@"'
    place.script(python, text)
    for environment in ENVIRONMENTS.values():
        monkeypatch.setenv(environment.variable, str(python))


@contextlib.contextmanager
def signalled(number: int, when: Callable[[], object]) -> Iterator[None]:
    """Sends this process a signal once a condition holds."""

    def send() -> None:
        if wait_until(when):
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    yield
    thread.join()


def broken_off(capsys: Capture, place: Place, number: int, name: str) -> None:
    with signalled(number, lambda: place.busy.exists() and place.busy.read_text()):
        code = cli.main(place.arguments(name))
    shown = capsys.readouterr()
    assert code == 2
    assert shown.out == ""
    assert shown.err.splitlines()[-1] == SAYS[signal.Signals(number)]
    assert "Traceback" not in shown.err
    place.check_nothing_is_left()


@pytest.mark.parametrize("number", SAYS)
@pytest.mark.parametrize("name", ["convert", "compare", "attack", "demo"])
@pytest.mark.usefixtures("hanging_tensorflow")
def test_while_tensorflow_computes(capsys: Capture, place: Place, number: int, name: str) -> None:
    broken_off(capsys, place, number, name)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("number", SAYS)
def test_while_an_environment_is_created(
    capsys: Capture, place: Place, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = place.folder / "bin" / "uv"
    place.script(uv, f"[ $1 = pip ] && hang\nexec {sys.executable} -I -m venv --without-pip $5")
    monkeypatch.setattr(installer, "program", lambda: str(uv))
    broken_off(capsys, place, number, "convert")
    left = (place.folder / "cache" / "environments").iterdir()
    assert [path.suffix for path in left] == [".lock"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_rows_are_attacked_keeps_them(
    capsys: Capture, place: Place, number: int, one_thread: None
) -> None:
    folder = place.folder / "attack"
    folder.mkdir()
    model, data, out = write_model(folder / "m.onnx"), folder / "in.npz", folder / "out.npy"
    np.savez(data, x=inputs(6000), y=classes(6000))
    note = Path(f"{out}.part.rows")

    def begun() -> bool:
        return note.exists() and int((note.read_text() or "0").split()[0]) >= 70

    arguments = ["attack", str(model), "--no-verify", "--data", str(data), "-o", str(out)]
    arguments += ["--eps", "0.1", "--batch-size", "7"]
    with signalled(number, begun):
        assert cli.main(arguments) == 2
    rows = int(note.read_text().split()[0])
    says = f"{SAYS[signal.Signals(number)]}; {rows} rows are kept, and the same command goes on"
    assert capsys.readouterr().err.splitlines()[-1] == f"{says} after them"
    assert not out.exists()
    assert cli.main(arguments) == 0
    assert f"going on after {rows} rows" in capsys.readouterr().err
    assert sorted(p.name for p in folder.glob("out*")) == [
        "out.labels.npy", "out.npy", "out.recipe.json",
    ]  # fmt: skip
    place.check_nothing_is_left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.usefixtures("hanging_tensorflow")
def test_from_outside(place: Place, number: int) -> None:
    """Ctrl-C of a terminal goes to the whole group; SIGKILL leaves no time to tidy up."""
    command = [sys.executable, "-m", "torchfgsm", *place.arguments("convert")]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=ROOT
    )
    assert wait_until(place.busy.exists)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=20)
    if number == signal.SIGINT:
        assert process.returncode == 2
        assert err.splitlines()[-1] == SAYS[signal.SIGINT]
    else:
        assert process.returncode == -signal.SIGKILL
    place.check_nothing_is_left()


def test_signals_that_the_caller_uses_stay_the_callers(capsys: Capture) -> None:
    caught: list[int] = []

    def mine(number: int, _: Any) -> None:
        caught.append(number)

    def command(_: Any) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cli.commands, "_env", command)
            assert cli.main(["env"]) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught == [signal.SIGTERM]
