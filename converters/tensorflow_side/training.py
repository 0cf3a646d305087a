"""Finds what the layers of a Keras model do in training, inside a TensorFlow environment.

BatchNormalization and Dropout lose their training behaviour in an inference trace; under
:func:`markers` both leave one recognisable operation there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from .keras_model import KERAS_MAJOR, leaves, variable_of

DROPOUT_MARK = "torchfgsm-dropout:"

# Layers that act in training alone, and for which torch gets no module of its own.
_TRAINING_LAYERS = {
    "AlphaDropout",
    "BatchNormalization",  # with renorm, virtual batches, several axes or synchronized
    "Dropout",  # with noise_shape
    "GaussianDropout",
    "GaussianNoise",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "SpectralNormalization",
    "SyncBatchNormalization",
}


def batch_norms(model: Any) -> dict[int, dict[str, Any]]:
    """Returns the training settings of each BatchNormalization, by id of its moving mean."""
    return {
        id(variable_of(layer.moving_mean)): {
            "momentum": float(layer.momentum),
            "epsilon": float(layer.epsilon),
            # The fused kernel of Keras 2 keeps the variance with Bessel's correction.
            "unbiased": KERAS_MAJOR < 3 and bool(getattr(layer, "fused", False)),
            "frozen": not layer.trainable,
        }
        for layer in leaves(model)
        if _is_plain_batch_norm(layer)
    }


def only_inference(model: Any) -> list[str]:
    """Names the layers whose training behaviour does not travel into torch."""
    found = []
    for layer in leaves(model):
        kind = type(layer).__name__
        rates = [getattr(layer, key, 0) for key in ("dropout", "recurrent_dropout")]
        plain = _is_plain_batch_norm(layer) or _is_plain_dropout(layer)
        acts = kind in _TRAINING_LAYERS or kind.startswith("Random")
        if (acts and not plain) or any(isinstance(rate, float) and rate for rate in rates):
            found.append(f"{kind} {layer.name!r}")
    return found


@contextlib.contextmanager
def markers(model: Any) -> Iterator[None]:
    """Lets BatchNormalization and Dropout leave one recognisable operation in a trace."""
    marked = []
    for layer in leaves(model):
        if _is_plain_batch_norm(layer):
            layer.call = _batch_norm_call(layer)
        elif _is_plain_dropout(layer) and layer.rate > 0:
            layer.call = _dropout_call(layer)
        else:
            continue
        marked.append(layer)
    try:
        yield
    finally:
        for layer in marked:
            del layer.call


def _batch_norm_call(layer: Any) -> Any:
    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def call(inputs: Any, training: Any = None, mask: Any = None) -> Any:
        rank = inputs.shape.rank
        axis = layer.axis[0] if isinstance(layer.axis, (list, tuple)) else layer.axis
        order = [i for i in range(rank) if i != axis % rank] + [axis % rank]
        last = order == sorted(order)
        x = inputs if last else tf.transpose(inputs, order)
        for _ in range(4 - rank):
            x = tf.expand_dims(x, 1)
        channels = x.shape[-1]
        y = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=_read(layer.gamma) if layer.scale else tf.ones(channels),
            offset=_read(layer.beta) if layer.center else tf.zeros(channels),
            mean=_read(layer.moving_mean),
            variance=_read(layer.moving_variance),
            epsilon=layer.epsilon,
            is_training=False,
            data_format="NDHWC" if rank == 5 else "NHWC",
        ).y
        for _ in range(4 - rank):
            y = tf.squeeze(y, 1)
        return y if last else tf.transpose(y, np.argsort(order))

    return call


def _dropout_call(layer: Any) -> Any:
    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def call(inputs: Any, training: Any = None) -> Any:
        return tf.raw_ops.CheckNumerics(tensor=inputs, message=f"{DROPOUT_MARK}{layer.rate}")

    return call


def _is_plain_batch_norm(layer: Any) -> bool:
    if type(layer) is not tf.keras.layers.BatchNormalization:
        return False
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    special = any(
        getattr(layer, key, None) for key in ("renorm", "virtual_batch_size", "synchronized")
    )
    return len(axes) == 1 and not special


def _is_plain_dropout(layer: Any) -> bool:
    return type(layer) is tf.keras.layers.Dropout and layer.noise_shape is None


def _read(weight: Any) -> Any:
    return tf.convert_to_tensor(variable_of(weight))
