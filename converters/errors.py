"""The converter's one error."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


class ConversionError(ValueError):
    """A model cannot be converted; the message says what, where and how to mend it."""


@contextlib.contextmanager
def named(model: Path | str) -> Iterator[None]:
    """Puts the file's or model's name before the message of a ConversionError."""
    try:
        yield
    except ConversionError as error:
        raise ConversionError(f"{model}: {error}") from error
