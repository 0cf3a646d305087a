"""How a command of the command line ends: whatever breaks it off is one line on stderr.

A fault of this package's own is told from it: another exit code, and the trace that a report needs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from types import FrameType

from torchfgsm.system.extras import install_line

EQUAL, DIFFERENT, COULD_NOT_COMPARE = 0, 1, 2
"""Exit codes: done or equal, different, could not be done."""
FAULT = 70
"""Exit code of a fault of this package's own: EX_SOFTWARE of sysexits.h."""
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def run(command: Callable[[], int], failed: int) -> int:
    """Runs a command and returns its exit code.

    Ctrl-C, SIGTERM and SIGHUP break it off in the same way: it tidies up and ends.

    Args:
        command: Returns its exit code.
        failed: The exit code where it is broken off.

    Returns:
        The command's exit code; `failed`; or `FAULT` where it raised what no caller can mend.
    """
    try:
        with _signals_interrupt(), _flushed():
            return command()
    except KeyboardInterrupt as interruption:
        say(f"torchfgsm: {str(interruption) or 'interrupted'}")
    except _expected() as error:
        say(f"torchfgsm: {one_line(error)}")
    except Exception as error:
        if _lacks_memory(error):
            say(f"torchfgsm: {one_line(error)}")
            return failed
        # Whatever else there is, nobody foresaw.
        traceback.print_exc()
        say(
            f"torchfgsm: a fault of torchfgsm itself, not of what was given: "
            f"{type(error).__name__}: {one_line(error)} (please report it with the lines above "
            "and what `torchfgsm env` prints)"
        )
        return FAULT
    return failed


def one_line(error: BaseException) -> str:
    """An error's message, without what a terminal would take for commands."""
    message = getattr(error, "message", None) or str(error) or type(error).__name__
    if isinstance(error, ImportError):
        line = install_line(error.name)
        message = message if not line or line in message else f"{message}: {line}"
    elif isinstance(error, MemoryError | RuntimeError) and _lacks_memory(error):
        message = f"not enough memory ({message})"
    text = " ".join(str(message).split())
    return "".join(character if character.isprintable() else "?" for character in text)


def say(text: str) -> None:
    """Prints a line on stderr."""
    print(text, file=sys.stderr, flush=True)


def _expected() -> tuple[type[Exception], ...]:
    """Failures whose message says all there is to say."""
    from torchfgsm.originals import EnvironmentUnavailable, WorkerError

    own = (EnvironmentUnavailable, WorkerError)  # ConversionError is a ValueError
    return (OSError, ValueError, TypeError, ImportError, MemoryError, *own)


def _lacks_memory(error: Exception) -> bool:
    """Whether memory ran out, for which torch has a RuntimeError."""
    text = str(error)
    torchs = "out of memory" in text or "can't allocate memory" in text
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and torchs)


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Makes signals that end a process at once a KeyboardInterrupt, unless they are in use."""

    def interrupt(number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt(f"ended by {signal.Signals(number).name}")

    taken = []
    if threading.current_thread() is threading.main_thread():
        taken = [number for number in _SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def _flushed() -> Iterator[None]:
    """Brings what was printed to its place while a refusal can still be told."""
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        except OSError as error:
            # The interpreter would try again at its end, and fail with a text of its own.
            with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nothing:
                os.dup2(nothing.fileno(), sys.stdout.fileno())
            raise OSError(
                f"standard output could not be written: {error.strerror or error}"
            ) from error
