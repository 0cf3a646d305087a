"""A progress bar on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

Progress = Callable[[int, int | None], None]
"""Takes how many are done, and how many there are, None where that is not known."""

_WIDTH = 24


class Bar:
    """Draws a bar on a terminal; elsewhere it prints a line now and then.

    Used in a `with` block, at whose end the last state stays on a line of its own.
    """

    def __init__(self, what: str, unit: str, stream: TextIO | None = None) -> None:
        """Takes what is being done and the name of what is counted."""
        self._what, self._unit = what, unit
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._pause = 0.1 if self._terminal else 30.0
        self._start = self._shown_at = time.monotonic()
        self._first: int | None = None
        self._text = self._shown = ""

    def __call__(self, done: int, total: int | None) -> None:
        """Takes the state; what was done before the first call does not count in the rate."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._start = done, now
        rate = (done - self._first) / max(now - self._start, 1e-9)
        self._text = f"{self._what}  {_state(done, total)} {self._unit}"
        if rate > 0:
            self._text += f"  {rate:.3g}/s"
            if total is not None and done < total:
                self._text += f"  {_clock((total - done) / rate)} left"
        if now - self._shown_at >= self._pause:
            self._show(now)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._text and self._text != self._shown:
            self._show(time.monotonic())
        if self._terminal and self._shown:
            print(file=self._stream, flush=True)

    def _show(self, now: float) -> None:
        if self._terminal:
            blank = " " * (len(self._shown) - len(self._text))
            print(f"\r{self._text}{blank}", end="", file=self._stream, flush=True)
        else:
            print(self._text, file=self._stream, flush=True)
        self._shown, self._shown_at = self._text, now


def _state(done: int, total: int | None) -> str:
    if not total:
        return str(done)
    filled = _WIDTH * done // total
    bar = "#" * filled + "-" * (_WIDTH - filled)
    return f"[{bar}] {100 * done // total:3d}%  {done}/{total}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
