"""Loads model files as torch modules, and exports them as annotated ONNX."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchfgsm.comparison import Comparison
from torchfgsm.converters import onnx_graph, verification
from torchfgsm.converters.annotation import Annotation
from torchfgsm.converters.batches import Data
from torchfgsm.converters.building import build
from torchfgsm.converters.errors import ConversionError, named
from torchfgsm.converters.exporting import exporter
from torchfgsm.converters.inference import infer
from torchfgsm.converters.model import ConvertedModel

if TYPE_CHECKING:
    from torchfgsm.originals.process import Worker

PathLike = str | os.PathLike[str]


def load(
    path: PathLike,
    *,
    keep_head: bool = False,
    data: Data | None = None,
    verify: bool = True,
    worker: Worker | None = None,
) -> ConvertedModel:
    """Returns the model in a file as a torch module, compared with its original.

    Args:
        path: a .keras or .h5 file, a SavedModel folder, or an .onnx file.
        keep_head: keep a softmax or sigmoid at the end instead of returning logits.
        data: examples to compare on too: an array (N, ...), or a dict of them by input name; the
            first 64 are used.
        verify: compare outputs and input gradients with the original on random, blank and
            saturated inputs and on ``data``; the result is the module's ``verification``.
        worker: an open export worker to use; by default one is started for this call.

    Returns:
        The module, in eval mode, float32, with a free batch size.

    Raises:
        ConversionError: the file cannot be read, a layer is not supported, or the module does not
            agree with the original.
        EnvironmentUnavailable: the TensorFlow that the file needs cannot be had.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        return from_onnx(path, keep_head=keep_head, data=data, verify=verify)
    if path.suffix in (".keras", ".h5") or path.is_dir():
        return _from_tensorflow(path, keep_head, data, verify, worker)[0]
    if not path.exists():
        raise ConversionError(f"{path}: expected a model, found no such file or folder")
    raise ConversionError(
        f"{path}: expected a .keras, .h5 or .onnx file or a SavedModel folder, "
        f"got the suffix {path.suffix!r}"
    )


def from_keras(
    path: PathLike,
    *,
    keep_head: bool = False,
    data: Data | None = None,
    verify: bool = True,
    worker: Worker | None = None,
) -> ConvertedModel:
    """Returns the model in a .keras or .h5 file as a torch module; see :func:`load`."""
    path = Path(path)
    if path.suffix not in (".keras", ".h5"):
        raise ConversionError(f"{path}: expected a .keras or .h5 file")
    return _from_tensorflow(path, keep_head, data, verify, worker)[0]


def from_saved_model(
    path: PathLike,
    *,
    keep_head: bool = False,
    data: Data | None = None,
    verify: bool = True,
    worker: Worker | None = None,
) -> ConvertedModel:
    """Returns the model in a SavedModel folder as a torch module; see :func:`load`.

    A folder written by Keras 2 is read by Keras. Of any other one only the serving signature's
    graph is known: it has no training behaviour, and ``train()`` refuses.
    """
    path = Path(path)
    if not path.is_dir():
        raise ConversionError(f"{path}: expected a SavedModel folder")
    return _from_tensorflow(path, keep_head, data, verify, worker)[0]


def from_onnx(
    path: PathLike,
    *,
    keep_head: bool = False,
    data: Data | None = None,
    verify: bool = True,
) -> ConvertedModel:
    """Returns the model in an ONNX file as a torch module; see :func:`load`. No TensorFlow runs.

    A file made by :func:`export_onnx` gives the same module as the Keras model did. In any other
    file the constants that Conv, Gemm, MatMul and their like take are the weights.
    """
    import onnx

    path = Path(path)
    try:
        graph = onnx.load(path)
        onnx.checker.check_model(graph)
    except FileNotFoundError:
        raise ConversionError(f"{path}: expected an ONNX file, found no such file") from None
    except Exception as error:  # the parser and the checker raise classes of their own
        text = " ".join(str(error).split())[:300]
        raise ConversionError(f"{path}: could not be read as an ONNX model: {text}") from error
    with named(path):
        onnx_graph.lift_constant_nodes(graph)
        annotation = Annotation.read(graph) or infer(graph, path.name)
        model = build(graph, annotation, keep_head=keep_head)
    if verify:
        _accept(path, model, verification.verify_with_onnx(model, graph, data))
    return model


def export_onnx(
    path: PathLike,
    out_path: PathLike,
    *,
    data: Data | None = None,
    worker: Worker | None = None,
) -> ConvertedModel:
    """Writes a Keras model as an annotated ONNX file, which :func:`load` reads without TensorFlow.

    The file is a plain ONNX model for other programs. It is written only after the module made
    from it agreed with the original, and in one step: a broken-off export leaves nothing.

    Returns:
        The module, as :func:`load` returns it.
    """
    model, graph = _from_tensorflow(Path(path), False, data, True, worker)
    out_path = Path(out_path)
    with tempfile.NamedTemporaryFile(dir=out_path.parent, suffix=".onnx", delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(graph.SerializeToString())
            file.close()
            temporary.chmod(0o644)  # a temporary file is the owner's alone
            temporary.replace(out_path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    return model


def _from_tensorflow(
    path: Path,
    keep_head: bool,
    data: Data | None,
    verify: bool,
    worker: Worker | None,
) -> tuple[ConvertedModel, Any]:
    path = path.resolve()
    with exporter(path, worker) as source:
        graph, annotation = source.export()
        with named(path):
            model = build(graph, annotation, keep_head=keep_head)
        if verify:
            _accept(path, model, verification.verify_with_tensorflow(model, source, data))
    return model, graph


def _accept(path: Path, model: ConvertedModel, comparison: Comparison) -> None:
    if not comparison:
        raise ConversionError(
            f"{path}: the converted model does not agree with the original\n{comparison.to_text()}"
        )
    model.verification = comparison
