"""How a command of the command line ends: whatever breaks it off is one line on stderr."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def run(command: Callable[[], int], failed: int) -> int:
    """Runs a command and returns its exit code.

    Ctrl-C, SIGTERM and SIGHUP break it off in the same way: it tidies up and ends.

    Args:
        command: Returns its exit code.
        failed: The exit code where it is broken off.
    """
    try:
        with _signals_interrupt(), _flushed():
            return command()
    except KeyboardInterrupt as interruption:
        say(f"torchfgsm: {str(interruption) or 'interrupted'}")
    except _expected() as error:
        say(f"torchfgsm: {one_line(error)}")
    return failed


def one_line(error: BaseException) -> str:
    """An error's message, without what a terminal would take for commands."""
    message = getattr(error, "message", None) or str(error) or type(error).__name__
    text = " ".join(str(message).split())
    return "".join(character if character.isprintable() else "?" for character in text)


def say(text: str) -> None:
    """Prints a line on stderr."""
    print(text, file=sys.stderr, flush=True)


def _expected() -> tuple[type[Exception], ...]:
    """Failures whose message says all there is to say."""
    errors = [OSError, ValueError, TypeError, KeyError, ImportError, MemoryError]
    try:
        from torchfgsm.converters import ConversionError
        from torchfgsm.originals import EnvironmentUnavailable, WorkerError
    except ImportError:
        return tuple(errors)
    return (*errors, ConversionError, EnvironmentUnavailable, WorkerError)


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
