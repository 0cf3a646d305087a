"""Builds the models on which verification itself is tested, and serves the export worker's.

Runs with Keras 2.15 and Keras 3. Handlers:

    build(kind, path) -> the model, with random weights, is saved at path.
    build_chain(activation, layers, factor, seed, path) -> so is a chain of dense layers.
    weights(path) -> arrays by number: the weights of the model that was exported last.
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
Input, Model, Dense = layers.Input, tf.keras.Model, layers.Dense


def _image():
    """Everything that trains in a way of its own: shared weights, statistics, noise, penalties."""
    x = Input((6, 6, 2), name="image")
    h = layers.Conv2D(4, 3, padding="same", name="conv")(x)
    h = layers.BatchNormalization(momentum=0.9, name="norm")(h)
    h = layers.ReLU(name="relu")(h)
    h = layers.Dropout(0.5, name="drop")(h)
    shared = Dense(4, name="shared", kernel_regularizer=tf.keras.regularizers.L2(0.05))
    parts = [layers.GlobalAveragePooling2D()(h), layers.GlobalMaxPooling2D()(h)]
    h = layers.Concatenate()([shared(part) for part in parts])
    return Model(x, Dense(3, activation="softmax", name="head")(h))


def _axes():
    """A softmax over the first axis of an example, with a transpose behind it."""
    x = Input((3, 2), name="x")
    classes = layers.Softmax(axis=1, name="classes")(Dense(2, name="dense")(x))
    unused = Input((2,), name="unused")
    plain = layers.Add(name="plain")([layers.Rescaling(0.0)(unused), unused])
    return Model([x, unused], [layers.Permute((2, 1), name="behind")(classes), plain])


def _indices():
    x = Input((5,), dtype="int32", name="words")
    h = layers.GlobalAveragePooling1D()(layers.Embedding(7, 4, name="table")(x))
    return Model(x, Dense(3, activation="softmax", name="head")(h))


def _volume():
    """MaxPooling3D, which TensorFlow does not have in float64."""
    x = Input((3, 3, 3, 2), name="x")
    h = layers.Conv3D(3, 2, activation="relu", name="conv")(x)
    h = layers.Flatten()(layers.MaxPooling3D(1)(h))
    return Model(x, Dense(3, name="head")(h))


def _strides():
    x = Input((9, 7, 2), name="x")
    h = layers.DepthwiseConv2D(3, strides=2, padding="same", activation="elu")(x)
    h = layers.AveragePooling2D(2, padding="same")(layers.SeparableConv2D(4, 3, padding="same")(h))
    return Model(x, Dense(3)(layers.Flatten()(h)))


def _tokens():
    x = Input((5, 4), name="x")
    h = layers.LayerNormalization()(x)
    h = layers.Add()([x, layers.MultiHeadAttention(2, 3)(h, h)])
    return Model(x, Dense(3)(layers.GlobalAveragePooling1D()(Dense(6, activation="silu")(h))))


KINDS = {
    "axes": _axes,
    "image": _image,
    "indices": _indices,
    "strides": _strides,
    "tokens": _tokens,
    "volume": _volume,
}


def build(params, arrays):
    """Saves one of KINDS with random weights."""
    model = KINDS[params["kind"]]()
    random = np.random.default_rng(0)
    model.set_weights(
        [
            random.uniform(0.5, 1.5, w.shape).astype(np.float32)
            if "variance" in w.name or "gamma" in w.name
            else random.normal(0.0, 0.5, w.shape).astype(np.float32)
            for w in model.weights
        ]
    )
    model.save(params["path"])
    return {}, {}


def build_chain(params, arrays):
    """Saves dense layers of one activation; their weights are Keras' usual ones times a factor."""
    x = h = Input((4,), name="x")
    for i in range(params["layers"]):
        h = Dense(4, activation=params["activation"], name=f"dense_{i}")(h)
    model = Model(x, h)
    random = np.random.default_rng(params["seed"])
    limit = params["factor"] * np.sqrt(6 / (4 + 4))
    kernels = [random.uniform(-limit, limit, (4, 4)) for _ in model.layers[1:]]
    model.set_weights([array for kernel in kernels for array in (kernel, np.zeros(4))])
    model.save(params["path"])
    return {}, {}


def weights(params, arrays):
    """Returns the weights of the model that was exported last."""
    source = export_worker.HANDLERS["evaluate"].__self__._source
    return {}, {str(i): np.asarray(w) for i, w in enumerate(source.model.get_weights())}


HANDLERS = {
    **export_worker.HANDLERS,
    "build": build,
    "build_chain": build_chain,
    "weights": weights,
}
