"""CUDA C++ to machine code by NVRTC, the compiler library that comes with torch's CUDA builds.

It is called through NVIDIA's `cuda-bindings`, which come with torch too. It needs no GPU, no
driver, no compiler of the user's and no header files.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchfgsm.kernel.errors import KernelUnavailable, bindings

SOURCES = Path(__file__).parent / "csrc"
_MAIN, _HEADER = "perturb.cu", "arithmetic.h"
# No contraction: every product is rounded as torch's own operations round it.
_OPTIONS = ("--std=c++17", "--fmad=false")


@dataclass(frozen=True)
class Compiled:
    """Machine code of some kernels.

    Attributes:
        cubin: The code.
        symbols: C++ name of an instantiation -> its name in the code.
        log: What the compiler said.
    """

    cubin: bytes
    symbols: dict[str, str]
    log: str


@functools.cache
def source() -> tuple[str, str]:
    """The kernels' source and the header that it includes."""
    return (SOURCES / _MAIN).read_text(), (SOURCES / _HEADER).read_text()


@functools.cache
def load() -> Any:
    """NVIDIA's module for NVRTC, once it has found the library.

    Raises:
        KernelUnavailable: There are no bindings, or no NVRTC that they can load.
    """
    module = bindings("nvrtc")
    try:
        module.nvrtcVersion()
    except (OSError, RuntimeError) as error:
        raise KernelUnavailable(
            "NVRTC, which compiles the kernels, was not found: it comes with torch's CUDA builds, "
            f"or `pip install nvidia-cuda-nvrtc` ({error})"
        ) from error
    return module


def version() -> tuple[int, int]:
    """NVRTC's version.

    Raises:
        KernelUnavailable: There is no NVRTC.
    """
    nvrtc = load()
    _, major, minor = nvrtc.nvrtcVersion()
    return major, minor


def compile_kernels(
    names: Sequence[str], architecture: int, *, options: Sequence[str] = ()
) -> Compiled:
    """Compiles instantiations of the kernels for one architecture.

    Args:
        names: C++ names, see `plan.instantiations`.
        architecture: Compute capability, 90 for sm_90.
        options: More options for NVRTC.

    Raises:
        KernelUnavailable: NVRTC is missing or refuses; the text has its log.
    """
    nvrtc = load()
    main, header = source()
    program = _done(
        nvrtc.nvrtcCreateProgram(
            main.encode(), _MAIN.encode(), 1, [header.encode()], [_HEADER.encode()]
        )
    )
    try:
        for name in names:
            _done(nvrtc.nvrtcAddNameExpression(program, name.encode()))
        given = [f"--gpu-architecture=sm_{architecture}", *_OPTIONS, *options]
        result = nvrtc.nvrtcCompileProgram(program, len(given), [o.encode() for o in given])
        log = _bytes(nvrtc, program, "ProgramLog").decode(errors="replace").rstrip("\0")
        _done(result, log)
        symbols = {
            name: _done(nvrtc.nvrtcGetLoweredName(program, name.encode())).decode()
            for name in names
        }
        return Compiled(_bytes(nvrtc, program, "CUBIN"), symbols, log)
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _bytes(nvrtc: Any, program: Any, what: str) -> bytes:
    size = _done(getattr(nvrtc, f"nvrtcGet{what}Size")(program))
    buffer = bytes(size)  # the bindings write into it
    _done(getattr(nvrtc, f"nvrtcGet{what}")(program, buffer))
    return buffer


def _done(result: tuple[Any, ...], log: str = "") -> Any:
    """What a call gave, if it did what it should."""
    status, *values = result
    if status != 0:
        raise KernelUnavailable(
            f"NVRTC could not compile the kernels: {status.name} {log}".rstrip()
        )
    return values[0] if values else None
