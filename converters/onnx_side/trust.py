"""Refuses ONNX models that take in other files than their own, or that are not what they seem."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from torchfgsm.converters.errors import ConversionError

_STANDARD = ("", "ai.onnx")


def refuse_untrusted(model: Any, folder: Path) -> None:
    """Refuses a model before its external data are read.

    Args:
        model: the model, without its external data.
        folder: where its file lies.

    Raises:
        ConversionError: a tensor's data lie outside of the folder, or in a link; a function has the
            name of ONNX' own operation; a name is no text.
    """
    import onnx

    for message in _messages(model):
        _refuse_bytes(message)
        if isinstance(message, onnx.TensorProto):
            _refuse_tensor(message, folder)
    for function in model.functions:
        if function.domain in _STANDARD:
            raise ConversionError(
                f"the model redefines ONNX' own operation {function.name!r} by a function: give "
                "the function a domain of its own, or write its nodes into the graph "
                "(onnx.inliner)"
            )


def _messages(model: Any) -> Iterator[Any]:
    """Yields everything in a model: its graph, nodes, tensors, functions, subgraphs."""
    waiting = [model]
    while waiting:
        message = waiting.pop()
        yield message
        for field, value in message.ListFields():
            if field.message_type is not None:
                waiting += [value] if hasattr(value, "ListFields") else value


def _refuse_bytes(message: Any) -> None:
    """Refuses names that are not UTF-8: nothing can be looked up by them."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            for text in [value] if isinstance(value, (str, bytes)) else value:
                if isinstance(text, bytes):  # how protobuf gives what it cannot decode
                    raise ConversionError(f"expected names in UTF-8, got {text[:40]!r}")


def _refuse_tensor(tensor: Any, folder: Path) -> None:
    import onnx

    if any(n < 0 for n in tensor.dims):
        raise ConversionError(f"tensor {tensor.name!r}: expected sizes, got {list(tensor.dims)}")
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return
    where = {entry.key: entry.value for entry in tensor.external_data}
    location = where.get("location", "")
    path = PurePosixPath(location.replace("\\", "/"))
    if not location or path.is_absolute() or ".." in path.parts or ":" in location:
        raise ConversionError(
            f"tensor {tensor.name!r}: expected its data in the model's folder, got {location!r}"
        )
    file = folder / path
    for part in (file, *file.parents):
        if part == folder:
            break
        if part.is_symlink():
            raise ConversionError(
                f"tensor {tensor.name!r}: expected its data in a file, {location!r} is a link: put "
                "the file itself into the model's folder"
            )
    _refuse_file(tensor, file, where)


def _refuse_file(tensor: Any, file: Path, where: dict[str, str]) -> None:
    try:
        found = os.stat(file)
        offset, needed = int(where.get("offset") or 0), int(where.get("length") or 0)
    except (OSError, ValueError) as error:
        raise ConversionError(
            f"tensor {tensor.name!r}: its data cannot be read: {error}"
        ) from error
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise ConversionError(
            f"tensor {tensor.name!r}: expected its data in a file of its own, {str(file)!r} is "
            "none (a second name of another file, a folder or a device)"
        )
    if offset < 0 or needed < 0 or offset + needed > found.st_size:
        raise ConversionError(
            f"tensor {tensor.name!r}: expected {needed} bytes from {offset} on in {file.name!r}, "
            f"the file has {found.st_size}"
        )
