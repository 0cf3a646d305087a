"""Operations that carry what ONNX's own cannot say, through a TensorFlow trace into ONNX.

A mark is an operation that computes nothing and that no optimiser removes; its message is JSON.
``noise`` and ``batch_norm`` leave one in a trace; tf2onnx turns it into a node by ``HANDLERS``.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tf2onnx
from tf2onnx.optimizer import transpose_optimizer

_MARK = "torchfgsm:"


def noise(inputs: Any, settings: dict[str, Any]) -> Any:
    """Returns the inputs, marked as those of a noise layer with these settings."""
    return tf.raw_ops.CheckNumerics(tensor=inputs, message=_MARK + json.dumps(settings))


def batch_norm(inputs: Any, arguments: list[Any], epsilon: float) -> Any:
    """Returns the inputs (N, C, ...), marked to be normalised.

    ``arguments`` are gamma, beta, mean and variance. FusedBatchNormV3 would do, but for its
    missing kernel for float64 and for ranks below 4.
    """
    message = _MARK + json.dumps({"epsilon": epsilon})
    return tf.raw_ops.Print(input=inputs, data=arguments, message=message)


def _on_check_numerics(context: Any, node: Any, name: str, _: Any) -> None:
    settings = _settings(node)
    if settings is None:
        node.type = "Identity"
        return
    rate = np.array(settings.get("rate", 0.5), np.float32)
    ratio = context.make_const(tf2onnx.utils.make_name(name + "_ratio"), rate).output[0]
    new = _replace(context, node, "Dropout", [node.input[0], ratio])
    new.op.doc_string = json.dumps(settings)


def _on_print(context: Any, node: Any, name: str, _: Any) -> None:
    settings = _settings(node)
    if settings is None:
        _replace(context, node, "Identity", node.input[:1])
    else:
        _replace(context, node, "BatchNormalization", node.input, epsilon=settings["epsilon"])


def _on_erfc(context: Any, node: Any, name: str, _: Any) -> None:
    """Keras 3 writes the exact gelu with Erfc, which ONNX lacks."""
    output = node.output[0]
    shape, dtype = [context.get_shape(output)], [context.get_dtype(output)]
    one = np.array(1, tf2onnx.utils.map_onnx_to_numpy_type(dtype[0]))
    start = context.make_const(tf2onnx.utils.make_name(name + "_one"), one).output[0]
    erf = context.make_node("Erf", node.input[:1], name=name + "_erf", shapes=shape, dtypes=dtype)
    _replace(context, node, "Sub", [start, erf.output[0]])


HANDLERS: dict[str, tuple[Callable[..., None], list[Any]]] = {
    "CheckNumerics": (_on_check_numerics, []),
    "Erfc": (_on_erfc, []),
    "Print": (_on_print, []),
}


@contextlib.contextmanager
def noise_passes_transposes() -> Iterator[None]:
    """Lets tf2onnx move transposes past noise that is drawn for each element anew."""
    optimizer = transpose_optimizer.TransposeOptimizer
    before = optimizer._initialize_handlers

    def initialize(instance: Any) -> None:
        before(instance)

        def on_dropout(transpose: Any, node: Any) -> bool:
            if json.loads(node.op.doc_string or "{}").get("axes"):
                return False
            return bool(instance._simple_through_handler(transpose, node))

        instance._handler_map["Dropout"] = on_dropout

    optimizer._initialize_handlers = initialize
    try:
        yield
    finally:
        optimizer._initialize_handlers = before


def _settings(node: Any) -> dict[str, Any] | None:
    message = node.get_attr_value("message")
    text = message.decode() if isinstance(message, bytes) else str(message)
    return json.loads(text[len(_MARK) :]) if text.startswith(_MARK) else None


def _replace(context: Any, node: Any, kind: str, inputs: list[str], **attributes: Any) -> Any:
    """Puts an ONNX node in the place of one of TensorFlow's."""
    inputs, outputs, name = list(inputs), list(node.output), node.name
    shapes, dtypes = [context.get_shape(outputs[0])], [context.get_dtype(outputs[0])]
    context.remove_node(name)
    return context.make_node(
        kind, inputs, attributes, outputs=outputs, name=name, shapes=shapes, dtypes=dtypes
    )
