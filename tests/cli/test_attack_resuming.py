"""`torchfgsm attack` broken off: killed, refused room, run again as it was or otherwise."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx2torch")

from attack_files import PGD, Array, classes, inputs, made, refused, run  # noqa: E402
from onnx_models import FLOAT, dense  # noqa: E402
from processes import environment  # noqa: E402

from torchfgsm.cli.attack import output as output_module  # noqa: E402

Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("one_thread")


def command(*arguments: Any) -> list[str]:
    return [sys.executable, "-m", "torchfgsm", "attack", *map(str, arguments)]


def noted(out: Path) -> int:
    """How many rows a run has noted as done."""
    note = Path(f"{out}.part.rows")
    found = note.read_text().split() if note.exists() else []
    return int(found[0]) if found else 0


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    model_file: Path, tmp_path: Path, capsys: Capture
) -> None:
    data = tmp_path / "in.npz"
    np.savez_compressed(data, x=inputs(6000), y=classes(6000))
    (tmp_path / "broken").mkdir()
    out = tmp_path / "broken" / "out.npy"
    arguments = (model_file, "--no-verify", "--data", data, *PGD, "--batch-size", 7)
    with subprocess.Popen(command(*arguments, "-o", out), env=environment()) as process:
        rows = 0
        while rows < 70 and process.poll() is None:
            time.sleep(0.001)
            rows = noted(out)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    rows = noted(out)
    assert 70 <= rows < 6000
    assert rows % 7 == 0
    assert not out.exists()
    code, _, lines = run(capsys, *arguments, "-o", out)
    assert code == 0
    assert f"torchfgsm: going on after {rows} rows of 6000" in lines
    (tmp_path / "whole").mkdir()
    made(model_file, data, tmp_path / "whole" / "out.npy", *PGD, "--batch-size", 7)
    names = ["out.labels.npy", "out.npy", "out.recipe.json"]
    for folder in ("broken", "whole"):
        assert sorted(p.name for p in (tmp_path / folder).iterdir()) == names
    for name in names:
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


class Broken(BaseException):
    """What no code of the product catches, as a kill."""


def break_off(monkeypatch: pytest.MonkeyPatch, *run: Any) -> None:
    """Ends a run after 20 of 50 rows, in two batches."""
    write = output_module.Output.write

    def until_20(self: Any, *batches: Array) -> None:
        if self.rows == 20:
            raise Broken
        write(self, *batches)

    with monkeypatch.context() as patch:
        patch.setattr(output_module.Output, "write", until_20)
        with pytest.raises(Broken):
            made(*run, *PGD, "--batch-size", 10)


@pytest.fixture
def broken_off(
    monkeypatch: pytest.MonkeyPatch, model_file: Path, data_file: Path, tmp_path: Path
) -> Path:
    """The output of a run that was broken off."""
    out = tmp_path / "out.npy"
    break_off(monkeypatch, model_file, data_file, out)
    assert noted(out) == 20
    assert json.loads(Path(f"{out}.part.json").read_text())["rows"] == 10
    return out


def test_a_run_that_may_replace_files_goes_on_without_being_told_again(
    monkeypatch: pytest.MonkeyPatch, model_file: Path, data_file: Path, tmp_path: Path,
    capsys: Capture,
) -> None:  # fmt: skip
    out = tmp_path / "out.npy"
    old = made(model_file, data_file, out, "--eps", 0.1)
    break_off(monkeypatch, model_file, data_file, out, "--force")
    assert np.array_equal(np.load(out), old)
    found = made(model_file, data_file, out, *PGD, "--batch-size", 10)
    assert "going on after 20 rows" in capsys.readouterr().err
    whole = made(model_file, data_file, tmp_path / "whole.npy", *PGD, "--batch-size", 10)
    assert np.array_equal(found, whole)


@pytest.mark.parametrize(("boot", "rows"), [(None, 20), ("another", 10)])
def test_after_the_system_went_down_only_rows_on_the_disk_count(
    monkeypatch: pytest.MonkeyPatch, model_file: Path, data_file: Path, tmp_path: Path,
    capsys: Capture, broken_off: Path, boot: str | None, rows: int,
) -> None:  # fmt: skip
    if boot:
        monkeypatch.setattr(output_module, "_boot", lambda: boot)
    found = made(model_file, data_file, broken_off, *PGD, "--batch-size", 10)
    assert f"going on after {rows} rows of 50" in capsys.readouterr().err
    whole = made(model_file, data_file, tmp_path / "whole.npy", *PGD, "--batch-size", 10)
    assert np.array_equal(found, whole)


CHANGES: dict[str, tuple[tuple[Any, ...], str]] = {
    "recipe": (("--eps", 0.3), r"another recipe \(before step 0\.1\d*, epsilon 0\.2, now"),
    "batch size": (("--batch-size", 5), r"another batch size \(before 10, now 5\)"),
    "seed": (("--seed", 1), "another seed"),
    "labels": (("--predicted-labels",), "another labels"),
}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", [*CHANGES, "model", "data"])
def test_another_run_does_not_go_on_and_loses_nothing(
    model_file: Path, data_file: Path, tmp_path: Path, capsys: Capture, broken_off: Path, name: str
) -> None:
    changes, says = CHANGES.get(name, ((), f"another {name} "))
    if name == "data":
        np.savez(data_file, x=inputs() + 1, y=classes())
    given = model_file
    if name == "model":
        given = tmp_path / "other.onnx"
        onnx.save(dense(np.ones((6, 3)), np.zeros(3), [], [("z", FLOAT, [3])]), given)
    before = contents(tmp_path)
    arguments = (given, "--no-verify", "--data", data_file, "-o", broken_off, *PGD)
    arguments = (*arguments, "--batch-size", 10, *changes)
    line = refused(capsys, *arguments)
    assert re.search(says, line), line
    assert "--force" in line
    assert contents(tmp_path) == before
    assert run(capsys, *arguments, "--force")[0] == 0
    fresh = tmp_path / "fresh.npy"
    assert np.array_equal(np.load(broken_off), made(given, data_file, fresh, *arguments[6:]))


def test_a_run_broken_off_while_its_files_get_their_names_is_finished(
    monkeypatch: pytest.MonkeyPatch, model_file: Path, data_file: Path, tmp_path: Path
) -> None:
    whole = made(model_file, data_file, tmp_path / "whole.npy", *PGD)
    out, calls, replace = tmp_path / "out.npy", [0], Path.replace
    for breaks_at in range(1, 4):  # recipe, labels, rows; then the state is all that is left

        def breaking(self: Path, target: Path, at: int = breaks_at) -> Path:
            if str(target).endswith((".labels.npy", ".recipe.json", "out.npy")):
                calls[0] += 1
                if calls[0] == at:
                    raise Broken
            return replace(self, target)

        for force in ((), ("--force",)):
            calls[0] = 0
            with monkeypatch.context() as patch:
                patch.setattr(Path, "replace", breaking)
                with pytest.raises(Broken):
                    made(model_file, data_file, out, *PGD, *force)
            # Goes on without --force, too, where the broken-off run had it.
            assert np.array_equal(made(model_file, data_file, out, *PGD), whole)
            assert not list(tmp_path.glob("*.part*"))
        for path in tmp_path.glob("out.*"):
            path.unlink()


def test_a_finished_run_given_again_has_nothing_to_do(
    monkeypatch: pytest.MonkeyPatch, model_file: Path, data_file: Path, tmp_path: Path,
    capsys: Capture,
) -> None:  # fmt: skip
    out, forced = tmp_path / "out.npy", [0]
    made(model_file, data_file, out, *PGD)
    before = contents(tmp_path)
    arguments = (model_file, "--no-verify", "--data", data_file, "-o", out, *PGD)
    create = output_module.Output.create

    def counted(self: Any, *given: Any) -> None:
        forced[0] += 1
        create(self, *given)

    monkeypatch.setattr(output_module.Output, "create", counted)
    capsys.readouterr()
    code, text, lines = run(capsys, *arguments)
    assert code == 0
    assert text.splitlines()[0] == f"complete already, by this same command: {out}, 50 rows"
    assert (lines, forced, contents(tmp_path)) == ([], [0], before)
    # Another one does not pass for it, nor do files that are not whole.
    assert "is there already; --force" in refused(capsys, *arguments, "--seed", 1)
    out.write_bytes(before["out.npy"][:-1])
    assert "is there already; --force" in refused(capsys, *arguments)
    assert run(capsys, *arguments, "--force")[0] == 0
    assert (forced, contents(tmp_path)) == ([1], before)


def test_files_that_are_not_as_they_were_left(
    model_file: Path, data_file: Path, tmp_path: Path, capsys: Capture, broken_off: Path
) -> None:
    arguments = [model_file, "--no-verify", "--data", data_file, "-o", broken_off, *PGD]
    arguments += ["--batch-size", 10]
    part = Path(f"{broken_off}.part")
    part.write_bytes(part.read_bytes()[:-1])
    assert "not as an earlier run left it" in refused(capsys, *arguments)
    Path(f"{broken_off}.part.json").write_text("{")
    assert "is damaged" in refused(capsys, *arguments)
    assert run(capsys, *arguments, "--force")[0] == 0


def test_two_runs_do_not_write_one_file(
    model_file: Path, data_file: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out.npy"
    with output_module.Output(out, []):
        arguments = (model_file, "--data", data_file, "-o", out, "--eps", 0.1)
        assert "another run is writing" in refused(capsys, *arguments)
    assert contents(tmp_path).keys() == {"in.npz"}


@pytest.mark.parametrize("batches", [0, 2])
def test_a_full_disk(
    monkeypatch: pytest.MonkeyPatch, model_file: Path, data_file: Path, tmp_path: Path,
    capsys: Capture, batches: int,
) -> None:  # fmt: skip
    out, done, sync = tmp_path / "out.npy", [0], os.fdatasync

    def full(descriptor: int) -> None:
        done[0] += 1
        if done[0] > 2 * batches:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    arguments = [model_file, "--no-verify", "--data", data_file, "-o", out, *PGD]
    arguments += ["--batch-size", 10]
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", full)
        patch.setattr(output_module, "SYNC_EVERY", 0.0)
        line = refused(capsys, *arguments)
    assert f"{out}.part: could not be written: No space left on device" in line
    assert ("20 rows are kept, and the same command goes on" in line) == bool(batches)
    # Rows that did not reach the disk are no longer noted.
    parts = {"out.npy.part", "out.npy.part.json", "out.labels.npy.part"}
    assert contents(tmp_path).keys() == {"in.npz"} | (parts if batches else set())
    code, _, lines = run(capsys, *arguments)
    assert code == 0
    assert any("going on after" in text for text in lines) == bool(batches)
    assert not batches or "torchfgsm: going on after 20 rows of 50" in lines


def test_room_that_the_system_refuses_is_refused_at_the_start(
    model_file: Path, data_file: Path, tmp_path: Path
) -> None:
    """Of the system itself, without a planted fault: files may have 1000 bytes."""
    (tmp_path / "out").mkdir()
    arguments = command(
        model_file, "--no-verify", "--data", data_file, "-o", tmp_path / "out" / "out.npy",
        "--eps", 0.1, "--batch-size", 10,
    )  # fmt: skip
    limited = "import resource, sys; from torchfgsm import cli;"
    limited += "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
    limited += "sys.exit(cli.main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-B", "-c", limited, *arguments[3:]],
        env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "out.npy.part: could not be written: File too large" in done.stderr.splitlines()[-1]
    assert not list((tmp_path / "out").iterdir())
