"""The command line: exit codes, one line for each refusal, JSON for programs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import environment

from torchfgsm import cli
from torchfgsm.cli import ending
from torchfgsm.parity import port, recorded
from torchfgsm.parity.cases import main_cases


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, x=np.zeros((2, 8, 8, 1), np.float32), y=np.array([0, 1]))
    return path


@pytest.fixture
def broken_model(tmp_path: Path) -> Path:
    path = tmp_path / "model.keras"
    path.write_bytes(b"this is no archive")
    return path


def test_without_an_environment_the_demo_says_so_and_takes_recorded_results(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHFGSM_PYTHON_TENSORFLOW_2_21", "/no/such/python")
    monkeypatch.setattr("torchfgsm.parity.cases.main_cases", lambda: main_cases()[:2])
    code, out, err = run(capsys, "demo")
    assert code == 0, err
    assert out.splitlines()[-1].startswith("PASSED: 2 compared")
    said = err.splitlines()
    assert any("TENSORFLOW_2_21 names /no/such/python, which does not run" in line for line in said)
    assert "the originals cannot run here, so that their recorded results stand for them" in said


def test_recorded_demo_is_equal(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "demo", "--recorded")
    assert code == ending.EQUAL
    assert "PASSED" in out.splitlines()[-1]
    assert "recorded results of" in err


def test_json_is_all_there_is_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "demo", "--recorded", "--json")
    found = json.loads(out)
    assert code == ending.EQUAL
    assert found["passed"] is True
    assert {row["case"].split(" /")[0] for row in found["rows"]} == set(found["versions"])


def test_a_fault_in_the_port_is_exit_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = port.perturb

    def wrong(*arguments: Any) -> dict[str, Any]:
        return {name: value + np.float32(1e-3) for name, value in right(*arguments).items()}

    monkeypatch.setattr(port, "perturb", wrong)
    code, out, _ = run(capsys, "demo", "--recorded")
    assert code == ending.DIFFERENT
    assert "DIFFERENT" in out.splitlines()[-1]


def test_no_recording_is_exit_code_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(recorded.load, "__defaults__", (tmp_path,))
    code, out, err = run(capsys, "demo", "--recorded")
    assert (code, out) == (ending.COULD_NOT_COMPARE, "")
    assert len(err.splitlines()) == 1


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    code, out, err = run(capsys, "compare", *arguments)
    assert code == ending.COULD_NOT_COMPARE
    assert out == ""
    assert "Traceback" not in err
    return err.splitlines()[-1]


def test_missing_model(capsys: pytest.CaptureFixture[str], data_file: Path) -> None:
    assert "no such file" in refused(capsys, "nowhere.keras", "--data", str(data_file))


def test_onnx_has_no_original(
    capsys: pytest.CaptureFixture[str], data_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"")
    assert "cannot run an ONNX file" in refused(capsys, str(path), "--data", str(data_file))


def test_unknown_library(
    capsys: pytest.CaptureFixture[str], data_file: Path, broken_model: Path
) -> None:
    arguments = (str(broken_model), "--data", str(data_file), "--against", "foolbox")
    assert "nsl, cleverhans3" in refused(capsys, *arguments)


def test_missing_data(capsys: pytest.CaptureFixture[str], broken_model: Path) -> None:
    assert "no such file" in refused(capsys, str(broken_model), "--data", "nowhere.npz")


def test_data_are_read_without_pickle(
    capsys: pytest.CaptureFixture[str], broken_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x=np.array([{"a": 1}], dtype=object), y=np.array([0]))
    assert "plain arrays" in refused(capsys, str(broken_model), "--data", str(path))


def test_data_without_labels(
    capsys: pytest.CaptureFixture[str], broken_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x=np.zeros(3))
    assert "class numbers" in refused(capsys, str(broken_model), "--data", str(path))


def test_unreadable_model(
    capsys: pytest.CaptureFixture[str], broken_model: Path, data_file: Path
) -> None:
    assert "model.keras" in refused(capsys, str(broken_model), "--data", str(data_file))


@pytest.mark.parametrize(
    "command",
    [["-h"], ["attack", "-h"], ["compare", "-h"], ["demo", "-h"], ["env", "-h"], ["--version"]],
)
def test_help_needs_nothing_heavy(command: list[str]) -> None:
    code = (
        "import sys\nfrom torchfgsm import cli\n"
        "try:\n    cli.main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "heavy = {'tensorflow', 'onnx', 'onnx2torch', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *command],
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert result.returncode == 0, result.stderr
    assert "torchfgsm" in result.stdout
