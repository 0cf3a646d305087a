"""What tf2onnx gets wrong in TFLite models, put right for the time of one conversion."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from tf2onnx import optimizer
from tf2onnx.handler import tf_op

_DENSE = "TFL_FULLY_CONNECTED"
_MERGE = "merge_duplication"


@contextlib.contextmanager
def weights_apart() -> Iterator[None]:
    """Keeps tf2onnx from making one weight of two that are equal now."""
    steps = optimizer._optimizers
    order = list(steps)
    merge = steps.pop(_MERGE)
    try:
        yield
    finally:
        steps[_MERGE] = merge
        for name in order:
            steps.move_to_end(name)


@contextlib.contextmanager
def biases_kept() -> Iterator[None]:
    """Keeps the bias of a dense layer whose input is an image: tf2onnx flattens it and drops it."""
    import tf2onnx.tflite_handlers

    handlers = tf_op.get_opsets()["com.google.tensorflow"][0]
    before = handlers[_DENSE]
    convert, settings = before

    def flatten_first(context: Any, node: Any, **keywords: Any) -> None:
        image, weight = node.input[:2]
        if node.attr["keep_num_dims"].i == 0 and context.get_rank(image) != 2:
            shape = np.array([-1, context.get_shape(weight)[1]], np.int64)
            target = context.make_const(tf2onnx.utils.make_name("flat"), shape).output[0]
            flat = context.make_node("Reshape", [image, target], shapes=[shape.tolist()])
            flat.skip_conversion = True
            context.replace_inputs(node, [flat.output[0], *node.input[1:]])
        convert(context, node, **keywords)

    handlers[_DENSE] = (flatten_first, settings)
    try:
        yield
    finally:
        handlers[_DENSE] = before
