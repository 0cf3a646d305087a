"""Commands that end when this process does, with all that they started, and in bounded memory."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class GuardedProcess:
    """A command in a session of its own, under the eyes of a guard (``workers/guard.py``).

    The guard kills the command, and the processes that it started, once this process is gone,
    however it ended: also by a signal that leaves no time to tidy up. A signal of the terminal
    reaches this process alone. The command's stdin is empty.

    Args:
        command: the program and its arguments.
        folder: is removed where the command is ended, by this process or because it is gone.
        memory_limit: bytes that the command itself may have in memory; 0: no limit.
        python: the interpreter that runs the guard.
        **options: of ``subprocess.Popen``.

    Raises:
        OSError: there is no such interpreter, or the system refuses a process.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        folder: Path | None = None,
        memory_limit: int = 0,
        python: str | Path = sys.executable,
        **options: Any,
    ) -> None:
        """Starts the command."""
        self._owner = os.getpid()
        self._line, far = socket.socketpair()
        guard = [str(python), "-I", "-S", str(_GUARD), str(memory_limit), str(folder or "")]
        try:
            with far:
                self._popen: subprocess.Popen[bytes] = subprocess.Popen(
                    [*guard, *map(str, command)],
                    stdin=far.fileno(),
                    start_new_session=True,
                    **options,
                )
        except BaseException:
            self._line.close()
            raise
        self.memory_used = 0
        """Bytes that were too many for ``memory_limit``; 0 where it did not end for that."""

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._popen.poll() is None

    @property
    def returncode(self) -> int:
        """How the command ended, as in ``subprocess``, once :meth:`end` was called."""
        return int(self._popen.returncode)

    def wait(self, seconds: float) -> None:
        """Gives it so many seconds to end by itself."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(seconds)

    def output(self, seconds: float | None = None) -> str:
        """Waits for the end and returns what was printed, where ``stdout`` is a pipe.

        Raises:
            subprocess.TimeoutExpired: it took longer.
        """
        printed, _ = self._popen.communicate(timeout=seconds)
        return bytes(printed).decode(errors="replace")

    def end(self) -> None:
        """Ends everything; calling it again does nothing.

        In a process that was forked off it does nothing but close this process' copies.
        """
        if self._line.fileno() >= 0 and os.getpid() == self._owner:
            # Not only closed: a process that was forked off may hold a copy.
            with contextlib.suppress(OSError):
                self._line.shutdown(socket.SHUT_WR)
            self._popen.wait()
            with contextlib.suppress(OSError, ValueError):
                self.memory_used = int(self._line.recv(64))
        self._line.close()
        if self._popen.stdout is not None:
            self._popen.stdout.close()


def run(
    command: Sequence[str | Path], *, folder: Path | None = None, seconds: float | None = None,
    env: Mapping[str, str] | None = None,
) -> tuple[int, str]:  # fmt: skip
    """Runs a command to its end and returns its exit code and all that it printed.

    Args:
        command: the program and its arguments.
        folder: is removed where it is broken off.
        seconds: how long it may take; then it is killed, which its exit code says.
        env: its variables; by default this process'.

    Raises:
        OSError: the system refuses a process.
    """
    process = GuardedProcess(
        command, folder=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env
    )
    try:
        output = process.output(seconds)
    except subprocess.TimeoutExpired:
        output = ""
    finally:
        process.end()
    return process.returncode, output


def ending(code: int) -> str:
    """How a command ended, in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


_GUARD = Path(__file__).parent / "workers" / "guard.py"
MEMORY_VARIABLE = "TORCHFGSM_MEMORY_LIMIT"
"""Gigabytes that one worker may have in memory, instead of the share below."""

_SHARE = 0.9  # of the machine's memory: what goes beyond it only takes others down as well
_CONTROL_GROUPS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def memory_limit() -> int:
    """Returns the bytes that one worker may have in memory.

    Raises:
        ValueError: the variable holds no number of gigabytes.
    """
    given = os.environ.get(MEMORY_VARIABLE)
    if not given:
        return int(_SHARE * _machine())
    with contextlib.suppress(ValueError):
        if 0 < float(given) < math.inf:
            return max(1, int(float(given) * 1e9))
    raise ValueError(f"{MEMORY_VARIABLE}: expected gigabytes, such as 16 or 1.5, got {given!r}")


def _machine() -> int:
    """Bytes of memory that the machine, or the container that this is, has."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in _CONTROL_GROUPS:
        with contextlib.suppress(OSError, ValueError):  # none there, or "max"
            sizes.append(int(file.read_text()))
    return min(size for size in sizes if size > 0)
