"""Compiled kernels on disk, so that a kernel is compiled once for a user and not once a process.

Machine code is loaded into the GPU as it is, so it is taken only from a folder and from files that
this user owns and nobody else can write.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import stat
import tempfile
import warnings
from pathlib import Path

from torchfgsm.kernel import nvrtc
from torchfgsm.version import __version__

_MAGIC = b"torchfgsm kernel 1\n"


def cache_folder() -> Path:
    """Where compiled kernels are kept: below TORCHFGSM_CACHE, or the user's cache folder."""
    chosen = os.environ.get("TORCHFGSM_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute() / "kernels"
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser().absolute() / "torchfgsm" / "kernels"


def get(name: str, architecture: int) -> tuple[bytes, str]:
    """Machine code of one kernel and its name in it, from the cache or compiled now.

    Args:
        name: C++ name of the instantiation.
        architecture: Compute capability, 90 for sm_90.

    Raises:
        KernelUnavailable: It is not in the cache and NVRTC cannot compile it.
    """
    folder = _usable(cache_folder())
    path = folder / _key(name, architecture) if folder else None
    found = _read(path) if path else None
    if found is None:
        compiled = nvrtc.compile_kernels([name], architecture)
        found = compiled.cubin, compiled.symbols[name]
        if path:
            _write(path, *found)
    return found


def _key(name: str, architecture: int) -> str:
    facts = (__version__, nvrtc.source(), name, architecture, nvrtc.version())
    return hashlib.sha256(repr(facts).encode()).hexdigest()


@functools.cache
def _usable(folder: Path) -> Path | None:
    """The folder, made if need be; None, with a warning, where it cannot be trusted or written."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        facts = folder.lstat()
    except OSError as error:
        _warn(folder, str(error))
        return None
    if not stat.S_ISDIR(facts.st_mode):
        _warn(folder, "it is not a folder")
    elif not _is_private(facts):
        _warn(folder, "it belongs to another user or others can write to it")
    else:
        return folder
    return None


def _warn(folder: Path, why: str) -> None:
    warnings.warn(
        f"compiled kernels are not kept in {folder}: {why}. Each process compiles them anew; name "
        "another folder in TORCHFGSM_CACHE",
        UserWarning,
        stacklevel=2,
    )


def _is_private(facts: os.stat_result) -> bool:
    return facts.st_uid == os.geteuid() and not facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _read(path: Path) -> tuple[bytes, str] | None:
    """The entry; None where there is none, or it is another user's, damaged or cut short."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as stream:
        facts = os.fstat(stream.fileno())
        if not stat.S_ISREG(facts.st_mode) or not _is_private(facts):
            return None
        content = stream.read()
    digest, _, body = content.removeprefix(_MAGIC).partition(b"\n")
    if not content.startswith(_MAGIC) or hashlib.sha256(body).hexdigest().encode() != digest:
        return None
    symbol, _, cubin = body.partition(b"\n")
    return cubin, symbol.decode()


def _write(path: Path, cubin: bytes, symbol: str) -> None:
    """Writes an entry whole or not at all; a full or read-only disk only costs the next process."""
    body = symbol.encode() + b"\n" + cubin
    content = _MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        _warn(path.parent, str(error))
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
