"""A worker: one script that runs in an original's environment and answers calls over pipes."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
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

from torchfgsm.originals.environment import python_for
from torchfgsm.originals.workers import frames

_SERVER = Path(__file__).parent / "workers" / "serve.py"
_LOG_LINES = 30
_CHUNK = 1 << 20

Array = npt.NDArray[Any]


class WorkerError(RuntimeError):
    """A call failed in the worker, or the worker itself did.

    Attributes:
        kind: class name of the exception raised in the worker; "Died", "TimedOut", "Garbage" or
            "Closed" when there is no worker any more.
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
    be loaded is reported by the first call. Any failure of the process itself ends it for good.

    Args:
        environment: a name for :func:`~torchfgsm.originals.environment.python_for`, or the path
            of an interpreter.
        script: a Python file that defines ``HANDLERS`` (see ``workers/serve.py``).
        timeout: seconds that one call may take, the loading of the script included.

    Raises:
        EnvironmentUnavailable: the environment cannot be had on this machine.
        FileNotFoundError: there is no such script.
    """

    def __init__(self, environment: str | Path, script: Path, *, timeout: float = 600.0) -> None:
        """Starts the process."""
        if not script.is_file():
            raise FileNotFoundError(f"expected a worker script, found no file {script}")
        python = environment if isinstance(environment, Path) else python_for(environment)
        self.name = script.stem
        self.timeout = timeout
        self._lock = threading.Lock()
        self._folder = Path(tempfile.mkdtemp(prefix=f"torchfgsm-{self.name}-"))
        self._log = self._folder / "output.log"
        child_in, self._out = os.pipe()
        self._in, child_out = os.pipe()
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [python, "-I", _SERVER, script.resolve(), str(child_in), str(child_out)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=_environment(self._folder),
                    pass_fds=(child_in, child_out),
                    start_new_session=True,  # a group of its own, so that all of it can be ended
                )
        except OSError:
            _release(None, self._in, self._out, self._folder)
            raise
        finally:
            os.close(child_in)
            os.close(child_out)
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        self._end = weakref.finalize(
            self, _release, self._process, self._in, self._out, self._folder
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
                longer than ``timeout`` seconds or sent something else than a frame (it is ended).
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
            return frames.unpack(lambda count: self._receive(count, deadline))
        except (EOFError, BrokenPipeError):
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
        _end_process(self._process)
        if kind == "Died":
            message += f" ({_exit_text(self._process.returncode)})"
        lines = self._log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        self.close()
        heading = "Last lines of its output:" if lines else "It printed nothing."
        return WorkerError(kind, message, "\n".join([heading, *lines]))


def _environment(folder: Path) -> dict[str, str]:
    settings = {
        # TensorFlow 2.15 crashes on some processors with oneDNN, and its results differ.
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # A user's keras.json could change the float type or the image layout.
        "KERAS_HOME": str(folder / "keras"),
        "KERAS_BACKEND": "tensorflow",
    }
    inherited = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    return {**inherited, **settings}


def _wait(fd: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(fd, event)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError


def _exit_text(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _end_process(process: subprocess.Popen[bytes]) -> None:
    # Only a process that has not been waited for still owns its number.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _release(
    process: subprocess.Popen[bytes] | None, fd_in: int, fd_out: int, folder: Path
) -> None:
    if process is not None:
        _end_process(process)
    os.close(fd_in)
    os.close(fd_out)
    shutil.rmtree(folder, ignore_errors=True)
