"""A .npy file of known length that is filled row by row."""

from __future__ import annotations

import contextlib
import errno
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_NO_ALLOCATION = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


class GrowingArray:
    """The file, open; written to and not mapped, so that a full disk is an error and no signal.

    Attributes:
        path: Its path.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file, which is made if it is not there, and leaves its content.

        Raises:
            OSError: The system refuses.
        """
        self.path = path
        with written(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._file: IO[bytes] = os.fdopen(descriptor, "r+b")
        self._start = 0

    def fileno(self) -> int:
        """The file's descriptor."""
        return self._file.fileno()

    def create(self, about: Mapping[str, Any]) -> None:
        """Makes it an array and takes the room of all its rows.

        Args:
            about: "descr" and "shape" of the array, as in the header of the format.

        Raises:
            OSError: The system refuses, as where the disk has no room.
        """
        header = {**about, "shape": tuple(about["shape"]), "fortran_order": False}
        with written(self.path):
            self._file.truncate(0)
            np.lib.format.write_array_header_1_0(self._file, header)
            self._file.flush()
            self._start = self._file.tell()
            _allocate(self.fileno(), self._start + _size(about))

    def take_up(self, about: Mapping[str, Any]) -> None:
        """Takes the array as it is.

        Raises:
            ValueError: It is another one.
        """
        try:
            np.lib.format.read_magic(self._file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(self._file)
        except ValueError:
            shape, dtype = (), np.dtype("V1")
        self._start = self._file.tell()
        size = os.fstat(self.fileno()).st_size - self._start
        if [list(shape), dtype, size] != [about["shape"], np.dtype(about["descr"]), _size(about)]:
            raise ValueError(f"{self.path}: is not as an earlier run left it; --force begins anew")

    def write(self, first: int, rows: Array) -> None:
        """Writes rows from a given one on.

        Raises:
            OSError: The system refuses.
        """
        with written(self.path):
            self._file.seek(self._start + first * (rows.nbytes // len(rows)))
            self._file.write(np.ascontiguousarray(rows).tobytes())
            self._file.flush()

    def sync(self) -> None:
        """Brings everything to the disk.

        Raises:
            OSError: The system could not; what was written since the last time may be lost.
        """
        with written(self.path):
            os.fdatasync(self.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


@contextlib.contextmanager
def written(path: Path) -> Iterator[None]:
    """Makes the system's refusals one line with the file's name."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{path}: could not be written: {error.strerror or error}") from error


def description(like: Array, count: int) -> dict[str, Any]:
    """What a header says of an array of `count` rows like those given, as JSON values."""
    return {
        "descr": np.lib.format.dtype_to_descr(like.dtype),
        "shape": [count, *like.shape[1:]],
    }


def _size(about: Mapping[str, Any]) -> int:
    shape: list[int] = about["shape"]
    return math.prod(shape) * np.dtype(str(about["descr"])).itemsize


def _allocate(descriptor: int, size: int) -> None:
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in _NO_ALLOCATION:
            raise
        os.ftruncate(descriptor, size)
