"""The frame that both ends of a worker's pipes speak: a JSON header and arrays as .npz.

A frame is ``magic, header length, body length`` followed by the JSON header and the .npz bytes.
Nothing is pickled in either direction. This file is imported by the port and, inside a TensorFlow
environment, by ``serve.py``: it needs only numpy and the standard library of Python 3.9.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

_PREFIX = struct.Struct("!8sQQ")
_MAGIC = b"tfgsm\x00\x011"
PREFIX_SIZE = _PREFIX.size
# A header is names and settings. The bound is there to recognise garbage, not to limit work.
_LARGEST_HEADER = 1 << 28
_LARGEST_BODY = 1 << 36
# bool, integers, floats, complex, text: what .npz stores without pickle and reads back unchanged.
_PLAIN_KINDS = "biufcSU"

ArrayDict = dict[str, "np.ndarray[Any, Any]"]


class BadFrameError(ValueError):
    """The bytes on the pipe are not a frame."""


def pack(header: Mapping[str, Any], arrays: Mapping[str, Any]) -> bytes:
    """Returns one frame holding ``header`` (JSON) and ``arrays`` (any shape, plain dtypes).

    Raises:
        TypeError: an array's dtype would need pickle, or the header is not JSON.
    """
    plain = {name: np.asarray(value) for name, value in arrays.items()}
    for name, value in plain.items():
        if value.dtype.kind not in _PLAIN_KINDS:
            raise TypeError(
                f"array {name!r} has dtype {value.dtype}; expected numbers, booleans or text"
            )
    body = b""
    if plain:
        buffer = io.BytesIO()
        # Positional members: the names travel in the header, because .npz changes some of them
        # ("file" and "x.npy" do not survive as member names).
        np.savez(buffer, *plain.values())
        body = buffer.getvalue()
    text = json.dumps({**header, "arrays": list(plain)}, default=_json_scalar).encode()
    return _PREFIX.pack(_MAGIC, len(text), len(body)) + text + body


def _json_scalar(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be sent as JSON: {value!r}")


def unpack(
    read: Callable[[int], bytes], largest_body: int = _LARGEST_BODY
) -> tuple[dict[str, Any], ArrayDict]:
    """Returns the header and arrays of the next frame.

    Args:
        read: gives exactly so many bytes, or raises EOFError.
        largest_body: bytes of arrays that may come.

    Raises:
        BadFrameError: what came is not a frame.
    """
    magic, header_size, body_size = _PREFIX.unpack(read(PREFIX_SIZE))
    if magic != _MAGIC or header_size > _LARGEST_HEADER or body_size > _LARGEST_BODY:
        raise BadFrameError(f"expected a frame, got bytes starting with {magic!r}")
    if body_size > largest_body:
        raise BadFrameError(f"expected arrays of at most {largest_body} bytes, got {body_size}")
    text, body = read(header_size), read(body_size)
    try:
        header = json.loads(text)
        names = header.pop("arrays")
        arrays: ArrayDict = {}
        if body:
            with np.load(io.BytesIO(body), allow_pickle=False) as members:
                arrays = {name: members[f"arr_{i}"] for i, name in enumerate(names)}
    except Exception as error:
        raise BadFrameError(f"a frame that cannot be read: {error}") from error
    return header, arrays
