"""Models of sequences: recurrent layers, embeddings, attention."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

layers = tf.keras.layers
Model, Sequential, Input = tf.keras.Model, tf.keras.Sequential, layers.Input


def _line(*parts: Any) -> Any:
    """A classifier of sequences of 9 steps of 4 features."""
    return Sequential([Input((9, 4), name="x"), *parts, layers.Dense(3, activation="softmax")])


def _words(*parts: Any, mask: bool = False) -> Any:
    """A classifier of 9 words out of 20."""
    embedding = layers.Embedding(20, 6, mask_zero=mask)
    head = layers.Dense(3, activation="softmax")
    return Sequential([Input((9,), dtype="int32", name="words"), embedding, *parts, head])


def embedding() -> Any:
    return _words(layers.GlobalAveragePooling1D())


def embedding_lstm() -> Any:
    return _words(layers.LSTM(7))


def embedding_lstm_mask() -> Any:
    return _words(layers.LSTM(7), mask=True)


def lstm() -> Any:
    return _line(layers.LSTM(7, return_sequences=True), layers.LSTM(5))


def lstm_masked() -> Any:
    return _line(layers.Masking(), layers.LSTM(7))


def lstm_unrolled() -> Any:
    return _line(layers.LSTM(7, unroll=True))


def lstm_states() -> Any:
    x = Input((9, 4), name="x")
    states = layers.LSTM(5, return_state=True)(x)[1:]
    h = layers.LSTM(5, go_backwards=True)(x, initial_state=states)
    return Model(x, layers.Dense(3)(h))


def gru() -> Any:
    return _line(layers.GRU(7, return_sequences=True), layers.GRU(5, reset_after=False))


def gru_unrolled() -> Any:
    return _line(layers.GRU(5, unroll=True))


def bidirectional() -> Any:
    first = layers.Bidirectional(layers.LSTM(7, return_sequences=True))
    return _line(first, layers.Bidirectional(layers.GRU(5)))


def simple_rnn() -> Any:
    return _line(layers.SimpleRNN(7))


def simple_rnn_unrolled() -> Any:
    return _line(layers.SimpleRNN(7, unroll=True))


def stateful() -> Any:
    sizes = {"batch_size": 2}
    x = Input((9, 4), name="x", **sizes)
    return Model(x, layers.Dense(3)(layers.LSTM(5, stateful=True)(x)))


def conv_lstm() -> Any:
    x = Input((3, 6, 6, 2), name="x")
    h = layers.ConvLSTM2D(3, 3, padding="same")(x)
    return Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(h)))


def transformer() -> Any:
    x = Input((10, 8), name="x")
    h = layers.Add()([x, layers.MultiHeadAttention(2, 4)(x, x)])
    h = layers.LayerNormalization(epsilon=1e-6)(h)
    f = layers.Dense(8)(layers.Dense(16, activation="gelu")(h))
    h = layers.LayerNormalization()(layers.Add()([h, layers.Dropout(0.1)(f)]))
    return Model(x, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling1D()(h)))


def attention() -> Any:
    x = Input((6, 4), name="x")
    query, value = layers.Dense(4)(x), layers.Dense(4)(x)
    parts = [layers.Attention(use_scale=True)([query, value])]
    parts.append(layers.AdditiveAttention()([query, value]))
    parts.append(layers.MultiHeadAttention(2, 3)(query, value, use_causal_mask=True))
    return Model(x, layers.Dense(3)(layers.Flatten()(layers.Concatenate()(parts))))


def attention_keras3() -> Any:
    x = Input((6, 8), name="x")
    h = layers.GroupQueryAttention(4, 4, 2)(x, x)
    h = layers.RMSNormalization()(h)
    return Model(x, layers.Dense(3)(layers.Flatten()(h)))


def einsum_dense() -> Any:
    return _line(
        layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 3), bias_axes="de"),
        layers.Reshape((9, 6)),
        layers.EinsumDense("...x,xy->...y", output_shape=5, activation="relu"),
        layers.Flatten(),
    )


MODELS = {
    build.__name__: build
    for build in (
        embedding,
        embedding_lstm,
        embedding_lstm_mask,
        lstm,
        lstm_masked,
        lstm_unrolled,
        lstm_states,
        gru,
        gru_unrolled,
        bidirectional,
        simple_rnn,
        simple_rnn_unrolled,
        stateful,
        conv_lstm,
        transformer,
        attention,
        attention_keras3,
        einsum_dense,
    )
}
