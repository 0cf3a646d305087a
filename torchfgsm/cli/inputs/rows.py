"""Arrays in .npy and .npz files, read row by row in constant memory, and as tensors."""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from torchfgsm.converters.tensorflow_side.archives import FAULTS, refuse_archive
from torchfgsm.system.arrays import read_header

_KINDS = "fiub"  # floats, integers, booleans


class Rows:
    """The rows of one array, from the first on.

    The file is read, not mapped: pages of a mapping would count as the process' memory.

    Attributes:
        name: File and array, for messages.
        shape: Shape of the array, (N, ...).
        dtype: Dtype of the array.
    """

    def __init__(self, stream: Any, name: str, size: int) -> None:
        """Takes a stream of so many bytes, at the start of the .npy format; reads its header.

        Raises:
            ValueError: Not that format, or an array that cannot be read row by row.
        """
        self.name = name
        self._stream = stream
        self.shape, self.dtype = _header(stream, name, size)
        self._row = self.dtype.itemsize * math.prod(self.shape[1:])

    def skip(self, count: int) -> None:
        """Passes over rows."""
        left = count * self._row
        with _named(self.name):
            if self._stream.seekable():
                self._stream.seek(left, 1)  # a compressed member reads on, piece by piece
                return
            while left:
                left -= len(self._piece(min(left, 1 << 20)))

    def read(self, count: int) -> npt.NDArray[Any]:
        """The next rows, in the machine's byte order.

        Raises:
            ValueError: The file ends before, or is damaged.
        """
        with _named(self.name):
            content = bytearray()
            while len(content) < count * self._row:
                content += self._piece(count * self._row - len(content))
        array = np.frombuffer(content, self.dtype).reshape(count, *self.shape[1:])
        return array.astype(self.dtype.newbyteorder("="), copy=False)

    def _piece(self, size: int) -> bytes:
        found: bytes = self._stream.read(size)
        if not found:
            raise ValueError("the file ends too early")
        return found


@contextlib.contextmanager
def opened(path: Path, x_key: str, y_key: str | None) -> Iterator[tuple[Rows, Rows | None]]:
    """The inputs and the labels, None where there are none.

    Args:
        path: A .npy file of inputs, or a .npz file.
        x_key: Name of the inputs in a .npz file.
        y_key: Name of the labels there; None: "y", if there is one.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Another format; a missing array; arrays of different lengths.
    """
    with contextlib.ExitStack() as stack:
        with _named(str(path)):
            file = stack.enter_context(path.open("rb"))
            start = file.read(4)
            file.seek(0)
            if start[:2] == b"PK":
                archive = stack.enter_context(zipfile.ZipFile(file))
                refuse_archive(archive, path.stat().st_size)
            elif y_key is not None:
                raise ValueError("--y-key names an array in a .npz file, this is a .npy file")
        if start[:2] != b"PK":
            x, y = Rows(file, str(path), path.stat().st_size), None
        else:
            x = stack.enter_context(_member(archive, path, x_key, "--x-key"))
            y = None
            if y_key is not None or "y.npy" in archive.namelist():
                y = stack.enter_context(_member(archive, path, y_key or "y", "--y-key"))
        if not x.shape or 0 in x.shape:
            raise ValueError(f"{x.name}: expected a non-empty array (N, ...), got {x.shape}")
        if y is not None and y.shape[:1] != x.shape[:1]:
            raise ValueError(
                f"{y.name}: expected labels ({x.shape[0]}, ...), one for each row of the inputs "
                f"{x.shape}, got {y.shape}"
            )
        yield x, y


@contextlib.contextmanager
def _member(archive: zipfile.ZipFile, path: Path, key: str, option: str) -> Iterator[Rows]:
    names = [name.removesuffix(".npy") for name in archive.namelist()]
    if key not in names:
        raise ValueError(f"{path}: found no array {key!r}, only {names}; {option} names another")
    name = f"{path}, array {key!r}"
    with _named(name):
        member = archive.getinfo(f"{key}.npy")
        stream = archive.open(member)
    with stream:
        yield Rows(stream, name, member.file_size)


def _header(stream: Any, name: str, size: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
    with _named(name):
        shape, by_columns, dtype = read_header(stream, size)
    if dtype.kind not in _KINDS:
        raise ValueError(f"{name}: expected numbers, got the dtype {dtype}")
    if by_columns and len(shape) > 1:
        raise ValueError(
            f"{name}: expected rows one after another, the array is stored by columns (Fortran "
            "order): save numpy.ascontiguousarray(array)"
        )
    return shape, dtype


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Makes what goes wrong in reading one line with the file's name."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"{name}: no such file") from None
    except FAULTS as error:
        text = str(error) or type(error).__name__
        raise ValueError(f"{name}: expected a .npy or .npz file of plain arrays: {text}") from error


Array = npt.NDArray[Any]


def inputs_of(rows: Array, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Rows of inputs in the dtype in which the model computes."""
    with np.errstate(over="ignore"):  # the attack refuses what became infinite
        values = rows.astype(np.float64 if dtype == torch.float64 else np.float32)
    return torch.from_numpy(values).to(device, dtype)


def labels_of(rows: Array, device: torch.device) -> Tensor:
    """Class numbers, or rows of probabilities."""
    if rows.dtype.kind != "f":
        rows = rows.astype(np.int64)
        rows = rows.reshape(-1) if rows.shape[1:] == (1,) else rows  # as Keras' data sets have them
    return torch.from_numpy(rows).to(device)


def array_of(values: Tensor) -> Array:
    """The values as numpy has them."""
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def device_of(name: str | None) -> torch.device:
    """The device that was asked for.

    Raises:
        ValueError: It is not there.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name} cannot be used: {error}") from None
    if device.type == "cuda":
        # The same bytes in every run.
        torch.backends.cudnn.deterministic = True
    return device
