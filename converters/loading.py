"""Loads models as torch modules, and exports them as annotated ONNX: what users call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from torchfgsm.converters.conversion import convert
from torchfgsm.converters.errors import ConversionError
from torchfgsm.converters.formats import HDF5
from torchfgsm.converters.model import ConvertedModel
from torchfgsm.converters.options import AllKeywords, Keywords, Options, PathLike, Progress
from torchfgsm.converters.verification.batches import Data
from torchfgsm.converters.writing import refuse_target, write_onnx

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from torchfgsm.originals.process import Worker


def load(
    path: PathLike,
    *,
    keep_head: bool = False,
    dtype: torch.dtype | None = None,
    data: Data | None = None,
    verify: bool = True,
    verify_training: bool = False,
    custom_objects: PathLike | None = None,
    allow_unsafe: bool = False,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    timeout: float = 600.0,
    progress: Progress | None = None,
    worker: Worker | None = None,
) -> ConvertedModel:
    """Returns the model in a file as a torch module, compared with its original.

    Args:
        path: a .keras, .h5, .pb (frozen graph), .tflite (not quantised) or .onnx file, or a
            SavedModel folder.
        keep_head: keep a softmax or sigmoid at the end instead of returning logits.
        dtype: ``torch.float64`` exports a Keras model in float64, so that its constants are not
            rounded to float32 first. By default the model computes as its file does. Other files
            refuse: call ``.double()`` on the result.
        data: examples to compare on too: an array (N, ...), or a dict of them by input name; the
            first 64 are used.
        verify: compare outputs and input gradients with the original on random inputs, on those
            where activations have kinks, and on ``data``; the result is the module's
            ``verification``.
        verify_training: compare training steps with Keras too.
        custom_objects: a Python file that defines the model's own layers, losses and functions.
            The TensorFlow process runs it.
        allow_unsafe: load what could run code: Lambda layers and what else a Keras file names that
            is not known to compute alone, operations of a graph that reach files, the network or
            Python. Only for files that you trust as a program.
        input_names: of a frozen graph, the tensors that are its inputs, such as "x:0".
        output_names: of a frozen graph, the tensors that are its outputs.
        timeout: seconds that TensorFlow may take for one step.
        progress: is called with each step's name when the step begins.
        worker: an open export worker to use; by default one is started for this call.

    Returns:
        The module, in eval mode, with a free batch size.

    Raises:
        ConversionError: the file cannot be read, a layer is not supported, or the module does not
            agree with the original.
        EnvironmentUnavailable: the TensorFlow that the file needs cannot be had.
    """
    options = Options(
        keep_head=keep_head,
        dtype=dtype,
        data=data,
        verify=verify,
        verify_training=verify_training,
        custom_objects=custom_objects,
        allow_unsafe=allow_unsafe,
        input_names=input_names,
        output_names=output_names,
        timeout=timeout,
        progress=progress,
        worker=worker,
    )
    return convert(Path(path), options)[0]


def from_keras(model: PathLike | Any, **options: Unpack[Keywords]) -> ConvertedModel:
    """Returns a Keras model as a torch module; see :func:`load`.

    Args:
        model: a .keras or .h5 file, or a Keras 2, tf_keras or Keras 3 model of this process.
        **options: the keywords of :func:`load`. ``custom_objects`` is not needed for a model of
            this process whose layers Keras can build again by itself.
    """
    return convert(_source(model, (".keras", *HDF5)), Options(**options))[0]


def from_saved_model(path: PathLike, **options: Unpack[Keywords]) -> ConvertedModel:
    """Returns the model in a SavedModel folder as a torch module; see :func:`load`.

    A folder written by Keras 2 is read by Keras. Of any other one only the serving signature's
    graph is known: it has no training behaviour, and ``train()`` refuses.
    """
    path = Path(path)
    if not path.is_dir():
        raise ConversionError(f"{path}: expected a SavedModel folder")
    return load(path, **options)


def from_frozen_graph(
    path: PathLike,
    input_names: Sequence[str],
    output_names: Sequence[str],
    **options: Unpack[Keywords],
) -> ConvertedModel:
    """Returns a frozen TensorFlow graph (.pb) as a torch module; see :func:`load`.

    The constants that convolutions, matrix products and their biases take are the weights. It has
    no training behaviour, and ``train()`` refuses.

    Args:
        path: the file.
        input_names: the tensors that are the inputs, such as "x:0".
        output_names: the tensors that are the outputs.
        **options: the keywords of :func:`load`.
    """
    chosen = Options(input_names=input_names, output_names=output_names, **options)
    return convert(_source(path, (".pb",)), chosen)[0]


def from_tflite(path: PathLike, **options: Unpack[Keywords]) -> ConvertedModel:
    """Returns a float TensorFlow Lite model as a torch module; see :func:`load`.

    The TFLite interpreter judges the outputs; it has no gradients, which are compared with
    differences of outputs instead. ``train()`` refuses.
    """
    return convert(_source(path, (".tflite",)), Options(**options))[0]


def from_onnx(path: PathLike, **options: Unpack[Keywords]) -> ConvertedModel:
    """Returns the model in an ONNX file as a torch module; see :func:`load`. No TensorFlow runs.

    A file made by :func:`export_onnx` gives the same module as the Keras model did. In any other
    file the constants that Conv, Gemm, MatMul and their like take are the weights.
    """
    return convert(_source(path, (".onnx",)), Options(**options))[0]


def export_onnx(
    model: PathLike | Any,
    out_path: PathLike,
    *,
    overwrite: bool = True,
    **options: Unpack[AllKeywords],
) -> ConvertedModel:
    """Writes a model as an annotated ONNX file, which :func:`load` reads without TensorFlow.

    The file is a plain ONNX model for other programs. It is written only after the module made
    from it agreed with the original, and in one step: a broken-off export leaves nothing.

    Args:
        model: a model file as :func:`load` takes it, or a Keras model of this process.
        out_path: the .onnx file to write.
        overwrite: whether an older file may be replaced.
        **options: the keywords of :func:`load`.

    Returns:
        The module, as :func:`load` returns it.

    Raises:
        ConversionError: as :func:`load`; or the file cannot be written.
    """
    out, source = Path(out_path), _source(model)
    refuse_target(out, source if isinstance(source, Path) else None, overwrite=overwrite)
    chosen = Options(**options)
    converted, graph = convert(source, chosen)
    chosen.report("writing")
    write_onnx(graph, out)
    return converted


def _source(model: PathLike | Any, suffixes: Sequence[str] = ()) -> Any:
    """Returns a path, or the Keras model itself."""
    if not isinstance(model, (str, Path)) and not hasattr(model, "__fspath__"):
        return model
    path = Path(model)
    if suffixes and path.suffix not in suffixes:
        raise ConversionError(f"{path}: expected a file with the suffix {' or '.join(suffixes)}")
    return path
