"""Tests of launches through a driver, run by test_kernel_driver.py with one that is an emulator."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from emulation import run
from kernel_cases import Case, difference, drawn, plain

from torchfgsm.kernel import KernelUnavailable, cubins, driver
from torchfgsm.kernel.plan import MOST_SHARED

PERTURB = torch.ops.torchfgsm.perturb.default
STREAM = 0x5EED


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The driver's library, and a GPU that torch says is a Hopper."""
    hopper = SimpleNamespace(multi_processor_count=132, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: hopper)
    monkeypatch.setattr(driver, "_stream", lambda index: STREAM)
    monkeypatch.setattr(cubins, "get", lambda name, architecture: (b"\0cubin", name))
    driver.gpu.cache_clear()
    yield ctypes.CDLL("libcuda.so.1")
    driver.gpu.cache_clear()
    driver.load.cache_clear()


def run_on_gpu(case: Case) -> list[torch.Tensor]:
    return run(case, driver.gpu(0))


def test_kernels_launched_through_the_driver_equal_the_reference(cuda: Any) -> None:
    for case in drawn(24, seed=6, dtypes=(torch.float32,)):
        assert difference(case, run_on_gpu(case), PERTURB(*case.arguments)) is None
    assert ctypes.c_int.in_dll(cuda, "largest_shared").value == MOST_SHARED
    assert ctypes.c_void_p.in_dll(cuda, "last_stream").value == STREAM


def cluster_case() -> Case:
    return plain("l2", torch.rand(1, 40000), torch.randn(1, 40000), guard=0.0)


def test_a_cluster_is_an_attribute_of_the_launch(cuda: Any) -> None:
    case = cluster_case()
    assert difference(case, run_on_gpu(case), PERTURB(*case.arguments)) is None
    assert ctypes.c_uint.in_dll(cuda, "last_attributes").value == 1
    small = drawn(1, seed=6, dtypes=(torch.float32,))[0]
    run_on_gpu(small)
    assert ctypes.c_uint.in_dll(cuda, "last_attributes").value == 0


def test_a_thread_without_a_context_gets_one(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    ctypes.c_int.in_dll(cuda, "refusals").value = 1
    case = cluster_case()
    assert difference(case, run_on_gpu(case), PERTURB(*case.arguments)) is None
    assert chosen == [0]
    ctypes.c_int.in_dll(cuda, "refusals").value = 2
    with pytest.raises(KernelUnavailable, match=r"CUDA error 201 while launching torchfgsm::"):
        run_on_gpu(case)
    assert ctypes.c_int.in_dll(cuda, "refusals").value == 0


def test_what_the_driver_refuses_is_said(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cubins, "get", lambda name, architecture: (b"\0cubin", "other"))
    with pytest.raises(KernelUnavailable, match=r"500 while finding .*: named symbol not found"):
        run_on_gpu(cluster_case())
    monkeypatch.setattr(cubins, "get", lambda name, architecture: (b"damaged", name))
    with pytest.raises(KernelUnavailable, match="1 while loading torchfgsm::perturb_rows"):
        run_on_gpu(cluster_case())


def test_a_driver_of_old_is_refused(cuda: Any) -> None:
    driver.load.cache_clear()
    ctypes.c_int.in_dll(cuda, "driver_version").value = 11080
    with pytest.raises(KernelUnavailable, match="for CUDA 11 and the kernels need 12"):
        driver.load()
    ctypes.c_int.in_dll(cuda, "driver_version").value = 13000
