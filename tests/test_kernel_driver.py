"""Launches through a driver that runs kernels on the CPU, built with NVIDIA's declarations."""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from emulation import build, split
from kernel_cases import Case, difference, drawn

from torchfgsm.kernel import KernelUnavailable, cubins, driver, op
from torchfgsm.kernel.launching import perturb
from torchfgsm.kernel.plan import MOST_SHARED

PERTURB = torch.ops.torchfgsm.perturb.default
STREAM = 0x5EED


def header_folder() -> Path | None:
    """Where cuda.h is: in the wheels that torch's CUDA build depends on."""
    spec = importlib.util.find_spec("nvidia")
    roots = list(spec.submodule_search_locations or ()) if spec else []
    found = [path for root in roots for path in Path(root).glob("*/include/cuda.h")]
    return found[0].parent if found else None


pytestmark = pytest.mark.skipif(
    header_folder() is None or shutil.which("g++") is None, reason="cuda.h or g++ is not here"
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("driver"), ["float32"], cuda=header_folder())


@pytest.fixture
def cuda(library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The driver, and a GPU that torch says is a Hopper."""
    driver.load.cache_clear()
    driver.gpu.cache_clear()
    opened = ctypes.CDLL
    monkeypatch.setattr(
        ctypes, "CDLL", lambda name: opened(str(library) if name == "libcuda.so.1" else name)
    )
    hopper = SimpleNamespace(multi_processor_count=132, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: hopper)
    monkeypatch.setattr(driver, "_stream", lambda index: STREAM)
    monkeypatch.setattr(cubins, "get", lambda name, architecture: (b"\0cubin", name))
    monkeypatch.setattr(op, "_failures", {})
    yield driver.load()
    driver.load.cache_clear()
    driver.gpu.cache_clear()


def run(case: Case) -> list[torch.Tensor]:
    numbers, tensors, rules = split(case)
    return perturb(case.x, case.grad, case.origin, numbers, tensors, rules, driver.gpu(0))


def test_kernels_launched_through_the_driver_equal_the_reference(cuda: Any) -> None:
    for case in drawn(60, seed=6, dtypes=(torch.float32,)):
        assert difference(case, run(case), PERTURB(*case.arguments)) is None
    assert ctypes.c_int.in_dll(cuda, "largest_shared").value == MOST_SHARED
    assert ctypes.c_void_p.in_dll(cuda, "last_stream").value == STREAM


def cluster_case() -> Case:
    x = torch.rand(1, 40000)
    rules = ("l2", "zero", False, 0.0, True, "project_clip", "max")
    numbers = [0.1, float("inf"), 0.0, 1.0, 1.0]
    return Case("cluster", [x], [torch.randn(1, 40000)], [x], numbers, [None] * 5, rules)


def test_a_cluster_is_an_attribute_of_the_launch(cuda: Any) -> None:
    case = cluster_case()
    assert difference(case, run(case), PERTURB(*case.arguments)) is None
    assert ctypes.c_uint.in_dll(cuda, "last_attributes").value == 1
    small = drawn(1, seed=6, dtypes=(torch.float32,))[0]
    run(small)
    assert ctypes.c_uint.in_dll(cuda, "last_attributes").value == 0


def test_a_thread_without_a_context_gets_one(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    ctypes.c_int.in_dll(cuda, "refusals").value = 1
    case = cluster_case()
    assert difference(case, run(case), PERTURB(*case.arguments)) is None
    assert chosen == [0]
    ctypes.c_int.in_dll(cuda, "refusals").value = 2
    with pytest.raises(KernelUnavailable, match=r"CUDA error 201 while launching torchfgsm::"):
        run(case)
    assert ctypes.c_int.in_dll(cuda, "refusals").value == 0


def test_what_the_driver_refuses_is_said(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cubins, "get", lambda name, architecture: (b"\0cubin", "other"))
    with pytest.raises(KernelUnavailable, match=r"500 while finding .*: named symbol not found"):
        run(cluster_case())
    monkeypatch.setattr(cubins, "get", lambda name, architecture: (b"damaged", name))
    with pytest.raises(KernelUnavailable, match="1 while loading torchfgsm::perturb_rows"):
        run(cluster_case())


def test_a_machine_without_a_driver_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    driver.load.cache_clear()
    with pytest.raises(KernelUnavailable, match=r"no NVIDIA driver: libcuda\.so\.1"):
        driver.load()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    with pytest.raises(KernelUnavailable, match="older than CUDA 12"):
        driver.load()
    driver.load.cache_clear()
