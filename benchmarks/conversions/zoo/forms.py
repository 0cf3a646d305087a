"""Models that differ in form: inputs and outputs, sharing, training behaviour, own layers."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

layers = tf.keras.layers
Model, Sequential, Input, Dense = tf.keras.Model, tf.keras.Sequential, layers.Input, layers.Dense
register = tf.keras.utils.register_keras_serializable


def mlp() -> Any:
    parts = [Dense(32, activation="relu"), Dense(16, activation="tanh")]
    return Sequential([Input((20,), name="feature"), *parts, Dense(5, activation="softmax")])


def mlp_logits() -> Any:
    parts = [Dense(32, activation="relu"), layers.BatchNormalization(), layers.Dropout(0.3)]
    return Sequential([Input((20,), name="feature"), *parts, Dense(5)])


def dict_inputs() -> Any:
    ports = {"a": Input((6,), name="a"), "b": Input((8, 8, 1), name="b")}
    flat = layers.Flatten()(layers.Conv2D(3, 3, activation="relu")(ports["b"]))
    h = layers.Concatenate()([Dense(8, activation="relu")(ports["a"]), flat])
    return Model(ports, Dense(3, activation="softmax")(h))


def dict_inputs_unsorted() -> Any:
    ports = {"z": Input((6,), name="z"), "b": Input((5,), name="b")}
    h = layers.Concatenate()([Dense(8, activation="relu")(ports["z"]), ports["b"]])
    return Model(ports, Dense(3, activation="softmax")(h))


def list_inputs() -> Any:
    first, second = Input((6,), name="z1"), Input((5,), name="a2")
    h = layers.Concatenate()([Dense(8, activation="relu")(first), second])
    return Model([first, second], Dense(3, activation="softmax")(h))


def list_outputs() -> Any:
    x = Input((10,), name="x")
    h = Dense(8, activation="relu")(x)
    return Model(x, [Dense(3, activation="softmax", name="zz_class")(h), Dense(2, name="aa")(h)])


def dict_outputs() -> Any:
    x = Input((10,), name="x")
    h = Dense(8, activation="relu")(x)
    heads = {"zz_class": Dense(3, activation="softmax", name="zz_class"), "aa": Dense(2, name="aa")}
    return Model(x, {name: head(h) for name, head in heads.items()})


def merges() -> Any:
    x = Input((6,), name="x")
    a, b = Dense(5)(x), Dense(5)(x)
    kinds = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")
    parts = [getattr(layers, kind)()([a, b]) for kind in kinds]
    parts.append(layers.Dot(axes=1, normalize=True)([a, b]))
    parts.append(layers.Flatten()(layers.RepeatVector(2)(a)))
    return Model(x, Dense(3)(layers.Concatenate()(parts)))


def shared() -> Any:
    x = Input((6, 6, 2), name="x")
    conv, dense = layers.Conv2D(2, 3, padding="same", activation="relu"), Dense(4)
    h = layers.Add()([conv(conv(x)), x])
    parts = [dense(layers.GlobalAveragePooling2D()(part)) for part in (h, x)]
    return Model(x, Dense(3, activation="softmax")(layers.Concatenate()(parts)))


def nested() -> Any:
    inner = Sequential([Input((4,)), Dense(4, activation="relu"), layers.BatchNormalization()])
    x = Input((4,), name="x")
    return Model(x, Dense(1, activation="sigmoid")(inner(inner(Dense(4)(x)))))


def frozen_layers() -> Any:
    parts = [
        layers.Conv2D(4, 3, activation="relu", trainable=False),
        layers.BatchNormalization(trainable=False),
        layers.Conv2D(4, 3),
        layers.BatchNormalization(),
        layers.GlobalAveragePooling2D(),
    ]
    return Sequential([Input((8, 8, 3), name="x"), *parts, Dense(3, trainable=False)])


def noise() -> Any:
    parts = [layers.GaussianNoise(0.2), Dense(8, activation="selu"), layers.AlphaDropout(0.3)]
    parts += [Dense(8, activation="relu"), layers.GaussianDropout(0.3)]
    return Sequential([Input((6,), name="x"), *parts, Dense(3)])


def spatial_dropout() -> Any:
    parts = [
        layers.Conv2D(4, 3, activation="relu"),
        layers.SpatialDropout2D(0.3),
        layers.Reshape((-1, 4)),
        layers.SpatialDropout1D(0.2),
        layers.GlobalAveragePooling1D(),
    ]
    return Sequential([Input((8, 8, 3), name="x"), *parts, Dense(3)])


def regularized() -> Any:
    parts = [
        Dense(8, activation="relu", kernel_regularizer="l2", bias_regularizer="l1"),
        Dense(8, activation="tanh", kernel_regularizer=tf.keras.regularizers.L1L2(1e-3, 1e-2)),
    ]
    return Sequential([Input((6,), name="x"), *parts, Dense(3, activation="softmax")])


def softmax_axis() -> Any:
    x = Input((3, 5), name="x")
    return Model(x, layers.Softmax(axis=1)(Dense(4)(x)))


def softmax_reshaped() -> Any:
    x = Input((5,), name="x")
    return Model(x, layers.Reshape((3, 1))(Dense(3, activation="softmax")(x)))


@register("torchfgsm")
class Scaled(tf.keras.layers.Layer):  # type: ignore[misc]
    """A layer of the user's own: the input times a trained vector."""

    def build(self, input_shape: Any) -> None:
        """Makes the vector."""
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="scale")

    def call(self, inputs: Any) -> Any:
        """The scaled input, squashed."""
        return tf.math.tanh(inputs * self.scale)


def own_layer() -> Any:
    return Sequential([Input((6,), name="x"), Dense(5), Scaled(), Dense(3, activation="softmax")])


@register("torchfgsm")
class Subclassed(tf.keras.Model):  # type: ignore[misc]
    """A model that is a class of its own."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.conv = layers.Conv2D(6, 3, activation="relu")
        self.norm = layers.BatchNormalization()
        self.dropout = layers.Dropout(0.3)
        self.flatten = layers.Flatten()
        self.head = Dense(4)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Logits (N, 4)."""
        h = self.norm(self.conv(inputs), training=training)
        return self.head(self.dropout(self.flatten(h), training=training))


def subclassed() -> Any:
    model = Subclassed()
    model(tf.zeros((1, 8, 8, 1)))
    return model


MODELS = {
    build.__name__: build
    for build in (
        mlp,
        mlp_logits,
        dict_inputs,
        dict_inputs_unsorted,
        list_inputs,
        list_outputs,
        dict_outputs,
        merges,
        shared,
        nested,
        frozen_layers,
        noise,
        spatial_dropout,
        regularized,
        softmax_axis,
        softmax_reshaped,
        own_layer,
        subclassed,
    )
}
