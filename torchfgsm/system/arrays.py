"""Arrays in .npz files from elsewhere: no pickle, and no more bytes than the file holds."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from torchfgsm.converters.tensorflow_side.archives import FAULTS, refuse_archive

Array = npt.NDArray[Any]


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an .npz file, by name.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not an .npz file of plain arrays.
    """
    try:
        with path.open("rb") as file:
            if file.read(2) != b"PK":
                raise ValueError("a single array or no array at all, not an archive of arrays")
            with zipfile.ZipFile(file) as archive:
                refuse_archive(archive, path.stat().st_size)
                return {
                    member.filename.removesuffix(".npy"): _array(archive, member)
                    for member in archive.infolist()
                }
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: expected an .npz file, found no such file") from None
    except FAULTS as error:
        text = str(error) or type(error).__name__
        raise ValueError(f"{path}: expected an .npz file of plain arrays: {text}") from error


def read_header(stream: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order (True by columns) and dtype of the array at a stream's start.

    Args:
        stream: At the start of the .npy format; then at that of the numbers.
        size: Bytes of the stream in all.

    Raises:
        ValueError: Another format; fewer numbers than its shape says.
    """
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(stream)
    if version not in readers:
        raise ValueError(f"version {version} of the .npy format, which holds structures")
    shape, by_columns, dtype = readers[version](stream)
    needed = 0 if dtype.hasobject else math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or needed > size - stream.tell():
        raise ValueError(f"too few bytes for an array {shape} of {dtype}: the file ends too early")
    return shape, by_columns, dtype


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    with archive.open(member) as stream:
        dtype = read_header(stream, member.file_size)[2]
    if dtype.hasobject:
        raise ValueError(f"{member.filename}: an array of Python objects, which only pickle reads")
    with archive.open(member) as stream:
        array: Array = np.lib.format.read_array(stream, allow_pickle=False)
    return array
