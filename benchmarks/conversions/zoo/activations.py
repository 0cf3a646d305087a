"""A small classifier for each activation, and one with all of them behind convolutions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf

layers = tf.keras.layers
Activation = layers.Activation


def _classifier(make: Callable[[], Any]) -> Any:
    x = layers.Input((6,), name="x")
    h = make()(layers.Dense(8)(x))
    return tf.keras.Model(x, layers.Dense(3, activation="softmax")(h))


def _leaning() -> Any:
    return layers.ReLU(max_value=6.0, negative_slope=0.1, threshold=0.2)


def _all(names: tuple[Any, ...], own: tuple[Callable[[], Any], ...]) -> Any:
    x = layers.Input((8, 8, 3), name="x")
    parts = [layers.Conv2D(4, 3, activation=name)(x) for name in names]
    parts += [make()(layers.Conv2D(4, 3)(x)) for make in own]
    h = layers.GlobalAveragePooling2D()(layers.Concatenate()(parts))
    return tf.keras.Model(x, layers.Dense(4, activation="softmax")(h))


_NAMES = ("gelu", "swish", "hard_sigmoid", "softplus", "elu", "selu", "softsign", "tanh")
_LAYERS = (
    layers.LeakyReLU,
    partial(layers.PReLU, shared_axes=[1, 2]),
    layers.PReLU,
    _leaning,
    partial(layers.ELU, 0.5),
    layers.Softmax,
)
_KERAS_3 = (
    "celu",
    "hard_shrink",
    "hard_silu",
    "hard_tanh",
    "leaky_relu",
    "log_sigmoid",
    "relu6",
    "soft_shrink",
    "sparse_plus",
    "squareplus",
    "tanh_shrink",
)

MODELS = {
    **{
        f"activation_{name}": partial(_classifier, partial(Activation, name))
        for name in ("gelu", "swish", "hard_sigmoid", "softplus", "elu", "selu", "mish")
    },
    "activation_relu6": partial(_classifier, partial(layers.ReLU, 6.0)),
    "activation_leaky_relu": partial(_classifier, layers.LeakyReLU),
    "activation_prelu": partial(_classifier, layers.PReLU),
    "activation_threshold": partial(_classifier, _leaning),
    "activations": partial(_all, (*_NAMES, "sigmoid", "exponential", tf.nn.relu6), _LAYERS),
    "activations_keras3": partial(_all, _KERAS_3, ()),
}
