"""The commands with TensorFlow itself, broken off in each of their steps and without room."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from processes import MARK, marked, wait_until

pytest.importorskip("onnx2torch")
pytest.importorskip("sklearn")

from torchfgsm.originals import EnvironmentUnavailable
from torchfgsm.parity import digits

ROOT = Path(__file__).parents[2]
SAYS = {
    signal.SIGINT: "torchfgsm: interrupted",
    signal.SIGTERM: "torchfgsm: ended by SIGTERM",
}
# Command, what it has said when it is broken off, by which signal.
STEPS = [
    ("convert", "starting TensorFlow", signal.SIGINT),
    ("convert", "exporting", signal.SIGKILL),
    ("convert", "building", signal.SIGINT),
    ("convert", "verifying 2", signal.SIGTERM),
    ("compare", "converting", signal.SIGTERM),
    ("compare", "nsl / ", signal.SIGINT),
    ("demo", "training", signal.SIGKILL),
    ("demo", "digits-two-inputs: ", signal.SIGINT),
    ("demo", "nsl / ", signal.SIGTERM),
]
pytestmark = [pytest.mark.slow, pytest.mark.live, pytest.mark.usefixtures("default_signals")]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's models and data of one."""
    folder = tmp_path_factory.mktemp("models")
    try:
        digits.train_models(folder, epochs=1)
    except EnvironmentUnavailable as error:
        pytest.skip(str(error))
    batch = digits.batch("digits", 4)
    (images,) = batch.x.values()
    np.savez(folder / "data.npz", x=images, y=batch.y)
    return folder


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


def started(name: str, models: Path, temporary: Path) -> subprocess.Popen[str]:
    """A command, its output and what it says in one stream."""
    model, out = models / "digits.keras", temporary.parent / "out.onnx"
    arguments: dict[str, list[str | Path]] = {
        "convert": ["convert", model, "-o", out, "--force"],
        "compare": ["compare", model, "--data", models / "data.npz"],
        "demo": ["demo"],
    }
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "torchfgsm", *map(str, arguments[name])],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, MARK: str(temporary), "TMPDIR": str(temporary)},
        start_new_session=True,
    )


def left_in(folder: Path) -> list[Path]:
    """What is left of temporary files, but for the one that importing onnxruntime makes."""
    return [path for path in folder.iterdir() if path.name != ".ses"]


@pytest.mark.parametrize(("name", "step", "number"), STEPS)
def test_every_step(
    models: Path, temporary: Path, name: str, step: str, number: signal.Signals
) -> None:
    out = temporary.parent / "out.onnx"
    out.write_bytes(b"old")
    process = started(name, models, temporary)
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if step in line:
            break
    process.send_signal(number)
    said += process.communicate(timeout=60)[0].splitlines()
    assert any(step in line for line in said), said
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 2
        assert said[-1] == SAYS[number]
        assert not any("Traceback" in line for line in said)
    assert wait_until(lambda: not marked(str(temporary)))
    # The command's own folder stays where it has no time to remove it.
    own = f"torchfgsm-{name}-" if number == signal.SIGKILL else "none"
    assert [path for path in left_in(temporary) if not path.name.startswith(own)] == []
    assert sorted(path.name for path in temporary.parent.iterdir()) == ["out.onnx", "temporary"]
    assert out.read_bytes() == b"old"


@pytest.fixture
def full(temporary: Path) -> Iterator[Path]:
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(temporary)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root can make a small disk, and not in every container")
    yield temporary
    subprocess.run(["umount", "--lazy", str(temporary)], check=True)


def test_a_demo_without_room(models: Path, full: Path) -> None:
    process = started("demo", models, full)
    last = process.communicate(timeout=120)[0].splitlines()[-1]
    assert process.returncode == 2
    assert "the models could not be saved: [Errno 28] No space left on device" in last
    assert left_in(full) == []


def test_a_conversion_without_memory(
    models: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHFGSM_MEMORY_LIMIT", "0.3")
    process = started("convert", models, temporary)
    last = process.communicate(timeout=120)[0].splitlines()[-1]
    assert process.returncode == 2
    assert "TensorFlow needs too much memory" in last
    assert "at most 0.3 GB are allowed: TORCHFGSM_MEMORY_LIMIT sets another limit" in last
    assert left_in(temporary) == []
