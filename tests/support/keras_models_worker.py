"""Builds Keras models that show what an export must know of Keras, and exports them.

Runs with Keras 2.15 and Keras 3. Handlers:

    export_model(kind, precision) -> as ``export``, of a model that is in memory.
    save(kind, path, export) -> the model is saved at path, as a SavedModel if ``export`` says so.
    losses(kind) -> values loss, the sum of the model's losses of weights.
    moved(kind) -> values moved, the names of the weights that a call in training mode changes.
    weights(kind) -> arrays weight/<number>, what ``get_weights`` returns.
    and the handlers of torchfgsm/converters/export_worker.py
"""

from __future__ import annotations

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "converters"))

import export_worker
import numpy as np
import tensorflow as tf

layers, regularizers = tf.keras.layers, tf.keras.regularizers
Input, Model, Dense = layers.Input, tf.keras.Model, layers.Dense


class Doubled(layers.Layer):
    """A layer of the user's that acts as usual in training."""

    def call(self, inputs):
        return 2.0 * inputs


class Branching(layers.Layer):
    """A layer of the user's that acts in training."""

    def call(self, inputs, training=None):
        return 2.0 * inputs if training else inputs


class Odd(layers.Layer):
    """A layer of the user's without a counterpart in ONNX."""

    def call(self, inputs):
        return tf.math.digamma(inputs)


class Costly(layers.Layer):
    """A layer of the user's that adds a loss."""

    def call(self, inputs):
        self.add_loss(tf.reduce_sum(inputs))
        return inputs


@tf.keras.utils.register_keras_serializable("tests")
class Subclassed(Model):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.conv = layers.Conv2D(3, 3, activation="relu")
        self.norm = layers.BatchNormalization()
        self.flatten = layers.Flatten()
        self.head = Dense(2)

    def call(self, inputs, training=None):
        return self.head(self.flatten(self.norm(self.conv(inputs), training=training)))


class LayerScale(layers.Layer):
    """As ConvNeXt has it."""

    def build(self, input_shape):
        self.gamma = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="gamma")

    def call(self, inputs):
        return inputs * self.gamma


class StochasticDepth(layers.Layer):
    """As ConvNeXt has it."""

    def call(self, inputs, training=None):
        if not training:
            return inputs
        shape = (tf.shape(inputs)[0], 1, 1, 1)
        return inputs * tf.floor(0.8 + tf.random.uniform(shape))


class Roughness(regularizers.Regularizer):
    def __call__(self, weight):
        return tf.reduce_sum(tf.abs(weight[1:] - weight[:-1]))


def _noise():
    x = h = Input((4, 5, 2), name="image")
    for layer in (
        layers.Dropout(0.1, name="dropout"),
        layers.Dropout(0.2, noise_shape=(None, 1, 1, 1), name="by_example"),
        layers.SpatialDropout2D(0.3, name="by_channel"),
        layers.GaussianNoise(0.4, name="noise"),
        layers.GaussianDropout(0.5, name="factors"),
        layers.AlphaDropout(0.6, name="alpha"),
        layers.Dropout(0.0, name="nothing"),
    ):
        # Convolutions on both sides, between which tf2onnx moves transposes.
        h = layer(layers.Conv2D(2, 3, padding="same")(h))
    h = layers.SpatialDropout1D(0.7, name="in_time")(layers.Reshape((20, 2))(h))
    h = layers.SpatialDropout3D(0.8, name="in_space")(layers.Reshape((2, 5, 2, 2))(h))
    return Model(x, Dense(2)(layers.Flatten()(h)))


def _acting():
    x = Input((4, 4, 3), name="image")
    h = layers.BatchNormalization(name="norm")(layers.RandomFlip(name="flip")(x))
    h = layers.Dropout(0.2, name="dropout")(layers.Conv2D(3, 3, name="conv")(h))
    h = layers.Dropout(0.2, noise_shape=(1, 2, 2, 3), name="fixed_batch")(h)
    h = layers.BatchNormalization(renorm=True, name="renorm")(h)
    h = layers.LSTM(2, name="lstm", return_sequences=True)(layers.Reshape((4, 3))(h))
    h = layers.GRU(2, name="dropping", recurrent_dropout=0.3, return_sequences=True)(h)
    h = Branching(name="branching")(Doubled(name="doubled")(h))
    return Model(x, Dense(2, name="dense")(layers.Flatten()(h)))


def _spectral():
    x = Input((4,), name="x")
    inner = Dense(3, name="inner")
    return Model(x, Dense(2)(layers.SpectralNormalization(inner, name="spectral")(x)))


def _pinned():
    x = Input((4, 4, 3), name="image")
    norm = layers.BatchNormalization(name="norm")
    base = tf.keras.Sequential([Input((4, 4, 3)), norm, layers.Dropout(0.5)], name="base")
    h = layers.BatchNormalization(name="alive")(base(x, training=False))
    return Model(x, Dense(2)(layers.Flatten()(h)))


def _always():
    x = Input((4,), name="x")
    return Model(x, layers.Dropout(0.5, name="always")(x, training=True))


def _penalties():
    x = Input((5, 4), name="x")
    shared = Dense(4, kernel_regularizer=regularizers.L1(0.1), name="shared")
    lstm = layers.LSTM(3, recurrent_regularizer=regularizers.L1L2(0.2, 0.3), name="lstm")
    frozen = Dense(3, kernel_regularizer=regularizers.L2(0.4), name="frozen", trainable=False)
    norm = layers.BatchNormalization(gamma_regularizer=regularizers.L2(0.5), name="norm")
    bias = Dense(2, bias_regularizer=regularizers.L2(0.6), name="bias")
    bias.bias_initializer = tf.keras.initializers.get("ones")
    return Model(x, bias(norm(frozen(lstm(shared(shared(x)))))))


def _lost():
    x = Input((4,), name="x")
    h = Dense(3, kernel_regularizer=Roughness(), name="rough")(x)
    h = Dense(3, kernel_constraint=tf.keras.constraints.NonNeg(), name="bounded")(h)
    return Model(x, Costly(name="costly")(Dense(3, activity_regularizer="l2", name="active")(h)))


def _blocks():
    """Pieces of ConvNeXt and EfficientNet."""
    x = Input((6, 6, 4), name="image")
    normalization = layers.Normalization(name="normalization")
    normalization.adapt(np.random.default_rng(0).normal(3.0, 2.0, (50, 6, 6, 4)))
    h = normalization(layers.Rescaling(0.5)(x))
    skip = h
    h = layers.Conv2D(4, 3, groups=2, padding="same", name="grouped")(h)
    h = layers.Dense(8, activation="gelu")(layers.LayerNormalization(epsilon=1e-6)(h))
    h = LayerScale(name="scale")(Dense(4)(h))
    h = tf.keras.activations.relu(h + 3.0, max_value=6.0) / 6.0  # layers of one operation
    h = layers.Add()([skip, layers.Dropout(0.2, noise_shape=(None, 1, 1, 1), name="drop")(h)])
    s = layers.Reshape((1, 1, 4))(layers.GlobalAveragePooling2D()(h))
    s = layers.Conv2D(4, 1, activation="sigmoid")(layers.Conv2D(2, 1, activation="swish")(s))
    return Model(x, Dense(3, activation="softmax")(layers.Flatten()(layers.Multiply()([h, s]))))


def _stochastic():
    x = Input((4, 4, 2), name="image")
    return Model(x, StochasticDepth(name="depth")(layers.Conv2D(2, 3)(x)))


def _cnn():
    x = Input((6, 6, 2), name="image")
    h = layers.BatchNormalization()(layers.Conv2D(3, 3, activation="gelu", padding="same")(x))
    h = layers.Flatten()(layers.MaxPooling2D()(layers.Rescaling(1 / 3)(h)))
    h = layers.BatchNormalization(axis=1)(Dense(4)(layers.Dropout(0.5)(h)))
    return Model(x, Dense(3, activation="softmax")(h))


def _volume():
    x = Input((4, 4, 4, 1), name="volume")
    return Model(x, layers.GlobalAveragePooling3D()(layers.MaxPooling3D(name="pool")(x)))


def _half():
    policy = "mixed_float16"
    parts = [Dense(4, dtype=policy, name="half"), Dense(2, dtype="float32", name="full")]
    return tf.keras.Sequential([Input((3,), name="x"), *parts])


def _subclassed():
    model = Subclassed()
    model(np.zeros((1, 5, 5, 1), np.float32))
    return model


def _counted():
    """Has weights on which no output depends, and one tensor as two outputs."""
    x = Input((3,), name="x")
    normalization = layers.Normalization(name="normalization")
    normalization.adapt(np.arange(12.0).reshape(4, 3))
    y = Dense(2, name="dense")(normalization(x))
    return Model(x, [y, y])


def _indices():
    x = Input((3,), dtype="int32", name="indices")
    return Model(x, Dense(2)(layers.GlobalAveragePooling1D()(layers.Embedding(7, 4)(x))))


KINDS = {
    "acting": _acting,
    "always": _always,
    "blocks": _blocks,
    "cnn": _cnn,
    "counted": _counted,
    "custom": lambda: tf.keras.Sequential([Input((3,), name="x"), Doubled(), Dense(2)]),
    "half": _half,
    "indices": _indices,
    "lambda": lambda: tf.keras.Sequential(
        [Input((3,), name="x"), layers.Lambda(lambda x: 2 * x, name="twice"), Dense(2)]
    ),
    "lost": _lost,
    "noise": _noise,
    "odd": lambda: tf.keras.Sequential([Input((3,), name="x"), Odd(name="odd"), Dense(2)]),
    "penalties": _penalties,
    "pinned": _pinned,
    "spectral": _spectral,
    "stochastic": _stochastic,
    "subclassed": _subclassed,
    "volume": _volume,
}


def _built(kind):
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(1)
    model = KINDS[kind]()
    for weight in model.weights:
        if any(part in weight.name for part in ("gamma", "beta", "bias", "moving")):
            weight.assign(np.random.uniform(0.5, 1.5, weight.shape))
    return model


def _calls(model):
    """Returns what each layer has as a call of its own."""
    found = sys.modules["tensorflow_side.keras_model"].sublayers(model).values()
    return {layer.name: vars(layer).get("call") for layer in found}


def export_model(params, arrays):
    """Exports a model that is in memory."""
    model = _built(params["kind"])
    before = _calls(model)
    source = sys.modules["tensorflow_side.keras_source"].KerasSource(model)
    session = export_worker.HANDLERS["export"].__self__
    values, arrays = session.export_source(source, params.get("precision", "float32"))
    after = _calls(model)
    left = [name for name, call in before.items() if after[name] is not call]
    return {**values, "patched": left}, arrays


def save(params, arrays):
    """Saves a model."""
    model = _built(params["kind"])
    if params.get("export") and hasattr(model, "export"):
        model.export(params["path"])
    else:
        model.save(params["path"])
    return {}, {}


def losses(params, arrays):
    """Returns what Keras adds to the loss for the weights."""
    return {"loss": float(sum(_built(params["kind"]).losses))}, {}


def moved(params, arrays):
    """Returns the weights that change in a call in training mode."""
    model = _built(params["kind"])
    before = model.get_weights()
    model(np.random.default_rng(0).normal(size=(4, *model.input_shape[1:])), training=True)
    names = [getattr(weight, "path", weight.name) for weight in model.weights]
    rows = zip(names, before, model.get_weights(), strict=True)
    return {"moved": [name for name, old, new in rows if not np.array_equal(old, new)]}, {}


def weights(params, arrays):
    """Returns the weights in Keras' order."""
    found = _built(params["kind"]).get_weights()
    return {}, {f"weight/{i}": np.asarray(array) for i, array in enumerate(found)}


HANDLERS = {
    **export_worker.HANDLERS,
    "export_model": export_model,
    "losses": losses,
    "moved": moved,
    "save": save,
    "weights": weights,
}
