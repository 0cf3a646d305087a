"""Trains the demo's small models of digits with Keras 2.

Handlers:
    train(folder, epochs, seed; x [B, 8, 8, 1] in [0, 1], y integers [B]) -> values {model:
        accuracy on the same data}; each model is saved as folder/<model>.keras:
        digits: a small CNN with a softmax head
        digits-reshaped: the same weights, its softmax followed by a reshape, so that neither Keras
            nor the port recovers the logits
        digits-batchnorm: a CNN with BatchNormalization
        digits-two-inputs: two inputs, the upper and the lower half of the image
"""

from __future__ import annotations

import os

import numpy as np
import tensorflow as tf

_CLASSES = 10
_BATCH = 64

layers = tf.keras.layers


def train(params, arrays):
    """Trains from a fixed seed, in a fixed order, and saves the models."""
    x = np.asarray(arrays["x"], np.float32)
    y = np.asarray(arrays["y"], np.int64)
    inputs = {
        "digits": x,
        "digits-batchnorm": x,
        "digits-two-inputs": [x[:, :4], x[:, 4:]],
    }
    accuracies = {}
    for name, model_inputs in inputs.items():
        tf.keras.utils.set_random_seed(params["seed"])
        model = _BUILDERS[name]()
        model.compile(
            optimizer=tf.keras.optimizers.Adam(3e-3),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )
        model.fit(model_inputs, y, batch_size=_BATCH, epochs=params["epochs"], verbose=0)
        _, accuracy = model.evaluate(model_inputs, y, batch_size=_BATCH, verbose=0)
        accuracies[name] = float(accuracy)
        model.save(_path(params, name))
        if name == "digits":
            flat = layers.Reshape((_CLASSES,), name="reshaped")(model.outputs[0])
            tf.keras.Model(model.inputs, flat).save(_path(params, "digits-reshaped"))
    return accuracies, {}


def _path(params, name):
    return os.path.join(params["folder"], f"{name}.keras")


def _digits():
    return tf.keras.Sequential(
        [
            layers.Input((8, 8, 1), name="image"),
            layers.Conv2D(8, 3, padding="same", activation="relu", name="conv1"),
            layers.MaxPooling2D(name="pool"),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="conv2"),
            layers.Flatten(name="flatten"),
            layers.Dense(32, activation="relu", name="hidden"),
            layers.Dense(_CLASSES, activation="softmax", name="digit"),
        ]
    )


def _batchnorm():
    return tf.keras.Sequential(
        [
            layers.Input((8, 8, 1), name="image"),
            layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv1"),
            layers.BatchNormalization(momentum=0.9, name="norm1"),
            layers.ReLU(name="relu1"),
            layers.AveragePooling2D(name="pool"),
            layers.Flatten(name="flatten"),
            layers.Dense(16, use_bias=False, name="hidden"),
            layers.BatchNormalization(momentum=0.9, name="norm2"),
            layers.ReLU(name="relu2"),
            layers.Dense(_CLASSES, activation="softmax", name="digit"),
        ]
    )


def _two_inputs():
    top = layers.Input((4, 8, 1), name="top")
    bottom = layers.Input((4, 8, 1), name="bottom")
    convolved = layers.Conv2D(4, 3, activation="relu", name="conv")(top)
    halves = [
        layers.Flatten(name="flat_top")(convolved),
        layers.Flatten(name="flat_bottom")(bottom),
    ]
    joined = layers.Concatenate(name="joined")(halves)
    hidden = layers.Dense(16, activation="tanh", name="hidden")(joined)
    return tf.keras.Model(
        [top, bottom], layers.Dense(_CLASSES, name="digit", activation="softmax")(hidden)
    )


_BUILDERS = {
    "digits": _digits,
    "digits-batchnorm": _batchnorm,
    "digits-two-inputs": _two_inputs,
}

HANDLERS = {"train": train}
