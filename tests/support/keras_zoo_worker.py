# mypy: ignore-errors
"""Builds small Keras models for tests, inside a TensorFlow environment.

Runs with Keras 2 and Keras 3. Handlers:

    build(kind, path, seed=0) -> values input_names, input_shapes, weights (names);
        the model is saved at path (.keras, .h5, or a SavedModel folder with Keras 2).
        All weights are random, the moving statistics of BatchNormalization too.
    outputs(path; x/<name>...) -> arrays y/<i>: the saved model's predictions.

Kinds (K classes, B batch):
    mlp           x [B, 6] -> Dense(8, tanh) -> Dense(4, softmax)
    logits        x [B, 6] -> Dense(8, relu) -> Dense(4)
    linear        x [B, 6] -> Dense(4)
    cnn           x [B, 8, 8, 2] -> Conv, BatchNorm, pooling, Dropout -> Dense(5, softmax)
    binary        x [B, 6] -> Dense(8, tanh) -> Dense(1, sigmoid)
    two_inputs    left [B, 5], right [B, 4, 4, 1] -> two branches, joined -> Dense(3, softmax)
    softmax_layer x [B, 6] -> Dense(8, tanh) -> Dense(4) -> Softmax()
    steep         x [B, 8, 8, 1] -> Conv -> Dense(10), times a factor: logits far apart
    regularized   x [B, 6] -> Dense(8, tanh, l2 kernel regularizer) -> Dense(4, softmax)
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

layers = tf.keras.layers


def _mlp(activation="tanh", classes=4, head="softmax", **dense):
    x = layers.Input((6,), name="x")
    hidden = layers.Dense(8, activation=activation, name="hidden", **dense)(x)
    return tf.keras.Model(x, layers.Dense(classes, activation=head, name="head")(hidden))


def _linear():
    return tf.keras.Sequential([layers.Input((6,), name="x"), layers.Dense(4, name="head")])


def _cnn():
    return tf.keras.Sequential(
        [
            layers.Input((8, 8, 2), name="x"),
            layers.Conv2D(6, 3, padding="same", name="conv1"),
            layers.BatchNormalization(name="norm1"),
            layers.Activation("relu", name="relu1"),
            layers.MaxPooling2D(name="pool1"),
            layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="conv2"),
            layers.AveragePooling2D(2, name="pool2"),
            layers.Dropout(0.3, name="drop"),
            layers.Flatten(name="flatten"),
            layers.Dense(5, activation="softmax", name="head"),
        ]
    )


def _two_inputs():
    left = layers.Input((5,), name="left")
    right = layers.Input((4, 4, 1), name="right")
    a = layers.Dense(6, activation="tanh", name="left_dense")(left)
    b = layers.Conv2D(3, 3, activation="relu", name="right_conv")(right)
    b = layers.Flatten(name="right_flatten")(b)
    joined = layers.Concatenate(name="join")([a, b])
    return tf.keras.Model([left, right], layers.Dense(3, activation="softmax", name="head")(joined))


def _softmax_layer():
    x = layers.Input((6,), name="x")
    hidden = layers.Dense(8, activation="tanh", name="hidden")(x)
    return tf.keras.Model(x, layers.Softmax(name="softmax")(layers.Dense(4, name="head")(hidden)))


def _steep():
    return tf.keras.Sequential(
        [
            layers.Input((8, 8, 1), name="x"),
            layers.Conv2D(8, 3, padding="same", activation="relu", name="conv"),
            layers.Flatten(name="flatten"),
            layers.Dense(10, name="head"),
            layers.Rescaling(40.0, name="factor"),
        ]
    )


KINDS = {
    "mlp": _mlp,
    "logits": lambda: _mlp("relu", head=None),
    "linear": _linear,
    "cnn": _cnn,
    "binary": lambda: _mlp(classes=1, head="sigmoid"),
    "two_inputs": _two_inputs,
    "softmax_layer": _softmax_layer,
    "steep": _steep,
    "regularized": lambda: _mlp(kernel_regularizer=tf.keras.regularizers.L2(0.01)),
}


def _weight_name(weight):
    return getattr(weight, "path", weight.name)


def _randomise(model, seed):
    random = np.random.default_rng(seed)
    values = []
    for weight in model.weights:
        name, shape = _weight_name(weight), tuple(weight.shape)
        if "variance" in name or "gamma" in name:
            value = random.uniform(0.5, 1.5, shape)
        else:
            fan_in = max(1, int(np.prod(shape[:-1]))) if len(shape) > 1 else 4
            value = random.normal(0.0, 1.5 / np.sqrt(fan_in), shape)
        values.append(value.astype(np.float32))
    model.set_weights(values)


def build(params, arrays):
    """Builds one of KINDS with random weights and saves it."""
    model = KINDS[params["kind"]]()
    _randomise(model, params.get("seed", 0))
    model.save(params["path"])
    return {
        # Keras 3 has no input_names: its tensors carry the names.
        "input_names": [tensor.name.split(":")[0] for tensor in model.inputs],
        "input_shapes": [list(tensor.shape[1:]) for tensor in model.inputs],
        "weights": [_weight_name(weight) for weight in model.weights],
    }, {}


def outputs(params, arrays):
    """Predicts with a saved model; the inputs come in the order of the arrays."""
    model = tf.keras.models.load_model(params["path"], compile=False)
    inputs = [arrays[name] for name in arrays if name.startswith("x/")]
    result = model(inputs if len(inputs) > 1 else inputs[0], training=False)
    results = result if isinstance(result, (list, tuple)) else [result]
    return {}, {f"y/{i}": np.asarray(value) for i, value in enumerate(results)}


HANDLERS = {"build": build, "outputs": outputs}
