"""The port on another device: every case runs there alone, and equals the recorded originals."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.evidence import parity
from torchfgsm import converters
from torchfgsm.parity import functions, port, recorded
from torchfgsm.parity.cases import all_cases
from torchfgsm.parity.run import Converted


def test_rows_of_the_recorded_cases_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parity, "RESULTS", tmp_path / "results")
    cases = all_cases()[::8]  # the rest runs in test_parity_recorded.py
    monkeypatch.setattr("torchfgsm.parity.cases.all_cases", lambda: cases)
    readme = parity.README.read_text()
    assert parity.main(["--recorded", "--device", "cpu"]) == 0
    assert "PASSED" in capsys.readouterr().out
    (path,) = (tmp_path / "results").iterdir()
    assert path.name.startswith("parity-cpu-")
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["case"] for row in rows] == [case.name for case in cases]
    assert {row["torch"] for row in rows} == {torch.__version__}
    assert all(row["device"].startswith("cpu") and row["passed"] == "True" for row in rows)
    assert parity.README.read_text() == readme


def test_a_fault_in_the_port_is_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = functions.run_port

    def wrong(*arguments: Any) -> dict[str, Any]:
        return {name: value + 1e-3 for name, value in right(*arguments).items()}

    cases = [case for case in all_cases() if case.kind == "function"]
    monkeypatch.setattr("torchfgsm.parity.cases.all_cases", lambda: cases)
    monkeypatch.setattr(functions, "run_port", wrong)
    monkeypatch.setattr(parity, "RESULTS", tmp_path)
    assert parity.main(["--recorded"]) == 1
    assert "DIFFERENT" in capsys.readouterr().out


def test_the_originals_are_not_run_on_a_device(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parity.main(["--device", "cuda"])
    assert "--device needs --recorded" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(SystemExit, match="sees no CUDA device"):
        parity.main(["--recorded", "--device", "cuda"])


def test_every_kind_of_case_runs_on_its_models_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Meta tensors refuse to meet those of the CPU, and have no values to copy at the end."""
    recording = recorded.load()

    def load(path: Any) -> converters.ConvertedModel:
        return converters.load(path, verify=False).to("meta")

    models = Converted(recording.paths, recording.data(), load)
    # Checks of values: masks must lie in the range, all others look for something bad.
    monkeypatch.setattr("torchfgsm.nsl.lib._check_mask", lambda mask: None)
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda tensor: False)
    kinds = {
        (c.library, c.kind, c.model, c.extras, c.loss["class"], c.params.get("attack")): c
        for c in all_cases()
    }
    for case in kinds.values():
        with pytest.raises(NotImplementedError, match="Cannot copy out of meta"):  # noqa: PT012
            if case.kind == "function":
                functions.run_port(case, torch.device("meta"))
            else:
                port.run_port(case, models.converted(case), models.data(case.model))
    assert len(kinds) > 30


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_devices_run_without_tf32(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    seen: list[bool] = []

    def perturb(*arguments: Any) -> dict[str, Any]:
        seen.append(torch.backends.cudnn.deterministic)
        return {}

    monkeypatch.setattr(port, "perturb", perturb)
    case = next(case for case in all_cases() if case.kind == "perturb")
    port.run_port(case, torch.nn.Linear(1, 1, device=device), recorded.load().data()["digits"])
    assert seen == [device != "cpu"]


@pytest.mark.gpu
def test_recorded_cases_pass_on_cuda() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    verdicts = list(parity.recorded_verdicts(recorded.load(), torch.device("cuda")))
    assert len(verdicts) == len(all_cases())
    failed = [verdict.comparison.to_text() for verdict in verdicts if not verdict.passed]
    assert not failed, "\n".join(failed)
