"""CUDA C++ to machine code by NVRTC, the compiler library that comes with torch's CUDA builds.

It needs no GPU, no driver, no compiler of the user's and no header files.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torchfgsm.kernel.errors import KernelUnavailable

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


def version() -> tuple[int, int]:
    """NVRTC's version.

    Raises:
        KernelUnavailable: There is no NVRTC.
    """
    library = load()
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(library, library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return major.value, minor.value


@functools.cache
def load() -> ctypes.CDLL:
    """The library: that of the NVIDIA wheels that torch depends on, else the system's.

    Raises:
        KernelUnavailable: There is none, or it does not load.
    """
    tried = []
    for path in _candidates():
        try:
            # It looks for its own parts by the system's search path, where a wheel is not.
            for part in Path(path).parent.glob("libnvrtc-builtins.so.*"):
                if ".alt." not in part.name:
                    ctypes.CDLL(str(part))
            library = ctypes.CDLL(path)
        except OSError as error:
            tried.append(str(error))
            continue
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        return library
    raise KernelUnavailable(
        "NVRTC, which compiles the kernels, was not found: it comes with torch's CUDA builds, "
        f"or `pip install nvidia-cuda-nvrtc` (tried: {'; '.join(tried) or 'nothing'})"
    )


def _candidates() -> Iterator[str]:
    spec = importlib.util.find_spec("nvidia")
    for root in spec.submodule_search_locations or () if spec else ():
        for pattern in ("cu*/lib/libnvrtc.so.*", "cuda_nvrtc/lib/libnvrtc.so.*"):
            for path in sorted(Path(root).glob(pattern), reverse=True):
                if ".alt." not in path.name:
                    yield str(path)
    yield from ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")


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
    library = load()
    main, header = source()
    program = ctypes.c_void_p()
    _check(
        library,
        library.nvrtcCreateProgram(
            ctypes.byref(program),
            main.encode(),
            _MAIN.encode(),
            1,
            (ctypes.c_char_p * 1)(header.encode()),
            (ctypes.c_char_p * 1)(_HEADER.encode()),
        ),
    )
    try:
        for name in names:
            _check(library, library.nvrtcAddNameExpression(program, name.encode()))
        given = [f"--gpu-architecture=sm_{architecture}", *_OPTIONS, *options]
        encoded = (ctypes.c_char_p * len(given))(*[option.encode() for option in given])
        status = library.nvrtcCompileProgram(program, len(given), encoded)
        log = _bytes(library, program, "ProgramLog").decode(errors="replace").rstrip("\0")
        _check(library, status, log)
        symbols = {}
        for name in names:
            symbol = ctypes.c_char_p()
            _check(
                library, library.nvrtcGetLoweredName(program, name.encode(), ctypes.byref(symbol))
            )
            symbols[name] = (symbol.value or b"").decode()
        return Compiled(_bytes(library, program, "CUBIN"), symbols, log)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _bytes(library: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    _check(library, getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(max(1, size.value))
    _check(library, getattr(library, f"nvrtcGet{what}")(program, buffer))
    return buffer.raw


def _check(library: ctypes.CDLL, status: int, log: str = "") -> None:
    if status != 0:
        error = library.nvrtcGetErrorString(status).decode()
        raise KernelUnavailable(f"NVRTC could not compile the kernels: {error} {log}".rstrip())
