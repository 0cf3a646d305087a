"""Processes that a test starts: their environment, whether they live, and all of one mark."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import torchfgsm

SUPPORT = Path(__file__).parent
"""Where the scripts of workers lie."""
TESTS = SUPPORT.parent
MARK = "TORCHFGSM_TEST_MARK"
"""A variable of the environment by whose value every process below a test is found."""


def environment(**variables: str) -> dict[str, str]:
    """One in which a process imports the torchfgsm of this one, a checkout's or a wheel's.

    It finds what the tests import too, and computes in one thread.
    """
    rooms = sorted(path for path in TESTS.iterdir() if path.is_dir())
    folders = (Path(torchfgsm.__file__).parent.parent, TESTS.parent, *rooms)
    path = os.pathsep.join(map(str, folders))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **variables}


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    return False


def marked(mark: str) -> list[int]:
    """The processes, other than this one, that have a mark in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        with contextlib.suppress(OSError):
            held = f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0")
            if held and pid != os.getpid() and alive(pid):
                found.append(pid)
    return found


def wait_until(condition: Callable[[], object], seconds: float = 20.0) -> bool:
    """Whether a condition comes true in so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False
