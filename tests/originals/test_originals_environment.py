"""Environments of the originals: found, made once, never taken for finished when broken off."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from processes import MARK, marked, wait_until

from torchfgsm import originals
from torchfgsm.originals.environment import (
    ENVIRONMENTS,
    WITNESS,
    Environment,
    EnvironmentUnavailable,
    python_for,
    ready_python,
)

pytest.importorskip("filelock", reason="creating environments needs torchfgsm[convert]")

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCHFGSM_CACHE", str(tmp_path / "cache"))
    for environment in ENVIRONMENTS.values():
        monkeypatch.delenv(environment.variable, raising=False)
    return tmp_path / "cache" / "environments"


@pytest.fixture
def tiny(tmp_path: Path, cache: Path) -> Environment:
    """An environment without packages, for the Python that runs the tests."""
    requirements = tmp_path / "tiny.txt"
    requirements.write_text("# no packages\n")
    return Environment("tiny", "nothing", (VERSION, VERSION), 1, 20, "import sys", requirements)


@pytest.fixture
def quick(tmp_path: Path, tiny: Environment, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """The same, with processes that can be told apart."""
    monkeypatch.setenv(MARK, str(tmp_path))
    return tiny


def test_every_requirement_is_pinned_and_every_file_is_used() -> None:
    made = ENVIRONMENTS.values()
    files = {file for one in made for file in (one.requirements, *one.apart)}
    assert files == set(next(iter(files)).parent.glob("*.txt"))
    pinned = re.compile(r"[\w.-]+==[\w.]+(; python_version (<|>=) \"3\.\d+\")?")
    for file in files:
        lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
        assert lines
        for line in lines:
            assert pinned.fullmatch(line), (file.name, line)


def test_the_environments_hold_what_their_text_says() -> None:
    for environment in ENVIRONMENTS.values():
        files = (environment.requirements, *environment.apart)
        pins = "".join(file.read_text() for file in files)
        for version in re.findall(r"\d+\.\d+\.\d+", environment.holds):
            assert f"=={version}" in pins, (environment.name, version)


def test_an_existing_interpreter_can_be_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHFGSM_PYTHON_TENSORFLOW_2_21", sys.executable)
    assert python_for("keras-2") == Path(sys.executable)
    assert not cache.exists()


def test_a_named_interpreter_that_does_not_run_is_refused(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHFGSM_PYTHON_TENSORFLOW_2_15", "/no/such/python")
    with pytest.raises(
        EnvironmentUnavailable, match="TENSORFLOW_2_15 names /no/such/python, which"
    ):
        python_for(WITNESS)


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"keras-2, keras-3, tensorflow-2.15, got 'tensorflow'"):
        python_for("tensorflow")
    with pytest.raises(ValueError, match=r"nsl, cleverhans3, cleverhans-tf2, got 'foolbox'"):
        originals.start("foolbox")
    with pytest.raises(ValueError, match=r"runs in this process: .*cleverhans_torch"):
        originals.start("cleverhans-torch")


def test_without_a_suitable_python_the_text_says_how_to_get_one(
    tiny: Environment, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    old = dataclasses.replace(tiny, pythons=("3.2", "3.3"))
    text = r"(?s)needs Python 3.2 to 3.3: install one.* TORCHFGSM_PYTHON_TINY.*>=3.2, ?<3.4"
    with pytest.raises(EnvironmentUnavailable, match=text):
        ready_python(old)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


@pytest.mark.parametrize("module", ["filelock", "platformdirs", "uv"])
def test_without_the_extra_the_text_says_what_to_install(
    tiny: Environment, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if module == "platformdirs":
        monkeypatch.delenv("TORCHFGSM_CACHE")
    if module == "uv":
        monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EnvironmentUnavailable, match=rf"{module}: pip install 'torchfgsm\[conv"):
        ready_python(dataclasses.replace(tiny, name="never-made"))


def test_made_once_said_beforehand_and_used_where_it_was_renamed_to(
    tiny: Environment, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = ready_python(tiny)
    said = capsys.readouterr().err.splitlines()
    assert "about 1 MB to download, 20 MB on disk" in said[0]
    assert str(cache) in said[0]
    assert re.fullmatch(r"torchfgsm: environment tiny is ready after \d+ s", said[-1])
    code = "import sys; print(sys.prefix)"
    prefix = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True).stdout
    assert Path(prefix.strip()) == python.parent.parent
    assert not list(cache.glob("*.building-*"))
    assert ready_python(tiny) == python
    assert capsys.readouterr().err == ""


def test_a_changed_pin_is_another_environment(tiny: Environment, tmp_path: Path) -> None:
    before = tiny.folder_name
    tiny.requirements.write_text("# other packages\n")
    assert tiny.folder_name != before
    apart = tmp_path / "apart.txt"
    apart.write_text("# more\n")
    assert dataclasses.replace(tiny, apart=(apart,)).folder_name != tiny.folder_name


def test_a_failed_creation_leaves_nothing_and_shows_the_output(
    quick: Environment, cache: Path
) -> None:
    failing = dataclasses.replace(quick, check="raise SystemExit('the cause')")
    text = r"(?s)tiny \(nothing\) could not be created: .* code 1.*RCHFGSM_PYTHON_TINY .*the cause"
    with pytest.raises(EnvironmentUnavailable, match=text):
        ready_python(failing)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def creating(
    tiny: Environment, check: str = "import sys", before: str = ""
) -> subprocess.Popen[str]:
    """Another process that makes the same environment."""
    code = f"""
import pathlib
from torchfgsm.originals.environment import Environment, ready_python
fields = {dataclasses.asdict(tiny) | {"requirements": str(tiny.requirements), "check": check}!r}
fields["requirements"] = pathlib.Path(fields["requirements"])
{before}
print(ready_python(Environment(**fields)))
"""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(text: str, process: subprocess.Popen[str]) -> None:
    """Waits until a process has said something, for a minute."""
    assert process.stderr is not None
    limit = threading.Timer(60, process.kill)
    limit.start()
    while text not in (line := process.stderr.readline()):
        assert line, process.communicate()
    limit.cancel()


def test_a_creation_that_was_killed_ends_at_once_and_is_done_by_who_waits(
    quick: Environment, cache: Path, tmp_path: Path
) -> None:
    """Killed is the process alone, not its group: a venv's Python is at work below it."""
    pid = tmp_path / "pid"
    check = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    first = creating(quick, check)
    try:
        wait_for("trying it", first)
        while not (pid.exists() and pid.read_text()):
            time.sleep(0.02)
        (unfinished,) = cache.glob("*.building-*")
        second = creating(quick)
        wait_for("waiting for another process that creates environment tiny", second)
    finally:
        first.kill()
        first.communicate()
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert Path(out.strip()).exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert not unfinished.exists()
    assert not list(cache.glob("*.building-*"))


def test_what_a_power_cut_leaves_is_made_anew(quick: Environment, cache: Path) -> None:
    name = quick.folder_name
    (cache / f"{name}.building-1234").mkdir(parents=True)
    (cache / name).mkdir()  # the final name without an interpreter
    (cache / f"{name}.lock").touch()
    assert ready_python(quick).exists()
    assert not list(cache.glob("*.building-*"))


@pytest.mark.usefixtures("default_signals")
def test_an_interrupted_creation_leaves_nothing(
    quick: Environment, cache: Path, tmp_path: Path
) -> None:
    process = creating(quick, check="import time; time.sleep(600)")
    wait_for("trying it", process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert wait_until(lambda: not marked(str(tmp_path)))
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_a_disk_without_room_leaves_nothing(tiny: Environment, cache: Path) -> None:
    """Of the system itself: no file may have more than 1000 bytes."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))"
    process = creating(tiny, before=limit)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "EnvironmentUnavailable: environment tiny (nothing) could not be created: `" in err
    assert "File too large" in err or "SIGXFSZ" in err
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


@pytest.mark.parametrize("place", ["mkdir", "mkdtemp", "lock"])
def test_a_folder_that_cannot_be_written_is_named(
    quick: Environment, cache: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(cache))

    if place == "lock":
        cache.parent.mkdir()
        cache.touch()
    else:
        holder: Any = Path if place == "mkdir" else tempfile
        monkeypatch.setattr(holder, place, full)
    text = rf"tiny could not be created in {cache}: .*; TORCHFGSM_CACHE names another folder"
    with pytest.raises(EnvironmentUnavailable, match=text):
        ready_python(quick)


def test_two_processes_at_once_make_it_once(quick: Environment) -> None:
    processes = [creating(quick), creating(quick)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    (first, _), (second, _) = outputs
    assert first == second
    assert Path(first.strip()).exists()
    assert "".join(err for _, err in outputs).count("creating environment") == 1


def test_the_import_is_light() -> None:
    code = """
import sys, torchfgsm.originals
heavy = {"tensorflow", "filelock", "platformdirs", "onnx"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)
