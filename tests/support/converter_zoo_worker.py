"""Builds and trains the models of the converter's tests, and serves the export worker's handlers.

One process can so build, convert and judge. Runs with Keras 2.15 and Keras 3. Handlers:

    build(kind, path, seed) -> the model, with random weights, is saved at path.
    descend(path, rate; input/<name>, y) -> arrays "weight/<name>", "gradient/<name>":
        gradients of the mean cross-entropy in training mode and weights after one SGD step.
    and look, export, evaluate of torchfgsm/converters/export_worker.py
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


def _sequential(*parts):
    return tf.keras.Sequential([Input(parts[0], name="image"), *parts[1:]])


def _batch_norms():
    return _sequential(
        (8, 8, 3),
        layers.Conv2D(6, 3, padding="same", name="conv1"),
        layers.BatchNormalization(name="norm1"),
        layers.ReLU(name="relu1"),
        layers.Conv2D(6, 3, strides=2, padding="same", use_bias=False, name="conv2"),
        layers.BatchNormalization(name="norm2", momentum=0.9, epsilon=1e-5, scale=False),
        layers.Activation("elu", name="elu"),
        layers.DepthwiseConv2D(3, padding="same", name="depthwise"),
        layers.BatchNormalization(name="norm3", center=False),
        layers.Dropout(0.0, name="no_dropout"),
        layers.Flatten(name="flatten"),
        Dense(8, name="dense"),
        layers.BatchNormalization(name="norm4"),
        layers.Activation("tanh", name="tanh"),
        Dense(4, activation="softmax", name="head"),
    )


def _pools():
    x = Input((7, 9, 2), name="image")
    h = layers.Conv2D(4, 3, padding="same", name="conv")(x)
    pools = [
        layers.MaxPooling2D(2),
        layers.MaxPooling2D(3, strides=2, padding="same"),
        layers.AveragePooling2D(2),
        layers.AveragePooling2D(3, strides=2, padding="same"),
    ]
    parts = [layers.GlobalAveragePooling2D()(pool(h)) for pool in pools]
    parts += [layers.GlobalMaxPooling2D()(h), layers.Flatten()(layers.MaxPooling2D(4)(h))]
    return Model(x, Dense(3, activation="softmax")(layers.Concatenate()(parts)))


def _activations():
    x = Input((6,), name="x")
    names = ("relu", "elu", "tanh", "sigmoid", "softmax", "softplus", "swish", "selu")
    parts = [layers.Activation(name)(Dense(4)(x)) for name in names]
    parts += [part(Dense(4)(x)) for part in (layers.LeakyReLU(), layers.PReLU(), layers.ReLU(6.0))]
    joined = layers.Concatenate()(parts)
    return Model(x, Dense(3)(layers.Reshape((-1,))(layers.Reshape((11, 4))(joined))))


def _two_inputs():
    zeta, alpha = Input((4,), name="zeta"), Input((4,), name="alpha")
    # Of the same size, so that a swap is no error of shape.
    hidden = layers.Subtract()([Dense(4, activation="tanh", name="first")(zeta), alpha])
    return Model([zeta, alpha], Dense(3, activation="softmax", name="head")(hidden))


def _dict_ports():
    zeta, alpha = Input((4,), name="zeta"), Input((4,), name="alpha")
    hidden = layers.Subtract()([Dense(4, activation="tanh")(zeta), alpha])
    outputs = {"second": Dense(3, name="second")(hidden), "first": Dense(3, name="first")(hidden)}
    return Model({"zeta": zeta, "alpha": alpha}, outputs)


def _two_outputs():
    x = Input((5,), name="x")
    logits = Dense(3, name="scores")(x)
    return Model(x, [layers.Softmax(name="zz_class")(logits), logits])


def _shared():
    x = Input((6, 6, 2), name="image")
    conv = layers.Conv2D(2, 3, padding="same", activation="relu", name="shared_conv")
    h = layers.Add()([conv(conv(x)), x])
    dense = Dense(4, name="shared_dense")
    h = layers.Concatenate()([dense(layers.GlobalAveragePooling2D()(part)) for part in (h, x)])
    return Model(x, Dense(3, activation="softmax", name="head")(h))


def _frozen():
    model = _batch_norms()
    for name in ("conv1", "norm1", "norm4"):
        model.get_layer(name).trainable = False
    return model


def _equal_biases():
    parts = [Dense(4, activation="tanh", name=f"d{i}") for i in range(3)]
    return _sequential((4,), *parts, Dense(4, activation="softmax", name="head"))


def _nested():
    inner = _sequential(
        (4,), Dense(4, activation="relu", name="dense"), layers.BatchNormalization()
    )
    x = Input((4,), name="x")
    return Model(x, Dense(1, activation="sigmoid", name="head")(inner(Dense(4, name="dense")(x))))


def _preprocessing():
    normalization = layers.Normalization(mean=[0.3, 0.5, 0.1], variance=[0.2, 0.1, 0.4])
    return _sequential(
        (5, 5, 3),
        layers.Rescaling(2.0, offset=-1.0),
        normalization,
        layers.SeparableConv2D(4, 3, activation="relu"),
        layers.ZeroPadding2D(((1, 0), (0, 1))),
        layers.Flatten(),
        Dense(3, activation="softmax"),
    )


def _hidden_softmax():
    x = Input((4,), name="x")
    return Model(x, layers.Reshape((3, 1), name="behind")(Dense(3, activation="softmax")(x)))


def _kinks():
    """Every activation directly on the input, so that data can sit on its kinks."""
    x = Input((1,), name="x")
    names = ("relu", "elu", "selu", "hard_sigmoid", "softplus", "relu6")
    parts = [layers.Activation(tf.nn.relu6 if n == "relu6" else n)(x) for n in names]
    parts += [layers.LeakyReLU()(x), layers.PReLU()(x), layers.ReLU(max_value=1.0)(x)]
    one_less = layers.Rescaling(-1.0, offset=1.0)(x)
    parts += [layers.Maximum()([x, one_less]), layers.Minimum()([x, one_less])]
    return Model(x, Dense(3, name="head")(layers.Concatenate()(parts)))


KINDS = {
    "kinks": _kinks,
    "batch_norms": _batch_norms,
    "pools": _pools,
    "activations": _activations,
    "two_inputs": _two_inputs,
    "dict_ports": _dict_ports,
    "two_outputs": _two_outputs,
    "shared": _shared,
    "frozen": _frozen,
    "equal_biases": _equal_biases,
    "nested": _nested,
    "preprocessing": _preprocessing,
    "hidden_softmax": _hidden_softmax,
    "dropout": lambda: _sequential((6,), Dense(50, name="d"), layers.Dropout(0.4), Dense(3)),
    "noise": lambda: _sequential((6,), layers.GaussianNoise(0.1, name="noise"), Dense(3)),
    "recurrent": lambda: _sequential((6, 2), layers.SimpleRNN(3, name="loop"), Dense(3)),
    "lambda": lambda: _sequential((6,), layers.Lambda(lambda x: 2 * x, name="twice"), Dense(3)),
}


def _randomise(model, seed):
    random = np.random.default_rng(seed)
    values = []
    for weight in model.weights:
        shape = tuple(weight.shape)
        if "variance" in weight.name or "gamma" in weight.name:
            values.append(random.uniform(0.5, 1.5, shape))
        else:
            fan_in = int(np.prod(shape[:-1])) if len(shape) > 1 else 8
            values.append(random.normal(0.0, 1.5 / np.sqrt(fan_in), shape))
    model.set_weights([np.asarray(value, np.float32) for value in values])


def build(params, arrays):
    """Saves one of KINDS; without a seed its weights stay as Keras makes them."""
    tf.keras.utils.set_random_seed(0)  # what Keras makes is the same in each run
    model = KINDS[params["kind"]]()
    if params["seed"] is not None:
        _randomise(model, params["seed"])
    if params.get("export"):
        model.export(params["path"])
    else:
        model.save(params["path"])
    return {"parameters": sum(int(np.prod(w.shape)) for w in model.trainable_weights)}, {}


def descend(params, arrays):
    """Makes one step of gradient descent in training mode."""
    model = tf.keras.models.load_model(params["path"], compile=False)
    x = [tf.constant(value) for name, value in arrays.items() if name.startswith("input/")]
    with tf.GradientTape() as tape:
        probabilities = model(x if len(x) > 1 else x[0], training=True)
        loss = tf.reduce_mean(
            tf.keras.losses.sparse_categorical_crossentropy(arrays["y"], probabilities)
        )
    gradients = tape.gradient(loss, model.trainable_weights)
    names = {id(weight): getattr(weight, "path", weight.name) for weight in model.weights}
    result = {}
    for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
        result[f"gradient/{names[id(weight)]}"] = gradient.numpy()
        weight.assign_sub(params["rate"] * gradient)
    result |= {f"weight/{names[id(weight)]}": np.asarray(weight) for weight in model.weights}
    return {"loss": float(loss)}, result


HANDLERS = {**export_worker.HANDLERS, "build": build, "descend": descend}
