"""Environments of the originals: found, made once, never taken for finished when broken off."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from torchfgsm import originals
from torchfgsm.originals import interpreters
from torchfgsm.originals.environment import (
    ENVIRONMENTS,
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
    return Environment("tiny", "nothing", (VERSION,), 1, 20, "import sys", requirements)


def test_every_requirement_is_pinned_and_every_file_is_used() -> None:
    files = {environment.requirements for environment in ENVIRONMENTS.values()}
    assert files == set(next(iter(files)).parent.glob("*.txt"))
    pinned = re.compile(r"[\w.-]+==[\w.]+(; python_version (<|>=) \"3\.\d+\")?")
    for file in files:
        lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
        assert lines
        for line in lines:
            assert pinned.fullmatch(line), (file.name, line)


def test_the_environments_hold_what_their_text_says() -> None:
    for environment in ENVIRONMENTS.values():
        pins = environment.requirements.read_text().lower()
        for version in re.findall(r"\d+\.\d+\.\d+", environment.holds):
            assert f"=={version}" in pins, (environment.name, version)


def test_an_existing_interpreter_can_be_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHFGSM_PYTHON_TENSORFLOW_2_15", sys.executable)
    assert python_for("tensorflow-2.15") == Path(sys.executable)
    assert not cache.exists()


def test_a_named_interpreter_that_does_not_run_is_refused(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHFGSM_PYTHON_CLEVERHANS_3", "/no/such/python")
    with pytest.raises(EnvironmentUnavailable, match="CLEVERHANS_3 names /no/such/python, which"):
        python_for("cleverhans-3")


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"tensorflow-2.15, cleverhans-3, .* got 'tensorflow'"):
        python_for("tensorflow")
    with pytest.raises(ValueError, match=r"nsl, cleverhans3, cleverhans-tf2, got 'foolbox'"):
        originals.start("foolbox")
    with pytest.raises(ValueError, match=r"runs in this process: .*cleverhans_torch"):
        originals.start("cleverhans-torch")


def test_without_a_suitable_python_the_text_says_how_to_get_one(
    tiny: Environment, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    old = dataclasses.replace(tiny, pythons=("3.3", "3.2"))
    text = r"needs Python 3.3 or 3.2 .* python3.3-venv.* uv.* TORCHFGSM_PYTHON_TINY"
    with pytest.raises(EnvironmentUnavailable, match=text):
        ready_python(old)
    assert not cache.exists()


@pytest.mark.parametrize("module", ["filelock", "platformdirs"])
def test_without_the_extra_the_text_says_what_to_install(
    tiny: Environment, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if module == "platformdirs":
        monkeypatch.delenv("TORCHFGSM_CACHE")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EnvironmentUnavailable, match=rf"{module}: pip install 'torchfgsm\[conv"):
        ready_python(dataclasses.replace(tiny, name="never-made"))


def script_in(folder: Path, text: str) -> str:
    folder.mkdir()
    path = folder / "python9.9"
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_a_shim_that_fails_and_a_wrong_version_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_in(tmp_path / "shim", "#!/bin/sh\necho 9.9: not installed >&2\nexit 127\n")
    script_in(tmp_path / "wrong", "#!/bin/sh\necho 9.8\n")
    right = script_in(tmp_path / "right", "#!/bin/sh\necho 9.9\n")
    folders = ["shim", "wrong", "right"]
    monkeypatch.setenv("PATH", os.pathsep.join(str(tmp_path / name) for name in folders))
    assert interpreters.find(("9.10", "9.9")) == ("9.9", right)
    assert interpreters.find(("9.8",)) is None


def test_uv_is_asked_for_a_python_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert interpreters.find(("9.9", "9.8")) is None
    (tmp_path / "uv").write_text("#!/bin/sh\n")
    (tmp_path / "uv").chmod(0o755)
    assert interpreters.find(("9.9", "9.8")) == ("9.9", "9.9")


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


def test_a_changed_pin_or_python_is_another_environment(tiny: Environment) -> None:
    from torchfgsm.originals.environment import _folder_name

    before = _folder_name(tiny, "3.11")
    assert _folder_name(tiny, "3.10") != before
    tiny.requirements.write_text("# other packages\n")
    assert _folder_name(tiny, "3.11") != before


def test_a_failed_creation_leaves_nothing_and_shows_the_output(
    tiny: Environment, cache: Path
) -> None:
    failing = dataclasses.replace(tiny, check="raise SystemExit('the cause')")
    text = r"(?s)tiny could not be created: .* exit code 1.* TORCHFGSM_PYTHON_TINY .*the cause"
    with pytest.raises(EnvironmentUnavailable, match=text):
        ready_python(failing)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def creating(tiny: Environment, check: str = "import sys") -> subprocess.Popen[str]:
    """Another process that makes the same environment."""
    code = f"""
import pathlib
from torchfgsm.originals.environment import Environment, ready_python
fields = {dataclasses.asdict(tiny) | {"requirements": str(tiny.requirements), "check": check}!r}
fields["requirements"] = pathlib.Path(fields["requirements"])
print(ready_python(Environment(**fields)))
"""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_creation_that_was_killed_is_done_again(tiny: Environment, cache: Path) -> None:
    process = creating(tiny, check="import time; time.sleep(600)")
    try:
        assert process.stderr is not None
        while "trying it" not in (line := process.stderr.readline()):
            assert line, process.communicate()
        assert len(list(cache.glob("*.building-*"))) == 1
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    # Also what a machine that lost power might leave: the final name without an interpreter.
    unfinished = next(cache.glob("*.building-*"))
    (cache / unfinished.name.split(".building-")[0]).mkdir()
    start = time.monotonic()
    python = ready_python(tiny)
    assert time.monotonic() - start < 60  # not blocked by the dead process's lock
    assert python.exists()
    assert not list(cache.glob("*.building-*"))


def test_two_processes_at_once_make_it_once(tiny: Environment) -> None:
    processes = [creating(tiny), creating(tiny)]
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
