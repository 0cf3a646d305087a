"""The converter's one error."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class ConversionError(ValueError):
    """A model cannot be converted; the message says what, where and how to mend it."""


@contextlib.contextmanager
def named(model: Path | str) -> Iterator[None]:
    """Puts the file's or model's name before the message of a ConversionError."""
    try:
        yield
    except ConversionError as error:
        raise ConversionError(f"{model}: {error}") from error


@contextlib.contextmanager
def told_as(path: Path | str, name: Path | str) -> Iterator[None]:
    """Puts the name that a user knows in the place of a temporary file's path in any message."""
    try:
        yield
    except Exception as error:
        old, new = str(path), str(name)
        error.args = tuple(_renamed(part, old, new) for part in error.args)
        # Where errors of the originals and of the system keep their texts.
        for field in ("message", "remote_traceback", "filename"):
            if isinstance(getattr(error, field, None), str):
                setattr(error, field, _renamed(getattr(error, field), old, new))
        raise


def _renamed(part: Any, old: str, new: str) -> Any:
    return part.replace(old, new) if isinstance(part, str) else part
