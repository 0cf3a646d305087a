"""Pythons on this machine: which of them runs, and in which version."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence

from torchfgsm.originals import guarded

_PATIENCE = 30.0  # seconds; a Python on a cold network disk starts slowly


def find(versions: Sequence[str]) -> tuple[str, str] | None:
    """Returns the first version that this machine has, with its interpreter.

    Each candidate is run, because a file called python3.11 may be a shim that only says that it is
    not installed. Where there is none and ``uv`` is on PATH, the interpreter is given as the
    version alone, which makes uv fetch it.

    Args:
        versions: such as ("3.11", "3.10"), the preferred one first.
    """
    uv = shutil.which("uv")
    for version in versions:
        for candidate in _candidates(version):
            if version_of(candidate, needs_pip=uv is None) == version:
                return version, candidate
    return (versions[0], versions[0]) if uv else None


def version_of(python: str, *, needs_pip: bool = False) -> str | None:
    """Returns the version of an interpreter as "3.11", or None where it does not run.

    Args:
        python: path of the interpreter.
        needs_pip: whether it must also be able to make virtual environments with pip inside.
    """
    modules = "sys, venv, ensurepip" if needs_pip else "sys"
    code = f"import {modules}; print('%d.%d' % sys.version_info[:2])"
    try:
        ended, printed = guarded.run(
            [python, "-I", "-c", code], seconds=_PATIENCE, stderr=subprocess.DEVNULL
        )
    except OSError:
        return None
    return printed.strip() if ended == 0 else None


def _candidates(version: str) -> Iterator[str]:
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        yield sys.executable
    for folder in os.get_exec_path():
        candidate = os.path.join(folder, f"python{version}")
        if os.access(candidate, os.X_OK):
            yield candidate
