"""Writes TFLite files that hold operations of which tf2onnx knows nothing, or not enough. Handlers:

write(name, path, batch) -> the function of that name is saved at path, for batches of that size or
    (null) of any; values operations: those that the file holds.
export_with_fault(path, operation) -> as export, where the handler of an operation fails.
and those of torchfgsm/converters/export_worker.py
"""

from __future__ import annotations

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "converters"))

import export_worker
import tensorflow as tf
from tf2onnx import tflite_utils
from tf2onnx.handler import tf_op


def _broadcast(x):
    """(N, 1, 4) to the shape that both shapes broadcast to, of which one is shorter."""
    shape = tf.raw_ops.BroadcastArgs(s0=tf.shape(x), s1=tf.constant([5, 1]))
    return tf.broadcast_to(x, shape) * tf.reshape(tf.range(20.0), (5, 4))


def _clipped(x):
    kernel = tf.reshape(tf.linspace(-0.9, 0.9, 4 * 3), (1, 1, 4, 3))
    return tf.clip_by_value(tf.nn.conv2d(x[:, None], kernel, 1, "VALID"), -1.0, 1.0)


FUNCTIONS = {
    "BROADCAST_ARGS": _broadcast,
    "CONV_2D": _clipped,
    "GELU": tf.nn.gelu,
    "GELU, approximate": lambda x: tf.nn.gelu(x, approximate=True),
    "L2_NORMALIZATION": lambda x: tf.math.l2_normalize(x, axis=-1),
}


def write(params, arrays):
    """Writes one of FUNCTIONS, of examples (1, 4)."""
    x = tf.TensorSpec([params["batch"], 1, 4], tf.float32, name="x")
    function = tf.function(FUNCTIONS[params["name"]]).get_concrete_function(x)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    pathlib.Path(params["path"]).write_bytes(converter.convert())
    operations = tflite_utils.read_tflite_model(params["path"])[1]
    return {"operations": sorted(operations.values())}, {}


def export_with_fault(params, arrays):
    """Exports a TFLite file while the handler of one of its operations raises."""
    handlers = tf_op.get_opsets()["com.google.tensorflow"][0]
    before = handlers[params["operation"]]

    def fail(context, node, **_):
        raise ValueError("a planted fault")

    handlers[params["operation"]] = (fail, {})
    try:
        return export_worker.HANDLERS["export"]({"path": params["path"], "format": "tflite"}, {})
    finally:
        handlers[params["operation"]] = before


HANDLERS = {
    **export_worker.HANDLERS,
    "write": write,
    "export_with_fault": export_with_fault,
}
