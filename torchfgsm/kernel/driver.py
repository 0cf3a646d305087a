"""Kernels loaded and launched through libcuda, the driver's own library, by ctypes."""

from __future__ import annotations

import ctypes
import functools
import threading
from typing import Any

import torch

from torchfgsm.kernel import cubins
from torchfgsm.kernel.arguments import Args
from torchfgsm.kernel.errors import KernelUnavailable
from torchfgsm.kernel.plan import MOST_SHARED, Device, Launch

_INVALID_CONTEXT = 201
_CLUSTER_DIMENSION = 4  # CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
_MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES


class _Attribute(ctypes.Structure):
    """`CUlaunchAttribute`, whose value is a union of 64 bytes."""

    _fields_ = (
        ("id", ctypes.c_int),
        ("padding", ctypes.c_int),
        ("cluster", ctypes.c_uint * 3),
        ("rest", ctypes.c_char * 52),
    )


class _Config(ctypes.Structure):
    """`CUlaunchConfig`."""

    _fields_ = (
        *((name, ctypes.c_uint) for name in ("grid_x", "grid_y", "grid_z")),
        *((name, ctypes.c_uint) for name in ("block_x", "block_y", "block_z")),
        ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(_Attribute)),
        ("count", ctypes.c_uint),
    )


@functools.cache
def load() -> Any:
    """Libcuda.

    Raises:
        KernelUnavailable: There is no NVIDIA driver, or one older than CUDA 12.
    """
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise KernelUnavailable(f"there is no NVIDIA driver: {error}") from error
    if not hasattr(library, "cuLibraryLoadData"):
        raise KernelUnavailable("the NVIDIA driver is older than CUDA 12: update it")
    library.cuLaunchKernelEx.argtypes = [
        ctypes.POINTER(_Config),
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]
    return library


class Gpu:
    """Launches kernels on one device, on torch's current stream there.

    Args:
        index: The device's index.
    """

    def __init__(self, index: int) -> None:
        facts = torch.cuda.get_device_properties(index)
        self.index = index
        self.device = Device(facts.multi_processor_count, facts.major * 10 + facts.minor)
        self._kernels: dict[str, ctypes.c_void_p] = {}
        self._loading = threading.Lock()

    def launch(self, launch: Launch, args: Args) -> None:
        """Queues one kernel.

        Raises:
            KernelUnavailable: The kernel cannot be compiled, loaded or launched.
        """
        kernel = self._kernels.get(launch.kernel) or self._load(launch)
        attribute = _Attribute(_CLUSTER_DIMENSION, 0, (launch.cluster, 1, 1))
        config = _Config(
            *launch.grid,
            1,
            launch.threads,
            1,
            1,
            launch.shared,
            _stream(self.index),
            ctypes.pointer(attribute),
            int(launch.cluster > 1),
        )
        # The struct is the kernel's one parameter; the driver copies it before it returns.
        parameters = (ctypes.c_void_p * 1)(ctypes.addressof(args))
        status = load().cuLaunchKernelEx(config, kernel, parameters, None)
        if status == _INVALID_CONTEXT:  # a thread that has not used this device yet
            torch.cuda.set_device(self.index)
            status = load().cuLaunchKernelEx(config, kernel, parameters, None)
        _check(status, f"launching {launch.kernel}")

    def _load(self, launch: Launch) -> ctypes.c_void_p:
        """The kernel, loaded at its first launch."""
        name, cuda = launch.kernel, load()
        with self._loading:
            cubin, symbol = cubins.get(name, self.device.architecture)
            library, kernel, device = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_int()
            data = cuda.cuLibraryLoadData(
                ctypes.byref(library), cubin, None, None, 0, None, None, 0
            )
            _check(data, f"loading {name}")
            found = cuda.cuLibraryGetKernel(ctypes.byref(kernel), library, symbol.encode())
            _check(found, f"finding {name}")
            if launch.shared:  # more than 48 KiB must be asked for
                _check(cuda.cuDeviceGet(ctypes.byref(device), self.index), "finding the device")
                asked = cuda.cuKernelSetAttribute(_MAX_DYNAMIC_SHARED, MOST_SHARED, kernel, device)
                _check(asked, f"asking for {MOST_SHARED} bytes of shared memory for {name}")
            self._kernels[name] = kernel
        return kernel


@functools.cache
def gpu(index: int) -> Gpu:
    """The launcher of a device."""
    return Gpu(index)


def _stream(index: int) -> int:
    raw = getattr(torch._C, "_cuda_getCurrentRawStream", None)  # a tenth of the public call's time
    return raw(index) if raw else torch.cuda.current_stream(index).cuda_stream


def _check(status: int, doing: str) -> None:
    if status == 0:
        return
    text = ctypes.c_char_p()
    load().cuGetErrorString(status, ctypes.byref(text))
    raise KernelUnavailable(f"CUDA error {status} while {doing}: {(text.value or b'?').decode()}")
