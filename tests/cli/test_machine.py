"""What `torchfgsm env` shows, and arithmetic without TF32 that is put back afterwards."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from torchfgsm import cli, kernel
from torchfgsm.cli import env
from torchfgsm.originals import environment
from torchfgsm.system.arithmetic import exact_arithmetic


@pytest.fixture(autouse=True)
def no_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kernel, "why_not", lambda device=None: "there is no device here")
    monkeypatch.setattr(kernel, "cache_folder", lambda: tmp_path / "cubins")
    monkeypatch.setenv("TORCHFGSM_CACHE", str(tmp_path))
    for made in environment.ENVIRONMENTS.values():
        monkeypatch.delenv(made.variable, raising=False)


def test_json_is_all_that_is_on_stdout(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["env", "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert captured.err == ""
    assert found["torch"] == torch.__version__
    assert found["native kernel"] == {
        "in use for CUDA tensors": False,
        "why not": "there is no device here",
        "cache": str(tmp_path / "cubins"),
    }
    assert found["packages"]["onnx"] == metadata.version("onnx")
    assert found["variables"] == {"TORCHFGSM_CACHE": str(tmp_path)}
    assert set(found["environments"].values()) == {None}


def test_text_has_a_line_for_every_fact(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["env"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"torch: {torch.__version__}" in lines
    assert "  why not: there is no device here" in lines
    assert "  tensorflow-2.15: none" in lines
    assert "  cuDNN deterministic: no" in lines


def test_numbers_are_not_taken_for_yes_and_no() -> None:
    text = env.to_text({"a": 1, "b": {"c": 0, "d": True, "e": False, "f": None}, "g": {}})
    assert text.splitlines() == [
        "a: 1",
        "b:",
        "  c: 0",
        "  d: yes",
        "  e: no",
        "  f: none",
        "g: none",
    ]


def test_packages_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", nothing)
    found = env.describe()
    assert set(found["packages"].values()) == {None}
    assert found["cuda"]["NVRTC"] is None


def test_devices_and_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(name="Card", major=9, minor=0, total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card)
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/nvidia-smi")
    done = subprocess.CompletedProcess([], 0, stdout="580.65.06\n580.65.06\n")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: done)
    found = env.describe()["cuda"]
    assert found["driver"] == "580.65.06"
    assert found["device 0"] == "Card, compute capability 9.0, 80.0 GiB"


@pytest.mark.parametrize("fault", [OSError(), subprocess.TimeoutExpired("nvidia-smi", 1)])
def test_a_driver_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise fault

    monkeypatch.setattr(shutil, "which", lambda name: "/bin/nvidia-smi")
    monkeypatch.setattr(subprocess, "run", fail)
    assert env.describe()["cuda"]["driver"] is None


def test_environments_that_exist_or_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first, second = environment.ENVIRONMENTS.values()
    assert env.describe()["environments"] == {first.name: None, second.name: None}
    monkeypatch.setenv(first.variable, "/some/python")
    folder = tmp_path / "environments" / second.folder_name
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").touch()
    assert env.describe()["environments"] == {
        first.name: "/some/python",
        second.name: str(folder / "bin" / "python"),
    }


def settings() -> list[Any]:
    backends: Any = torch.backends
    return [
        backends.cudnn.conv.fp32_precision,
        backends.cudnn.rnn.fp32_precision,
        backends.cuda.matmul.fp32_precision,
        backends.cudnn.deterministic,
        backends.cudnn.benchmark,
    ]


needs_new_switches = pytest.mark.skipif(
    not hasattr(torch.backends.cudnn, "conv"), reason="torch before 2.9 has allow_tf32 only"
)


@needs_new_switches
@pytest.mark.parametrize("before", ["tf32", "ieee", "none", "allow_tf32 off", "mixed"])
def test_exact_arithmetic_is_put_back(before: str) -> None:
    backends: Any = torch.backends
    at_first = settings()
    if before == "allow_tf32 off":
        backends.cudnn.allow_tf32 = False
    elif before == "mixed":
        backends.cudnn.conv.fp32_precision = "ieee"  # allow_tf32 cannot be read any more
    else:
        for holder in (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul):
            holder.fp32_precision = before
    backends.cudnn.benchmark = True
    was = settings()
    try:
        with pytest.raises(ZeroDivisionError), exact_arithmetic():  # noqa: PT012
            assert settings() == ["ieee"] * 3 + [True, False]
            described = env.describe()["arithmetic"]
            assert not any(value for name, value in described.items() if "TF32" in name)
            raise ZeroDivisionError
        assert settings() == was
    finally:
        backends.cudnn.allow_tf32 = True
        for holder, value in zip(
            (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul), at_first, strict=False
        ):
            holder.fp32_precision = value
        backends.cudnn.benchmark = False
    assert settings() == at_first


def test_older_flags_are_used_where_torch_has_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    cudnn = SimpleNamespace(allow_tf32=True, deterministic=False, benchmark=True)
    older = {"TF32 in cuDNN", "TF32 in matrix products"}
    matmul = SimpleNamespace(allow_tf32=True)
    cuda = SimpleNamespace(matmul=matmul)
    monkeypatch.setattr(torch, "backends", SimpleNamespace(cudnn=cudnn, cuda=cuda))
    assert {name for name, on in env._arithmetic().items() if on} >= older
    with exact_arithmetic():
        assert not older & {name for name, on in env._arithmetic().items() if on}
        assert vars(cudnn) == {"allow_tf32": False, "deterministic": True, "benchmark": False}
        assert not matmul.allow_tf32
    assert vars(cudnn) == {"allow_tf32": True, "deterministic": False, "benchmark": True}
    assert matmul.allow_tf32


@pytest.mark.gpu
def test_convolutions_without_tf32_are_near_float64() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    x = torch.randn(4, 64, 32, 32, device="cuda")
    weight = torch.randn(64, 64, 3, 3, device="cuda")
    with exact_arithmetic():
        found = torch.conv2d(x, weight)
    exact = torch.conv2d(x.double(), weight.double())
    assert float((found - exact).abs().max() / exact.abs().max()) < 1e-5
