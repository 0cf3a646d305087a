"""A worker: one script that runs in an original's environment and answers calls over pipes."""

from __future__ import annotations

import fcntl
import os
import re
import select
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy.typing as npt

from torchfgsm.originals import guarded
from torchfgsm.originals.environment import KERAS_3, python_for
from torchfgsm.originals.guarded import GuardedProcess, ending
from torchfgsm.originals.workers import frames

_SERVER = Path(__file__).parent / "workers" / "serve.py"
_LOG_LINES = 30
_LOG_BYTES = 1 << 16
_CHUNK = 1 << 20
_LAST_SECONDS = 1.0  # in which a process that closed its pipes ends by itself, if it is ending

Array = npt.NDArray[Any]


class WorkerError(RuntimeError):
    """A call failed in the worker, or the worker itself did.

    Attributes:
        kind: class name of the exception raised in the worker; "Died", "OutOfMemory", "TimedOut",
            "Garbage" or "Closed" when there is no worker any more.
        message: that exception's text, or what happened to the process.
        remote_traceback: the worker's traceback, or the last lines of its output.
    """

    def __init__(self, kind: str, message: str, remote_traceback: str = "") -> None:
        """Keeps the three parts; the exception's text shows them all."""
        super().__init__(kind, message, remote_traceback)
        self.kind = kind
        self.message = message
        self.remote_traceback = remote_traceback

    def __str__(self) -> str:
        text = f"{self.kind}: {self.message}"
        return f"{text}\n{self.remote_traceback}".rstrip()


@dataclass(frozen=True)
class Reply:
    """What a handler returned: ``values`` went as JSON, ``arrays`` keep dtype and shape."""

    values: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)


class Worker:
    """A process that serves the handlers of one script; a context manager.

    The process starts at once and loads the script while the caller goes on; a script that cannot
    be loaded is reported by the first call. Any failure of the process itself ends it for good. It
    ends with this process, too, however that ends, and takes its temporary files along.

    Args:
        runtime: a key of :data:`~torchfgsm.originals.environment.RUNTIMES`, or the path of an
            interpreter that is to run the script without TensorFlow.
        script: a Python file that defines ``HANDLERS`` (see ``workers/serve.py``).
        python: the interpreter of another environment, which serves as well.
        timeout: seconds that one call may take, the loading of the script included.
        memory_limit: bytes that it may have in memory; by default what the variable
            TORCHFGSM_MEMORY_LIMIT says in gigabytes, or nine tenths of the machine's memory.

    Raises:
        EnvironmentUnavailable: the environment cannot be had on this machine.
        FileNotFoundError: there is no such script.
        ValueError: a limit of no memory, or the variable holds no number of gigabytes.
    """

    def __init__(
        self,
        runtime: str | Path,
        script: Path,
        *,
        python: Path | None = None,
        timeout: float = 600.0,
        memory_limit: int | None = None,
    ) -> None:
        """Starts the process."""
        if not script.is_file():
            raise FileNotFoundError(f"expected a worker script, found no file {script}")
        self.memory_limit = guarded.memory_limit() if memory_limit is None else memory_limit
        if self.memory_limit < 1:
            raise ValueError(f"expected a memory_limit of at least 1 byte, got {memory_limit}")
        if python is None:
            python = runtime if isinstance(runtime, Path) else python_for(runtime)
        self.name = script.stem
        self.timeout = timeout
        self._lock = threading.Lock()
        self._folder = Path(tempfile.mkdtemp(prefix=f"torchfgsm-{self.name}-"))
        self._log = self._folder / "output.log"
        child_in, self._out = _pipe()
        self._in, child_out = _pipe()
        ends = (str(child_in), str(child_out))
        keras = "3" if runtime == KERAS_3 else "2"
        try:
            with self._log.open("ab") as log:
                self._process = GuardedProcess(
                    [python, "-I", _SERVER, script.resolve(), *ends, keras],
                    folder=self._folder,
                    memory_limit=self.memory_limit,
                    python=python,
                    stdout=log,
                    stderr=log,
                    env=_environment(self._folder),
                    pass_fds=(child_in, child_out),
                )
        except BaseException:
            _release(os.getpid(), None, self._in, self._out, self._folder)
            raise
        finally:
            os.close(child_in)
            os.close(child_out)
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        self._end = weakref.finalize(
            self, _release, os.getpid(), self._process, self._in, self._out, self._folder
        )

    def call(
        self, method: str, arrays: Mapping[str, npt.ArrayLike] | None = None, /, **params: Any
    ) -> Reply:
        """Returns the reply of one handler.

        Args:
            method: the handler's name.
            arrays: named arrays of plain dtypes (numbers, booleans, text), any shape.
            **params: JSON values; NaN and infinities are kept.

        Raises:
            WorkerError: the handler raised (the worker lives on), or the process died, took
                longer than ``timeout`` seconds or more than ``memory_limit`` bytes, or sent
                something else than a frame (it is ended).
            TypeError: an array or a parameter cannot be sent.
        """
        request = frames.pack({"method": method, "params": params}, arrays or {})
        with self._lock:
            if not self._end.alive:
                raise WorkerError("Closed", f"worker {self.name} has been closed")
            header, results = self._exchange(method, request)
        if not header.get("ok"):
            raise WorkerError(
                str(header.get("kind")), str(header.get("message")), str(header.get("traceback"))
            )
        return Reply(header.get("values", {}), results)

    def close(self) -> None:
        """Ends the process; calling it again does nothing."""
        self._end()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _exchange(self, method: str, request: bytes) -> tuple[dict[str, Any], dict[str, Array]]:
        deadline = time.monotonic() + self.timeout
        try:
            self._send(request, deadline)
            # What it sends lay in its memory.
            return frames.unpack(lambda n: self._receive(n, deadline), self.memory_limit)
        except (EOFError, BrokenPipeError):
            self._process.wait(_LAST_SECONDS)
            raise self._failed("Died", f"worker {self.name} ended during {method!r}") from None
        except TimeoutError:
            message = f"worker {self.name} did not answer {method!r} in {self.timeout:g} s"
            raise self._failed("TimedOut", message) from None
        except frames.BadFrameError as error:
            raise self._failed("Garbage", f"worker {self.name} sent {error}") from None
        except BaseException:  # KeyboardInterrupt: half a frame may be on the pipe
            self.close()
            raise

    def _send(self, data: bytes, deadline: float) -> None:
        rest = memoryview(data)
        while rest:
            _wait(self._out, select.POLLOUT, deadline)
            # A pipe with little room accepts a part, and none of a large write at times.
            try:
                rest = rest[os.write(self._out, rest[:_CHUNK]) :]
            except BlockingIOError:
                continue

    def _receive(self, count: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < count:
            _wait(self._in, select.POLLIN, deadline)
            part = os.read(self._in, min(count - len(data), _CHUNK))
            if not part:
                raise EOFError
            data += part
        return bytes(data)

    def _failed(self, kind: str, message: str) -> WorkerError:
        """Ends the process and returns the error, with the last lines of its output."""
        running, lines = self._process.running, _last_lines(self._log)
        self.close()
        used = self._process.memory_used
        if used:
            kind = "OutOfMemory"
            message += (
                f": it took {used / 1e9:.3g} GB of memory, at most {self.memory_limit / 1e9:.3g} "
                f"GB are allowed: {guarded.MEMORY_VARIABLE} sets another limit, in gigabytes"
            )
        elif kind == "Died":
            how = "it closed its pipes" if running else ending(self._process.returncode)
            message += f" ({how})"
        heading = "Last lines of its output:" if lines else "It printed nothing."
        return WorkerError(kind, message, "\n".join([heading, *lines]))


def _last_lines(log: Path) -> list[str]:
    """The end of an output, without what a terminal would take for commands."""
    with log.open("rb") as file:
        file.seek(-min(_LOG_BYTES, file.seek(0, os.SEEK_END)), os.SEEK_END)
        text = file.read().decode(errors="replace")
    lines = [re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "?", line) for line in text.split("\n")]
    return [line for line in lines if line.strip()][-_LOG_LINES:]


def _environment(folder: Path) -> dict[str, str]:
    settings = {
        # TensorFlow 2.15 crashes on some processors with oneDNN, and its results differ.
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # A user's keras.json could change the float type or the image layout.
        "KERAS_HOME": str(folder / "keras"),
        # What a process that is ended leaves there goes with the folder.
        "TMPDIR": str(folder),
        "KERAS_BACKEND": "tensorflow",
    }
    inherited = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    return {**inherited, **settings}


def _pipe() -> tuple[int, int]:
    """Both ends of a pipe, away from the numbers of stdin, stdout and stderr, which may be free."""
    ends = os.pipe()
    reading, writing = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3) for end in ends)
    for end in ends:
        os.close(end)
    return reading, writing


def _wait(fd: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(fd, event)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError


def _release(
    owner: int, process: GuardedProcess | None, fd_in: int, fd_out: int, folder: Path
) -> None:
    if process is not None:
        process.end()
    os.close(fd_in)
    os.close(fd_out)
    if os.getpid() == owner:  # else a process that was forked off, to which nothing belongs
        shutil.rmtree(folder, ignore_errors=True)
