# mypy: ignore-errors
"""Models for tests/test_keras2.py; needs Keras 3. Handlers are those of converter_zoo_worker.py.

Kinds beside its own:
    layers(n)   every layer that is taken over, in n spatial dimensions
    nests       models in models, each called twice
    adapted     a Normalization that was adapted to data
    hard        an activation whose formula changed between Keras 2.15 and Keras 3
    half        computes in float16
    own         an activation of the user's own
"""

from __future__ import annotations

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parent))

import converter_zoo_worker as zoo
import numpy as np
import tensorflow as tf

layers = tf.keras.layers


def _layers(n):
    def of(name, *arguments, **keywords):
        return getattr(layers, f"{name}{n}D")(*arguments, **keywords)

    x = layers.Input((*([6] * n), 2), name="x")
    h = of("Conv", 4, 3, strides=2, padding="same", activation="relu")(x)
    h = of("Conv", 4, 3, padding="same", dilation_rate=2, groups=2, kernel_regularizer="l2")(h)
    h = layers.BatchNormalization()(h)
    if n < 3:
        h = of("SeparableConv", 4, 2, padding="same", depth_multiplier=2)(h)
        h = of("DepthwiseConv", 2, padding="same", depth_multiplier=2)(h)
        h = layers.PReLU(shared_axes=list(range(1, n + 1)))(of("Conv", 4, 1)(h))
    activations = [
        layers.ReLU(6.0, negative_slope=0.1, threshold=0.2),
        layers.LeakyReLU(0.2),
        layers.ELU(0.7),
        layers.Softmax(),
        *map(layers.Activation, ("tanh", "sigmoid", "softplus", "selu", "silu", "gelu", "mish")),
        *map(layers.Activation, ("softsign", "exponential", "leaky_relu", "relu6", "linear")),
    ]
    parts = [activation(h) for activation in activations]
    joined = [layers.Add(), layers.Multiply(), layers.Average(), layers.Maximum(), layers.Minimum()]
    parts += [join(parts[:2]) for join in joined]
    parts.append(layers.Subtract()(parts[:2]))
    h = layers.Dropout(0.3)(layers.Concatenate()(parts))
    h = of("ZeroPadding", 1)(of("UpSampling", 2)(of("Cropping", 1)(of("ZeroPadding", 2)(h))))
    pooled = [of("MaxPooling", 2)(h), of("AveragePooling", 2)(h)]
    pooled.append(of("AveragePooling", 3, strides=2, padding="same")(h))
    ends = [layers.Flatten()(part) for part in pooled]
    turned = layers.Permute((n + 1, *range(1, n + 1)))(h)
    ends.append(layers.Flatten()(layers.Reshape((-1, 3))(turned)))
    ends += [of("GlobalAveragePooling")(h), of("GlobalMaxPooling")(h)]
    h = layers.Dense(5)(layers.Concatenate()(ends))
    return tf.keras.Model(x, layers.Dense(3, activation="softmax")(h))


def _nests():
    def line():
        dense = layers.Dense(4, name="d", trainable=False)
        norm = layers.BatchNormalization(name="n")
        return tf.keras.Sequential([layers.Input((4,)), dense, norm])

    first = line()
    u, v = layers.Input((4,), name="u"), layers.Input((4,), name="v")
    inner = tf.keras.Model([u, v], layers.Subtract()([line()(u), layers.Dense(4, name="d")(v)]))
    x = layers.Input((4,), name="x")
    h = inner([first(x), x])
    end = tf.keras.Sequential([layers.Input((4,)), layers.Dense(3, name="d")])
    return tf.keras.Model(x, [end(first(inner([h, x]))), inner([h, h])])


def _adapted():
    normalization = layers.Normalization()
    normalization.adapt(np.random.default_rng(0).normal(3.0, 2.0, (64, 4, 4, 3)))
    parts = [normalization, layers.Flatten(), layers.Dense(3)]
    return tf.keras.Sequential([layers.Input((4, 4, 3)), *parts])


def _dense(**keywords):
    return tf.keras.Sequential([layers.Input((6,)), layers.Dense(4, name="d", **keywords)])


@tf.keras.utils.register_keras_serializable("tests")
def _own_activation(x):
    return 2 * x


zoo.KINDS |= {
    "layers1": lambda: _layers(1),
    "layers2": lambda: _layers(2),
    "layers3": lambda: _layers(3),
    "nests": _nests,
    "adapted": _adapted,
    "hard": lambda: _dense(activation="hard_sigmoid"),
    "half": lambda: _dense(dtype="mixed_float16"),
    "own": lambda: _dense(activation=_own_activation),
}
HANDLERS = zoo.HANDLERS
