"""Reads ONNX files, ours and other programs', and refuses what takes in other files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from torchfgsm.converters.annotation import Annotation
from torchfgsm.converters.errors import ConversionError, named
from torchfgsm.converters.onnx_side import graph as onnx_graph
from torchfgsm.converters.onnx_side.inference import infer

OLDEST_OPSET = 7


def read_onnx(path: Path) -> tuple[Any, Annotation]:
    """Returns the ONNX model in a file and its annotation, inferred where it has none.

    Raises:
        ConversionError: it is no ONNX file, or one of a version that is not supported.
    """
    import onnx

    try:
        graph = onnx.load(path, load_external_data=False)
    except Exception as error:  # the parser raises classes of its own
        raise _unreadable(path, error) from error
    with named(path):
        _refuse_versions(graph)
        refuse_untrusted(graph, path.parent)
    try:
        onnx.load_external_data_for_model(graph, str(path.parent))
    except Exception as error:  # as above
        raise _unreadable(path, error) from error
    try:
        onnx.checker.check_model(graph)
    except Exception as error:  # the checker raises classes of its own
        raise _unreadable(path, error) from error
    with named(path):
        onnx_graph.lift_constant_nodes(graph)
        annotation = Annotation.read(graph)
        if annotation is None:
            annotation = infer(graph, path.name)
            annotation.write(graph)
        _refuse_text(annotation)
    return graph, annotation


def _unreadable(path: Path, error: Exception) -> ConversionError:
    text = " ".join(str(error).split())[:300]
    return ConversionError(f"{path}: could not be read as an ONNX model: {text}")


def _refuse_versions(graph: Any) -> None:
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if graph.ir_version > onnx.IR_VERSION:
        raise ConversionError(
            f"expected ONNX IR version {onnx.IR_VERSION} at most, which onnx {onnx.__version__} "
            f"knows, got {graph.ir_version}: install a newer onnx"
        )
    for opset in graph.opset_import:
        if opset.domain in ("", "ai.onnx") and not OLDEST_OPSET <= opset.version <= newest:
            raise ConversionError(
                f"expected an opset from {OLDEST_OPSET} to {newest} (onnx {onnx.__version__}), got "
                f"{opset.version}: convert it with onnx.version_converter, or export it again"
            )


def _refuse_text(annotation: Annotation) -> None:
    for port in annotation.inputs:
        if port.dtype == "object":
            raise ConversionError(
                f"input {port.name!r} takes strings, which torch has no tensors of: cut the graph "
                "behind its text operations"
            )


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
