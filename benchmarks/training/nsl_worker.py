# mypy: ignore-errors
# (runs where TensorFlow is installed and the port is not)
"""Trains Keras models by NSL's own compile and fit.

Serves the handlers of ``torchfgsm/originals/workers/nsl.py`` and two more:

    build(kind, seed, path): saves a model of 8 x 8 images that gives logits, with random weights
        and moving statistics. kind: "plain" or "batchnorm".
    fit(model, params, dtype, optimizer, batch, at; x/<name>, y) by compile and fit over the
        examples as they come, one epoch of batches of ``batch``. params: multiplier, and
        AdvNeighborConfig's keywords. optimizer: a Keras class as {"class": ..., its keywords}.
        -> arrays <step>/weight/<weight> after each step of ``at``, and <step>/loss/<name>, what fit
        reports then (the means over the batches up to there).
"""

from __future__ import annotations

import keras_models
import nsl
import numpy as np
import tensorflow as tf

layers = tf.keras.layers

# Keras holds it in float32, in a float64 model too; this is the same number in both.
_MOMENTUM = 0.875


def _plain():
    return [
        layers.Conv2D(16, 3, padding="same", activation="relu", name="conv"),
        layers.AveragePooling2D(name="pool"),
        layers.Flatten(name="flatten"),
        layers.Dense(32, activation="relu", name="hidden"),
        layers.Dense(10, name="digit"),
    ]


def _batchnorm():
    return [
        layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv"),
        # The fused kernel, which float64 does not have, counts the moving variance otherwise.
        layers.BatchNormalization(momentum=_MOMENTUM, fused=False, name="norm1"),
        layers.ReLU(name="relu1"),
        layers.AveragePooling2D(name="pool"),
        layers.Flatten(name="flatten"),
        layers.Dense(16, use_bias=False, name="hidden"),
        layers.BatchNormalization(momentum=_MOMENTUM, name="norm2"),
        layers.ReLU(name="relu2"),
        layers.Dense(10, name="digit"),
    ]


_KINDS = {"plain": _plain, "batchnorm": _batchnorm}


def build(params, arrays):
    """Builds a model with Keras' initial weights and saves it."""
    tf.keras.utils.set_random_seed(params["seed"])
    image = layers.Input((8, 8, 1), name="image")
    output = image
    for layer in _KINDS[params["kind"]]():
        output = layer(output)
    model = tf.keras.Model(image, output)
    random = np.random.default_rng(params["seed"])
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.weights])
    model.save(params["path"])
    return {}, {}


class _Recorder(tf.keras.callbacks.Callback):
    """Keeps the weights and the logs after some of the steps."""

    def __init__(self, base_model, steps):
        super().__init__()
        self.base_model, self.steps, self.found = base_model, set(steps), {}

    def on_train_batch_end(self, batch, logs=None):
        step = batch + 1
        if step in self.steps:
            weights = {weight.name: weight for weight in self.base_model.weights}
            self.found.update(keras_models.numpy_arrays(f"{step}/weight", weights))
            self.found.update(keras_models.numpy_arrays(f"{step}/loss", logs))


def fit(params, arrays):
    """Trains a fresh model and returns what it was on its way."""
    before = tf.keras.backend.floatx()
    # Of the wrapper's inputs, its metrics and the learning rate.
    tf.keras.backend.set_floatx(params.get("dtype", "float32"))
    try:
        loaded = keras_models.build(params)
        wrapper, examples, _ = nsl._wrapped(loaded, params, arrays)
        options = dict(params["optimizer"])
        wrapper.compile(getattr(tf.keras.optimizers, options.pop("class"))(**options))
        recorder = _Recorder(loaded.model, params["at"])
        wrapper.fit(
            examples,
            batch_size=params["batch"],
            shuffle=False,
            verbose=0,
            callbacks=[recorder],
        )
        return {}, recorder.found
    finally:
        tf.keras.backend.set_floatx(before)
        tf.keras.backend.clear_session()


HANDLERS = {**nsl.HANDLERS, "build": build, "fit": fit}
