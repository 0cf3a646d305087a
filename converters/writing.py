"""Writes ONNX files whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torchfgsm.converters.errors import ConversionError, named
from torchfgsm.system import whole_file

LARGEST = 2**31 - 1
"""Bytes that one file can hold: the limit of protobuf."""


def refuse_target(out: Path, source: Path | None, *, overwrite: bool) -> None:
    """Refuses a file that cannot be or shall not be written, before the conversion.

    Raises:
        ConversionError: saying what was expected.
    """
    if out.suffix != ".onnx":
        raise ConversionError(f"{out}: expected an output file with the suffix .onnx")
    if source is not None and source.exists() and out.exists() and os.path.samefile(source, out):
        raise ConversionError(f"{out}: expected another file for the output than the model's own")
    if out.is_dir():
        raise ConversionError(f"{out}: expected a file for the output, found a folder")
    if out.exists() and not overwrite:
        raise ConversionError(f"{out}: is there already; --force (overwrite=True) replaces it")
    if not out.parent.is_dir():
        raise ConversionError(f"{out}: expected an existing folder, found no {out.parent}")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise ConversionError(f"{out}: the folder {out.parent} is not writable")


def refuse_size(size: int) -> None:
    """Refuses a model of so many bytes that no ONNX file holds it.

    Raises:
        ConversionError: saying how large it is.
    """
    if size > LARGEST:
        raise ConversionError(
            f"expected a model of at most {LARGEST / 1e9:.1f} GB, which is what an ONNX file can "
            f"hold, got {size / 1e9:.1f} GB"
        )


def write_onnx(graph: Any, out: Path) -> None:
    """Writes an ONNX model in one step: whatever breaks it off leaves the folder as it was.

    Raises:
        ConversionError: the model is too large for one file, or the system refuses.
    """
    with named(out):
        refuse_size(graph.ByteSize())
    try:
        whole_file.write(out, graph.SerializeToString())
    except OSError as error:
        raise ConversionError(f"{out}: could not be written: {error.strerror or error}") from error
