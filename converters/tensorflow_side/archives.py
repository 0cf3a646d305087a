"""Zip archives from elsewhere: what they say about themselves is checked before they are read.

Needs no TensorFlow.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import PurePosixPath
from typing import Any

LARGEST = 1 << 28
RATIO = 200
"""An archive may hold so many times its own bytes, or LARGEST: weights and data hardly shrink."""
_ENCRYPTED = 1
FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What reading a damaged archive may raise."""


def refuse_archive(archive: zipfile.ZipFile, size: int) -> None:
    """Refuses an archive that unpacks to other places or to far more than it holds.

    Args:
        archive: the archive.
        size: bytes of its file.

    Raises:
        ValueError: naming the member.
    """
    for member in archive.infolist():
        name = member.orig_filename
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in name or "\0" in name:
            raise ValueError(f"expected members inside of the archive, found one named {name!r}")
        if member.flag_bits & _ENCRYPTED:
            raise ValueError(f"expected an archive without a password, {name!r} has one")
    refuse_growth(sum(member.file_size for member in archive.infolist()), size)


def refuse_growth(declared: int, stored: int) -> None:
    """Refuses contents that unpack to far more bytes than are stored.

    Raises:
        ValueError: saying how many.
    """
    if declared > max(LARGEST, RATIO * stored):
        raise ValueError(
            f"expected contents of at most {RATIO} times the {stored} bytes that are stored, its "
            f"own directory says {declared} bytes"
        )


def read_json(path: Any, member: str) -> Any:
    """Returns the contents of a JSON file in an archive that :func:`refuse_archive` accepts.

    Raises:
        ValueError: it is no such archive, or no such JSON file is in it.
    """
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            refuse_archive(archive, file.seek(0, 2))
            return json.loads(archive.read(member))
    except FileNotFoundError:
        raise
    except FAULTS as error:
        text = str(error) or type(error).__name__
        raise ValueError(f"could not read {member} in the archive: {text}") from error
