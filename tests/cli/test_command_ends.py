"""How commands end: what is missing is named with its line, a fault of our own is told from it."""

from __future__ import annotations

import configparser
import json
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import environment

pytest.importorskip("onnx")
pytest.importorskip("onnx2torch")

from torchfgsm import cli
from torchfgsm.cli import ending
from torchfgsm.converters.errors import ConversionError, told_as
from torchfgsm.originals.process import WorkerError
from torchfgsm.parity import recorded
from torchfgsm.system import extras

Capture = pytest.CaptureFixture[str]
HIDING = """
import contextlib, io, json, sys
hidden, commands = json.loads(sys.argv[1])
for name in hidden:
    sys.modules[name] = None
from torchfgsm import cli
found = []
for command in commands:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        with contextlib.redirect_stderr(io.StringIO()) as err:
            code = cli.main(command)
    found.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(found))
"""
IMAGES = str(recorded.FOLDER / "digits.onnx")
CONVERT, CLI, REPORT = (f"pip install 'torchfgsm[{name}]'" for name in ("convert", "cli", "report"))


def arguments(folder: Path) -> dict[str, list[str]]:
    """The command lines, whose files are there and good."""
    data, keras = folder / "in.npz", folder / "m.keras"
    np.savez(data, x=np.zeros((2, 8, 8, 1), np.float32), y=np.array([0, 1]))
    with zipfile.ZipFile(keras, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "2.15.0"}))
        archive.writestr("config.json", "{}")
    given = ["--data", str(data)]
    out = str(folder / "out")
    return {
        "convert": ["convert", IMAGES],
        "convert keras": ["convert", str(keras)],
        "compare": ["compare", str(keras), *given],
        "attack": ["attack", IMAGES, *given, "-o", f"{out}.npy", "--eps", "0.1"],
        "explain": ["explain", IMAGES, *given],
        "explain html": ["explain", IMAGES, *given, "--html", f"{out}.html"],
        "demo": ["demo"],
        "demo recorded": ["demo", "--recorded"],
        "translate": ["translate", "--from", "nsl", "--to", "cleverhans3"],
        "env": ["env"],
    }


# What is missing -> the line that brings it, and the commands that need it.
MISSING: dict[str, tuple[str, list[str]]] = {
    "onnx": (
        CONVERT,
        ["convert", "convert keras", "compare", "attack", "explain", "demo", "demo recorded"]),
    "onnx2torch": (CONVERT, ["convert", "compare", "demo recorded"]),
    "platformdirs": (CONVERT, ["convert keras", "compare"]),
    "sklearn": (CLI, ["demo"]),
    "jinja2": (REPORT, ["explain html"]),
    "matplotlib": (REPORT, ["explain html"]),
}  # fmt: skip


def hidden(
    folder: Path, modules: Sequence[str], commands: Sequence[list[str]]
) -> list[tuple[int, str, str]]:
    """(code, stdout, stderr) of each command where modules are missing."""
    variables = environment(HOME=str(folder))
    variables = {k: v for k, v in variables.items() if not k.startswith("TORCHFGSM_")}
    done = subprocess.run(
        [sys.executable, "-c", HIDING, json.dumps([modules, commands])],
        capture_output=True, text=True, env=variables, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [(code, out, err) for code, out, err in json.loads(done.stdout)]


@pytest.mark.parametrize("module", MISSING)
def test_a_missing_package_is_named_with_its_line(tmp_path: Path, module: str) -> None:
    install, names = MISSING[module]
    commands = arguments(tmp_path)
    found = hidden(tmp_path, [module], [commands[name] for name in names])
    for name, (code, out, err) in zip(names, found, strict=True):
        line = err.splitlines()[-1]
        assert (code, out) == (2, ""), (name, err)
        assert f"needs {module}" in line, name
        assert install in line, name
        assert "damaged" not in line
        assert "Traceback" not in err
    assert not list(tmp_path.glob("out*"))


def test_what_needs_no_extra_runs_without_any(tmp_path: Path) -> None:
    """Of `attack` and `explain` an exported program of torch."""
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    program = torch.export.export(network, (torch.zeros(2, 8, 8, 1),))
    torch.export.save(program, tmp_path / "m.pt2")
    given = arguments(tmp_path)
    commands = [given["translate"], given["env"]]
    for name in ("attack", "explain"):
        commands.append([name, str(tmp_path / "m.pt2"), "--allow-unsafe", *given[name][2:]])
    for code, _, err in hidden(tmp_path, extras.KNOWN, commands):
        assert code == 0, err


def test_every_package_of_the_extras_is_known() -> None:
    config = configparser.ConfigParser()
    config.read(Path(__file__).parents[2] / "setup.cfg", encoding="utf-8")
    imported = {"scikit-learn": "sklearn"}
    for extra in ("convert", "cli", "report"):
        for requirement in config["options.extras_require"][extra].split():
            name = requirement.split(">")[0].split("<")[0]
            if name.isidentifier() or name in imported:
                line = extras.install_line(imported.get(name, name))
                assert line == f"pip install 'torchfgsm[{extra}]'", name
    assert extras.install_line("onnx.helper") == extras.install_line("onnx")
    assert extras.install_line("numpy") == extras.install_line(None) == ""


def ended(capsys: Capture, error: BaseException) -> tuple[int, list[str]]:
    def command() -> int:
        raise error

    code = ending.run(command, 2)
    return code, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    "error",
    [AssertionError("b"), AttributeError("a"), KeyError("c"), RuntimeError("d"), IndexError()],
)
def test_a_fault_of_our_own_has_a_code_and_a_trace(capsys: Capture, error: Exception) -> None:
    code, lines = ended(capsys, error)
    assert code == ending.FAULT == 70
    assert any(line.startswith("Traceback") for line in lines)
    assert "a fault of torchfgsm itself" in lines[-1]
    assert type(error).__name__ in lines[-1]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ValueError("bad\nvalue"), "bad value"),
        (ConversionError("no model"), "no model"),
        (WorkerError("ValueError", "far away", "trace"), "far away"),
        (MemoryError(), "not enough memory (MemoryError)"),
        (
            RuntimeError("CUDA out of memory. Tried"),
            "not enough memory (CUDA out of memory. Tried)",
        ),
        (RuntimeError("you can't allocate memory: x"), "not enough memory ("),
        (ModuleNotFoundError("No module", name="onnx.x"), f"No module: {CONVERT}"),
        (ModuleNotFoundError("No module", name="else"), "torchfgsm: No module"),
    ],
)
def test_what_a_user_can_mend_is_one_line(capsys: Capture, error: Exception, says: str) -> None:
    code, (line,) = ended(capsys, error)
    assert code == 2
    assert says in line


def test_the_exit_codes_are_on_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")
    for code in (ending.EQUAL, ending.DIFFERENT, ending.COULD_NOT_COMPARE, ending.FAULT):
        assert f"| {code} |" in page


@pytest.mark.parametrize(
    "error",
    [
        ConversionError("/tmp/a/m.keras: layer l is not supported"),
        WorkerError("ValueError", "/tmp/a/m.keras: layer l", "at /tmp/a/m.keras"),
        FileNotFoundError(2, "none", "/tmp/a/m.keras"),
    ],
)
def test_a_temporary_file_is_called_as_the_user_knows_it(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, told_as(Path("/tmp/a/m.keras"), "given.h5"):
        raise error
    assert "/tmp/a" not in str(caught.value)
    assert "given.h5" in ending.one_line(caught.value)


def test_compare_names_the_file_that_it_was_given(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a Keras 3 model, which is rebuilt in a temporary folder."""
    from torchfgsm import converters
    from torchfgsm.originals import keras2

    def rebuilt(path: Path, folder: Path, **_: Any) -> Path:
        return folder / f"{path.stem}.keras"

    def refusing(path: Path, **_: Any) -> Any:
        raise ConversionError(f"{path}: does not agree")

    monkeypatch.setattr(keras2, "keras2_file", rebuilt)
    monkeypatch.setattr(converters, "load", refusing)
    command = arguments(tmp_path)["compare"]
    assert cli.main(command) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == f"torchfgsm: {command[1]}: does not agree"


def test_what_is_no_matter_of_the_file_does_not_pass_for_damage(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchfgsm.converters import conversion

    for error, says in (
        (MemoryError(), "not enough memory"),
        (ImportError("half installed", name="onnx"), CONVERT),
        (OSError(28, "No space left on device"), f"{IMAGES}: [Errno 28] No space left on device"),
    ):

        def failing(*_: Any, error: Exception = error, **__: Any) -> Any:
            raise error

        monkeypatch.setattr(conversion, "build", failing)
        assert cli.main(["convert", IMAGES]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert says in line
        assert "damaged" not in line
