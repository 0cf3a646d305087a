"""Launches through a driver that runs kernels on the CPU, built with NVIDIA's declarations."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from emulation import build
from processes import SUPPORT, environment

from torchfgsm.kernel import KernelUnavailable, driver, errors, nvrtc


def header_folder() -> Path | None:
    """Where cuda.h is: in the wheels that torch's CUDA build depends on."""
    spec = importlib.util.find_spec("nvidia")
    roots = list(spec.submodule_search_locations or ()) if spec else []
    found = [path for root in roots for path in Path(root).glob("*/include/cuda.h")]
    return found[0].parent if found else None


@pytest.mark.skipif(
    header_folder() is None or shutil.which("g++") is None, reason="cuda.h or g++ is not here"
)
def test_launches_through_a_driver(tmp_path: Path) -> None:
    """In a process of its own, since a process loads one libcuda."""
    pytest.importorskip("cuda.bindings", reason="cuda-bindings are not installed")
    library = build(tmp_path, ["float32"], cuda=header_folder())
    library.rename(tmp_path / "libcuda.so.1")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, str(SUPPORT / "driver_cases.py")],
        cwd=Path(__file__).parents[2],
        env=environment(LD_LIBRARY_PATH=str(tmp_path)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout


@pytest.fixture
def _fresh() -> Iterator[None]:
    driver.load.cache_clear()
    nvrtc.load.cache_clear()
    yield
    driver.load.cache_clear()
    nvrtc.load.cache_clear()


@pytest.mark.usefixtures("_fresh")
def test_a_machine_without_a_driver_or_nvrtc_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: object) -> None:
        raise RuntimeError("the library was not found")

    nothing = SimpleNamespace(cuDriverGetVersion=missing, nvrtcVersion=missing)
    monkeypatch.setattr(driver, "bindings", lambda name: nothing)
    monkeypatch.setattr(nvrtc, "bindings", lambda name: nothing)
    with pytest.raises(KernelUnavailable, match="no NVIDIA driver: the library was not found"):
        driver.load()
    with pytest.raises(KernelUnavailable, match=r"NVRTC.*was not found.*pip install nvidia-cuda-n"):
        nvrtc.load()


def test_a_machine_without_the_bindings_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(KernelUnavailable, match="pip install cuda-bindings"):
        errors.bindings("driver")
