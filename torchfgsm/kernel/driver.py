"""Kernels loaded and launched through the driver, by NVIDIA's `cuda-bindings`."""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable
from typing import Any

import torch

from torchfgsm.kernel import cubins
from torchfgsm.kernel.arguments import Args
from torchfgsm.kernel.errors import KernelUnavailable, bindings
from torchfgsm.kernel.plan import MOST_SHARED, Device, Launch

_OLDEST = 12000  # CUDA 12, the first whose kernels serve every context


@functools.cache
def load() -> Any:
    """NVIDIA's module for the driver, once it has found the driver.

    Raises:
        KernelUnavailable: There are no bindings, no driver, or one older than CUDA 12.
    """
    cuda = bindings("driver")
    try:
        status, version = cuda.cuDriverGetVersion()
    except (OSError, RuntimeError) as error:
        raise KernelUnavailable(f"there is no NVIDIA driver: {error}") from error
    if status != 0 or version < _OLDEST:
        raise KernelUnavailable(
            f"the NVIDIA driver is for CUDA {version // 1000} and the kernels need 12: update it"
        )
    return cuda


class Gpu:
    """Runs kernels on one device, on torch's current stream there.

    Args:
        index: The device's index.
    """

    def __init__(self, index: int) -> None:
        facts = torch.cuda.get_device_properties(index)
        self.index = index
        self.device = Device(facts.multi_processor_count, facts.major * 10 + facts.minor)
        self._kernels: dict[str, Any] = {}
        self._loading = threading.Lock()

    def bind(self, launch: Launch, args: Args) -> Callable[[], None]:
        """What queues one kernel, on the struct as it is then.

        Raises:
            KernelUnavailable: The kernel cannot be compiled, loaded or, when called, launched.
        """
        cuda, index = load(), self.index
        kernel = self._kernels.get(launch.kernel) or self._load(launch)
        config = cuda.CUlaunchConfig()
        config.gridDimX, config.gridDimY = launch.grid
        config.blockDimX = launch.threads
        config.gridDimZ = config.blockDimY = config.blockDimZ = 1
        config.sharedMemBytes = launch.shared
        if launch.cluster > 1:
            attribute = cuda.CUlaunchAttribute()
            attribute.id = cuda.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
            cluster = attribute.value.clusterDim
            cluster.x, cluster.y, cluster.z = launch.cluster, 1, 1
            config.attrs, config.numAttrs = [attribute], 1
        # The struct is the kernel's one parameter; the driver copies it before it returns.
        parameters = (ctypes.c_void_p * 1)(ctypes.addressof(args))
        where, queue = ctypes.addressof(parameters), cuda.cuLaunchKernelEx
        no_context = cuda.CUresult.CUDA_ERROR_INVALID_CONTEXT

        def run(kept: object = (args, parameters)) -> None:  # which are known by address alone
            config.hStream = _stream(index)
            (status,) = queue(config, kernel, where, 0)
            if status == no_context:  # a thread that has not used this device yet
                torch.cuda.set_device(index)
                (status,) = queue(config, kernel, where, 0)
            if status:
                _done((status,), f"launching {launch.kernel}")

        return run

    def _load(self, launch: Launch) -> Any:
        """The kernel, loaded at its first launch."""
        name, cuda = launch.kernel, load()
        with self._loading:
            if name in self._kernels:  # by another thread
                return self._kernels[name]
            cubin, symbol = cubins.get(name, self.device.architecture)
            library = _done(cuda.cuLibraryLoadData(cubin, [], [], 0, [], [], 0), f"loading {name}")
            kernel = _done(cuda.cuLibraryGetKernel(library, symbol.encode()), f"finding {name}")
            if launch.shared:  # more than 48 KiB must be asked for
                most = cuda.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                device = _done(cuda.cuDeviceGet(self.index), "finding the device")
                asked = cuda.cuKernelSetAttribute(most, MOST_SHARED, kernel, device)
                _done(asked, f"asking for {MOST_SHARED} bytes of shared memory for {name}")
            # A kernel is launched as a function, which then belongs to the current context.
            self._kernels[name] = cuda.CUfunction(int(kernel))
            return self._kernels[name]


@functools.cache
def gpu(index: int) -> Gpu:
    """The launcher of a device."""
    return Gpu(index)


def _stream(index: int) -> int:
    raw = getattr(torch._C, "_cuda_getCurrentRawStream", None)  # a tenth of the public call's time
    return raw(index) if raw else torch.cuda.current_stream(index).cuda_stream


def _done(result: tuple[Any, ...], doing: str) -> Any:
    """What a call of the driver gave, if it did what it should."""
    status, *values = result
    if status != 0:
        _, text = load().cuGetErrorString(status)
        said = (text or b"unknown").decode()
        raise KernelUnavailable(f"CUDA error {int(status)} while {doing}: {said}")
    return values[0] if values else None
