"""Reads ONNX files, ours and other programs'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torchfgsm.converters.annotation import Annotation
from torchfgsm.converters.errors import ConversionError, named
from torchfgsm.converters.onnx_side import graph as onnx_graph
from torchfgsm.converters.onnx_side.inference import infer
from torchfgsm.converters.onnx_side.trust import refuse_untrusted

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
