# mypy: ignore-errors
"""Models for tests/test_converters_compile.py. Handlers are those of converter_zoo_worker.py.

Kinds beside its own:
    images     convolution, BatchNormalization, global pooling and Flatten
    attention  a transformer block over tokens of any number
    steps      one LSTM
    recurrent  LSTM, GRU of both kinds, SimpleRNN and bidirectional layers
    embedded   integer tokens, Embedding and LSTM
"""

from __future__ import annotations

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parent))

import converter_zoo_worker as zoo
import tensorflow as tf

layers = tf.keras.layers


def _images():
    x = layers.Input((6, 6, 2), name="image")
    h = layers.Conv2D(4, 3, strides=2, padding="same", name="conv")(x)
    h = layers.ReLU()(layers.BatchNormalization(name="norm")(h))
    ends = [layers.GlobalAveragePooling2D()(h), layers.GlobalMaxPooling2D()(h)]
    ends.append(layers.Flatten()(layers.MaxPooling2D(2, padding="same")(h)))
    return tf.keras.Model(x, layers.Dense(3, activation="softmax")(layers.Concatenate()(ends)))


def _attention():
    x = layers.Input((5, 4), name="tokens")
    # Features that differ: LayerNormalization amplifies the rounding of a constant example.
    start = layers.Dense(4, name="start")(x)
    h = layers.LayerNormalization(name="norm1")(start)
    h = layers.Add()([start, layers.MultiHeadAttention(2, 3, name="attention")(h, h)])
    h = layers.Dense(6, activation="relu", name="wide")(layers.LayerNormalization(name="norm2")(h))
    h = layers.GlobalAveragePooling1D()(h)
    return tf.keras.Model(x, layers.Dense(3, activation="softmax", name="head")(h))


def _steps():
    x = layers.Input((3, 2), name="steps")
    return tf.keras.Model(x, layers.Dense(3, name="head")(layers.LSTM(2, name="lstm")(x)))


def _recurrent():
    x = layers.Input((3, 2), name="steps")
    h = layers.Bidirectional(layers.LSTM(2, return_sequences=True), name="both")(x)
    ends = [
        layers.GRU(2, name="after")(h),
        layers.GRU(2, reset_after=False, name="before")(h),
        layers.SimpleRNN(2, go_backwards=True, name="simple")(h),
    ]
    return tf.keras.Model(x, layers.Dense(3, name="head")(layers.Concatenate()(ends)))


def _embedded():
    x = layers.Input((4,), dtype="int32", name="tokens")
    h = layers.LSTM(2, name="lstm")(layers.Embedding(5, 3, name="table")(x))
    return tf.keras.Model(x, layers.Dense(3, name="head")(h))


zoo.KINDS |= {
    "images": _images,
    "attention": _attention,
    "steps": _steps,
    "recurrent": _recurrent,
    "embedded": _embedded,
}
HANDLERS = zoo.HANDLERS
