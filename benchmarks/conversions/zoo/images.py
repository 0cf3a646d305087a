"""Models of images, signals and volumes: convolutions, pooling, resizing, normalization."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

layers = tf.keras.layers
Model, Sequential, Input = tf.keras.Model, tf.keras.Sequential, layers.Input


def _line(shape: tuple[int, ...], *parts: Any) -> Any:
    return Sequential([Input(shape, name="x"), *parts])


def _classifier(x: Any, features: Any) -> Any:
    """A model whose last layers make class probabilities of a feature map."""
    return Model(x, layers.Dense(4, activation="softmax")(layers.Flatten()(features)))


def cnn() -> Any:
    return _line(
        (16, 16, 3),
        layers.Conv2D(8, 3, padding="same"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.MaxPooling2D(),
        layers.Dropout(0.25),
        layers.Conv2D(12, 3, activation="relu"),
        layers.BatchNormalization(),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(24, activation="relu"),
        layers.Dropout(0.5),
        layers.Dense(7, activation="softmax"),
    )


def residual() -> Any:
    image = Input((12, 12, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    for stride in (1, 2):
        y = layers.Conv2D(8, 3, strides=stride, padding="same", use_bias=False)(x)
        y = layers.Activation("relu")(layers.BatchNormalization()(y))
        y = layers.Conv2D(8, 3, padding="same", use_bias=False)(y)
        y = layers.BatchNormalization()(y)
        z = x if stride == 1 else layers.Conv2D(8, 1, strides=stride, padding="same")(x)
        x = layers.Activation("relu")(layers.Add()([y, z]))
    return Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))


def separable() -> Any:
    return _line(
        (14, 14, 3),
        layers.SeparableConv2D(8, 3, padding="same", activation="relu"),
        layers.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.SeparableConv2D(8, 3, depth_multiplier=2),
        layers.AveragePooling2D(2, padding="same"),
        layers.Flatten(),
        layers.Dense(4, activation="softmax"),
    )


def separable_1d() -> Any:
    return _line(
        (20, 3),
        layers.SeparableConv1D(8, 3, padding="same", activation="relu"),
        layers.Conv1D(6, 5, strides=2, padding="same"),
        layers.MaxPooling1D(2),
        layers.Conv1D(6, 3, padding="causal", dilation_rate=2),
        layers.GlobalMaxPooling1D(),
        layers.Dense(4, activation="softmax"),
    )


def grouped() -> Any:
    return _line(
        (10, 10, 4),
        layers.Conv2D(8, 3, groups=4, padding="same", activation="relu"),
        layers.Conv2D(6, 3, strides=2, groups=2),
        layers.GlobalAveragePooling2D(),
        layers.Dense(4, activation="softmax"),
    )


def transposed() -> Any:
    return _line(
        (8, 8, 3),
        layers.Conv2D(6, 3, strides=2, padding="same", activation="relu"),
        layers.Conv2DTranspose(6, 3, strides=2, padding="same"),
        layers.Conv2DTranspose(4, 3, strides=2, padding="valid"),
        layers.Conv2DTranspose(4, 4, strides=2, padding="same"),
        layers.Conv2D(2, 3, padding="same"),
    )


def transposed_1d() -> Any:
    return _line(
        (9, 3),
        layers.Conv1DTranspose(5, 3, strides=2, padding="same", activation="relu"),
        layers.Conv1DTranspose(4, 4, strides=3),
        layers.GlobalAveragePooling1D(),
    )


def transposed_3d() -> Any:
    return _line(
        (4, 4, 4, 2),
        layers.Conv3DTranspose(3, 3, strides=2, padding="same", activation="relu"),
        layers.Conv3D(2, 2),
        layers.GlobalAveragePooling3D(),
    )


def conv_3d() -> Any:
    return _line(
        (8, 8, 8, 2),
        layers.Conv3D(4, 3, padding="same", activation="relu"),
        layers.BatchNormalization(),
        layers.MaxPooling3D(),
        layers.Conv3D(3, 3),
        layers.GlobalAveragePooling3D(),
        layers.Dense(3, activation="softmax"),
    )


def shapes_1d() -> Any:
    return _line(
        (12, 3),
        layers.ZeroPadding1D((1, 2)),
        layers.AveragePooling1D(3, strides=2, padding="same"),
        layers.UpSampling1D(2),
        layers.Cropping1D((1, 0)),
        layers.DepthwiseConv1D(3, padding="same"),
        layers.GlobalAveragePooling1D(),
        layers.Dense(4),
    )


def shapes_3d() -> Any:
    return _line(
        (6, 6, 6, 2),
        layers.ZeroPadding3D(1),
        layers.AveragePooling3D(2),
        layers.UpSampling3D(2),
        layers.Cropping3D(((1, 0), (0, 1), (1, 1))),
        layers.Conv3D(2, 2),
        layers.GlobalMaxPooling3D(),
        layers.Dense(3),
    )


def upsampling_nearest() -> Any:
    return _upsampling("nearest")


def upsampling_bilinear() -> Any:
    return _upsampling("bilinear")


def _upsampling(interpolation: str) -> Any:
    return _line(
        (8, 8, 3),
        layers.Conv2D(6, 3, padding="same", activation="relu"),
        layers.UpSampling2D(2, interpolation=interpolation),
        layers.Conv2D(2, 3, padding="same"),
    )


def resizing() -> Any:
    return _line(
        (10, 10, 3),
        layers.Resizing(16, 16),
        layers.Conv2D(4, 3, padding="same"),
        layers.Cropping2D(1),
        layers.ZeroPadding2D(((0, 1), (0, 1))),
        layers.GlobalAveragePooling2D(),
    )


def global_pooling() -> Any:
    x = Input((12, 12, 3), name="x")
    h = layers.Conv2D(8, 3, activation="relu")(x)
    flat = layers.Flatten()(layers.GlobalAveragePooling2D(keepdims=True)(h))
    pooled = [layers.GlobalAveragePooling2D()(h), layers.GlobalMaxPooling2D()(h), flat]
    return _classifier(x, layers.Concatenate()(pooled))


def same_strides() -> Any:
    x = Input((15, 16, 3), name="x")
    h = layers.Conv2D(6, 3, strides=2, padding="same")(x)
    h = layers.MaxPooling2D(3, strides=2, padding="same")(h)
    h = layers.Conv2D(6, 4, strides=2, padding="same")(h)
    return _classifier(x, layers.AveragePooling2D(2, padding="same")(h))


def preprocessing() -> Any:
    normalization = layers.Normalization(axis=-1)
    pixels = np.random.RandomState(0).rand(50, 8, 8, 3) * 255
    normalization.adapt(pixels.astype("float32"))
    x = Input((8, 8, 3), name="pixels")
    parts = [normalization(x), layers.Rescaling(1 / 127.5, offset=-1)(x)]
    return _classifier(x, layers.Conv2D(4, 3)(layers.Concatenate()(parts)))


def normalizations() -> Any:
    x = Input((8, 8, 4), name="x")
    h = layers.Conv2D(4, 3)(layers.LayerNormalization()(x))
    h = layers.LayerNormalization(axis=[1, 2, 3])(h)
    h = layers.UnitNormalization()(layers.GroupNormalization(2)(h))
    return _classifier(x, h)


def time_distributed() -> Any:
    return _line(
        (4, 8, 8, 2),
        layers.TimeDistributed(layers.Conv2D(3, 3, activation="relu")),
        layers.TimeDistributed(layers.Flatten()),
        layers.Dense(5, activation="relu"),
        layers.Reshape((10, 2)),
        layers.Permute((2, 1)),
        layers.Flatten(),
        layers.Dense(3, activation="softmax"),
    )


MODELS = {
    build.__name__: build
    for build in (
        cnn,
        residual,
        separable,
        separable_1d,
        grouped,
        transposed,
        transposed_1d,
        transposed_3d,
        conv_3d,
        shapes_1d,
        shapes_3d,
        upsampling_nearest,
        upsampling_bilinear,
        resizing,
        global_pooling,
        same_strides,
        preprocessing,
        normalizations,
        time_distributed,
    )
}
