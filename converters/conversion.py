"""The way of a conversion: read, export, build, verify."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torchfgsm.converters.annotation import Annotation
from torchfgsm.converters.errors import ConversionError, named
from torchfgsm.converters.exporting import Exporter, exporter
from torchfgsm.converters.formats import form_of
from torchfgsm.converters.in_memory import exporter_of, is_keras_model
from torchfgsm.converters.model import ConvertedModel
from torchfgsm.converters.onnx_side import fixed_batch
from torchfgsm.converters.onnx_side.file import read_onnx
from torchfgsm.converters.options import Options
from torchfgsm.converters.torch_side.building import build
from torchfgsm.converters.verification import verifying as verification
from torchfgsm.converters.verification.interpreter_check import compare_outputs
from torchfgsm.judging.comparison import Comparison
from torchfgsm.originals.environment import EnvironmentUnavailable
from torchfgsm.system import extras


def convert(source: Path | Any, options: Options) -> tuple[ConvertedModel, Any]:
    """Returns the torch module of a model file or a Keras model, and its annotated ONNX model.

    Raises:
        ConversionError: the model cannot be converted, or does not agree with its original.
        EnvironmentUnavailable: the TensorFlow that it needs cannot be had.
        ImportError: a package of the extra "convert" is missing.
    """
    check_packages()
    if not isinstance(source, Path):
        if not is_keras_model(source):
            raise ConversionError(
                f"expected a model file or a Keras model, got {type(source).__name__}"
            )
        options.refuse_unfit("keras")
        with exporter_of(source, options) as opened:
            return _from_tensorflow(opened, options)
    options.report("reading")
    form = form_of(source, allow_unsafe=options.allow_unsafe)
    with named(source):
        options.refuse_unfit(form)
    with _told(source):
        if form == "onnx":
            return _from_onnx(source, options)
        with exporter(source.resolve(), options.worker, options) as opened:
            return _from_tensorflow(opened, options)


def check_packages() -> None:
    """Refuses at once what would fail at the end, after minutes of TensorFlow at times.

    Raises:
        ImportError: the onnx package or onnx2torch is missing.
    """
    extras.require("converting models", "onnx", "onnx2torch")


@contextlib.contextmanager
def _told(source: Path) -> Iterator[None]:
    """Names the file, and makes one line of what a file that contradicts itself leads to."""
    try:
        yield
    except ConversionError as error:
        if str(source) in str(error) or str(source.resolve()) in str(error):
            raise
        raise ConversionError(f"{source}: {error}") from error
    except (EnvironmentUnavailable, ImportError, MemoryError):  # no matter of this file
        raise
    except OSError as error:
        raise OSError(str(error) if str(source) in str(error) else f"{source}: {error}") from error
    except Exception as error:  # torch, onnx2torch and numpy raise classes of their own
        text = " ".join(str(error).split())[:300]
        raise ConversionError(
            f"{source}: the model could not be rebuilt in torch; the file is damaged, or holds "
            f"what is not supported: {type(error).__name__}: {text}"
        ) from error


def _from_onnx(path: Path, options: Options) -> tuple[ConvertedModel, Any]:
    original, annotation = read_onnx(path)
    graph, size = original, fixed_batch.batch_of(original)
    if size is not None and options.verify:
        graph = fixed_batch.freed(original, size)
    elif size is not None:
        annotation = annotation.unverified_beyond(size)
        annotation.write(graph)
    with named(path):
        _refuse_other_dtype(annotation, options)
        options.report("building")
        model = build(graph, annotation, keep_head=options.keep_head)
    if not options.verify:
        return model, graph
    options.report("verifying")
    if size is None:
        _accept(path, model, verification.verify_with_onnx(model, graph, options.data))
        return model, graph
    try:
        found = verification.verify_with_onnx(model, original, options.data)
    except Exception:  # an operation of torch that was given sizes that it cannot have
        found = Comparison("", ())
    if not found:
        # Something beyond the shapes that it states holds the size: it is kept.
        graph, annotation = original, annotation.for_batches_of(size)
        annotation.write(graph)
        model = build(graph, annotation, keep_head=options.keep_head)
        found = verification.verify_with_onnx(model, graph, options.data)
    _accept(path, model, found)
    return model, graph


def _from_tensorflow(source: Exporter, options: Options) -> tuple[ConvertedModel, Any]:
    graph, annotation = source.export()
    with named(source.path):
        options.report("building")
        model = build(graph, annotation, keep_head=options.keep_head)
    parts = []
    if options.verify:
        parts += _verified(model, graph, source, options)
    if options.verify_training:
        from torchfgsm.converters.verification.training_check import verify_training

        options.report("verifying training steps")
        parts.append(verify_training(model, source))
    if parts:
        title = parts[0].title
        joined = parts[0] if len(parts) == 1 else Comparison.join(title, parts)
        _accept(source.path, model, joined)
    return model, graph


def _verified(
    model: ConvertedModel, graph: Any, source: Exporter, options: Options
) -> list[Comparison]:
    if source.format == "tflite":  # its interpreter has no gradients
        options.report("verifying")
        by_onnx = verification.verify_with_onnx(model, graph, options.data)
        return [by_onnx, compare_outputs(model, source, options.data, graph)]
    return [verification.verify_with_tensorflow(model, source, options.data, graph)]


def _refuse_other_dtype(annotation: Annotation, options: Options) -> None:
    wanted = None if options.dtype is None else str(options.dtype).removeprefix("torch.")
    for port in annotation.inputs:
        if wanted and port.dtype.startswith("float") and port.dtype != wanted:
            raise ConversionError(
                f"expected a model that computes in {wanted}, input {port.name!r} is {port.dtype}: "
                "leave dtype out and call .double() or .float() on the result"
            )


def _accept(path: Path, model: ConvertedModel, comparison: Comparison) -> None:
    if not comparison:
        raise ConversionError(
            f"{path}: the converted model does not agree with the original\n{comparison.to_text()}"
        )
    model.verification = comparison
