"""Models whose activations and pools lie directly on the input, and their gradients.

Runs with Keras 2.15 and Keras 3. Handlers:

    build(kind, path) -> the model is saved at path; values units: the names of its parts.
    differentiate(kind, path, precision; x) -> arrays y, and the gradient of the weighted sum of y
        by x, in float32 or float64.
    and those of torchfgsm/converters/export_worker.py
"""

from __future__ import annotations

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "converters"))

import export_worker
import numpy as np
import tensorflow as tf

layers = tf.keras.layers
KERAS_3 = hasattr(tf.keras, "ops")

_NAMES = ("relu", "elu", "selu", "softplus", "softsign", "swish", "gelu", "mish", "hard_sigmoid",
          "tanh", "exponential", "sigmoid")  # fmt: skip
_NAMES_OF_3 = ("relu6", "hard_silu", "hard_tanh", "hard_shrink", "soft_shrink", 
               "squareplus", "sparse_plus", "celu", "tanh_shrink", "log_sigmoid",
               "sparse_sigmoid")  # fmt: skip


# Of one number, and of the numbers along the last axis.
OPERATIONS = {
    "clip": lambda x: tf.clip_by_value(x, 0.0, 1.0),
    "clip to 6": lambda x: tf.clip_by_value(x, 0.0, 6.0),
    "raw clip": lambda x: _raw_clip(x, 1.0),
    "raw clip to 6": lambda x: _raw_clip(x, 6.0),
    "relu6": tf.nn.relu6,
    "abs": tf.abs,
    "sign": lambda x: tf.sign(x) * x,
    "square": tf.square,
    "power 2": lambda x: tf.pow(x, 2.0),
    "power 1": lambda x: tf.pow(x, 1.0),
    "round": lambda x: tf.round(x) * x,
    "sqrt": lambda x: tf.sqrt(tf.abs(x)),
    "sqrt of a maximum": lambda x: tf.sqrt(tf.maximum(tf.square(x), 1e-6)),
    "maximum of sqrt": lambda x: tf.maximum(tf.sqrt(tf.square(x)), 1e-3),
    "minimum of rsqrt": lambda x: tf.minimum(tf.math.rsqrt(tf.square(x)), 1e3),
    "minimum of reciprocal": lambda x: tf.minimum(tf.math.reciprocal(tf.square(x)), 1e3),
    "maximum": lambda x: tf.maximum(x, 0.0),
    "maximum, other order": lambda x: tf.maximum(tf.zeros_like(x), x),
    "minimum": lambda x: tf.minimum(x, 1.0),
    "where": lambda x: tf.where(x >= 0.0, x, 0.5 * x),
    "divide_no_nan": lambda x: tf.math.divide_no_nan(tf.square(x), x),
    "expm1": tf.math.expm1,
    "log1p": lambda x: tf.math.log1p(tf.square(x)),
    "stop_gradient": lambda x: x * tf.stop_gradient(x),
}
REDUCTIONS = {
    "max": lambda x: tf.reduce_max(x, axis=-1, keepdims=True),
    "min": lambda x: tf.reduce_min(x, axis=-1, keepdims=True),
    "prod": lambda x: tf.reduce_prod(x, axis=-1, keepdims=True),
    "top_k": lambda x: tf.math.top_k(x, 2)[0],
    "logsumexp": lambda x: tf.reduce_logsumexp(x, axis=-1, keepdims=True),
    "cumsum": lambda x: tf.cumsum(x, axis=-1),
    "softmax": lambda x: tf.nn.softmax(x),
    "l2_normalize": lambda x: tf.math.l2_normalize(x, axis=-1),
    "distance": lambda x: tf.maximum(tf.norm(x, axis=-1, keepdims=True), 1e-3),
}


def _raw_clip(x, high):
    """The operation itself, which tf.clip_by_value does not use."""
    low, high = tf.constant(0.0, x.dtype), tf.constant(high, x.dtype)
    return tf.raw_ops.ClipByValue(t=x, clip_value_min=low, clip_value_max=high)


@tf.keras.utils.register_keras_serializable()
class Apply(layers.Layer):
    """One of the operations, by its name."""

    def __init__(self, operation, **settings):
        super().__init__(**settings)
        self.operation = operation

    def call(self, inputs):
        return {**OPERATIONS, **REDUCTIONS}[self.operation](inputs)

    def get_config(self):
        return {**super().get_config(), "operation": self.operation}


def _units():
    """Returns functions of one tensor, by name."""
    slope = "negative_slope" if KERAS_3 else "alpha"
    names = (*_NAMES, *(_NAMES_OF_3 if KERAS_3 else ()))
    return {
        **{name: layers.Activation(name) for name in names},
        **{name: Apply(name) for name in OPERATIONS},
        "ReLU(6)": layers.ReLU(6.0),
        "ReLU(1)": layers.ReLU(1.0),
        "ReLU(threshold)": layers.ReLU(threshold=1.0),
        "ReLU(slope, threshold)": layers.ReLU(negative_slope=0.25, threshold=1.0),
        "ReLU(all)": layers.ReLU(2.5, negative_slope=0.25, threshold=1.0),
        "ELU(0.3)": layers.ELU(0.3),
        "LeakyReLU": layers.LeakyReLU(**{slope: 0.25}),
        "PReLU": layers.PReLU(alpha_initializer=tf.keras.initializers.Constant(0.25)),
        "Maximum": lambda x: layers.Maximum()([x, _line(-1.0, 1.0)(x)]),
        "Maximum, swapped": lambda x: layers.Maximum()([_line(-1.0, 1.0)(x), x]),
        "Minimum": lambda x: layers.Minimum()([x, _line(-1.0, 1.0)(x)]),
        "Maximum with 0": lambda x: layers.Maximum()([x, _line(0.0, 0.0)(x)]),
        "Maximum of 3": lambda x: layers.Maximum()([_line(1.0, 0.0)(x), x, _line(-1.0, 0.0)(x)]),
    }


def _line(factor, offset):
    return layers.Rescaling(factor, offset=offset)


def _functions():
    """Each unit on a row of its own, so that the gradient tells which one differs."""
    units = _units()
    x = layers.Input((len(units), 1), name="x")
    last = len(units) - 1
    rows = [unit(layers.Cropping1D((i, last - i))(x)) for i, unit in enumerate(units.values())]
    return tf.keras.Model(x, layers.Concatenate(axis=1)(rows)), list(units)


def _vectors():
    """Functions that tie several numbers of a vector."""
    x = layers.Input((4,), name="x")
    parts = [Apply(name)(x) for name in REDUCTIONS]
    parts += [layers.UnitNormalization()(x)]
    parts += [layers.Activation("glu")(x)] if KERAS_3 else []
    return tf.keras.Model(x, layers.Concatenate(axis=1)(parts)), list(REDUCTIONS)


def _sparsemax():
    x = layers.Input((4,), name="x")
    return tf.keras.Model(x, layers.Activation("sparsemax")(x)), ["sparsemax"]


def _images():
    x = layers.Input((6, 7, 2), name="x")
    conv = layers.Conv2D(3, 3, padding="same", activation="relu", name="conv")
    h = conv(x)
    pools = [
        layers.MaxPooling2D(2)(h),
        layers.MaxPooling2D(3, 2, padding="same")(h),
        layers.MaxPooling2D(2, padding="same")(x),
        layers.GlobalMaxPooling2D()(h),
        layers.GlobalAveragePooling2D()(layers.AveragePooling2D(3, 2, padding="same")(h)),
        layers.UpSampling2D(2, interpolation="bilinear")(x),
        layers.UpSampling2D(2)(x),
        layers.Resizing(4, 11)(x),
        layers.Resizing(9, 5, interpolation="nearest")(x),
    ]
    flat = [layers.Flatten()(pool) for pool in pools]
    return tf.keras.Model(x, layers.Concatenate()(flat)), ["images"]


def _volumes():
    x = layers.Input((4, 4, 5, 1), name="x")
    return tf.keras.Model(x, layers.MaxPooling3D(2, 1)(x)), ["volumes"]


KINDS = {
    "functions": _functions,
    "vectors": _vectors,
    "sparsemax": _sparsemax,
    "images": _images,
    "volumes": _volumes,
}


def build(params, arrays):
    """Saves one of KINDS, where this Keras has it; biases are zero, as Keras makes them."""
    if params["kind"] == "sparsemax" and not KERAS_3:
        return {"units": []}, {}
    tf.keras.utils.set_random_seed(0)
    model, units = KINDS[params["kind"]]()
    model.save(params["path"])
    return {"units": units}, {}


def differentiate(params, arrays):
    """Returns the outputs and the input gradient of a model that is built anew."""
    before = tf.keras.backend.floatx()
    tf.keras.backend.set_floatx(params["precision"])
    try:
        model, _ = KINDS[params["kind"]]()
        kept = tf.keras.models.load_model(params["path"], compile=False).get_weights()
        model.set_weights(kept)
        x = tf.constant(arrays["x"], params["precision"])
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = model(x, training=False)
            weights = np.cos(np.arange(int(np.prod(y.shape[1:])))).reshape(y.shape[1:])
            total = tf.reduce_sum(y * tf.constant(weights, y.dtype))
        gradient = tape.gradient(total, x)
    finally:
        tf.keras.backend.set_floatx(before)
    return {}, {"y": y.numpy(), "gradient": gradient.numpy()}


HANDLERS = {**export_worker.HANDLERS, "build": build, "differentiate": differentiate}
