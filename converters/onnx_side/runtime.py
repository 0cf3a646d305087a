"""Runs ONNX models with ONNX Runtime, or with the onnx package's reference evaluator."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from torchfgsm.converters.annotation import Annotation, Array
from torchfgsm.converters.errors import ConversionError
from torchfgsm.converters.onnx_side.fixed_batch import batch_of, in_parts
from torchfgsm.converters.onnx_side.mended import mended

Run = Callable[[Mapping[str, Array]], dict[str, Array]]
"""Takes inputs by the model's names, (N, ...); returns "output <name>" -> (N, ...)."""


def runner(graph: Any, annotation: Annotation) -> Run:
    """Returns a call of an ONNX model, on one thread, for any number of examples.

    The reference evaluator takes over where ONNX Runtime is not installed or lacks an operation's
    kernel, as it does for some in float64.

    Raises:
        ConversionError: neither can load the model. The call raises it when the model cannot run.
    """
    outputs = [port.tensor for port in annotation.outputs]
    call = _onnxruntime(graph, outputs) or _reference(graph, outputs)
    size = batch_of(graph)
    call = call if size is None else in_parts(call, size)

    def run(batch: Mapping[str, Array]) -> dict[str, Array]:
        feed = {port.tensor: batch[port.name] for port in annotation.inputs}
        try:
            arrays = call(feed)
        except Exception as error:  # both raise classes of their own
            refused = ConversionError(f"the ONNX model cannot run: {_line(error)}")
            if not any(array.dtype == np.float64 for array in feed.values()):
                raise refused from error
            # ONNX Runtime finds out when it runs that its recurrent layers have no float64.
            try:
                other = _reference(graph, outputs)
                arrays = (other if size is None else in_parts(other, size))(feed)
            except Exception:
                raise refused from error
        pairs = zip(annotation.outputs, arrays, strict=True)
        return {f"output {port.name}": np.asarray(array) for port, array in pairs}

    return run


def _onnxruntime(
    graph: Any, outputs: Sequence[str]
) -> Callable[[Mapping[str, Array]], list[Any]] | None:
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    # A kernel that is missing: the reference evaluator says more of any other fault.
    with contextlib.suppress(Exception):
        session = onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return lambda feed: list(session.run(list(outputs), dict(feed)))
    return None


def _reference(graph: Any, outputs: Sequence[str]) -> Callable[[Mapping[str, Array]], list[Any]]:
    from onnx.reference import ReferenceEvaluator

    try:
        evaluator = ReferenceEvaluator(graph, new_ops=mended())
    except Exception as error:  # an operation without an implementation
        raise ConversionError(f"the ONNX model cannot be loaded: {_line(error)}") from error
    return lambda feed: list(evaluator.run(list(outputs), dict(feed)))


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
