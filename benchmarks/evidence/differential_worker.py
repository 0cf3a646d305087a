"""The originals of one TensorFlow in one process, and the saving of drawn models.

Handlers; those of CleverHans 3 make TensorFlow 1 of it, so that no other can follow:

    <library>.<method>(...) -> as the worker of that library (originals/workers).
    build(path, hidden, inputs, layers, softmax; weights by Keras' names) -> the model is saved, and
        once more with a softmax and a reshape behind it, which hides the logits from Keras.
"""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

Values = dict[str, Any]
Arrays = dict[str, Any]

_MODULES = {"nsl": "nsl", "cleverhans-tf2": "cleverhans_tf2", "cleverhans3": "cleverhans3"}
_METHODS = ("versions", "load", "perturb", "train", "function", "oracle", "training_truth")


def _call(library: str, method: str, params: Values, arrays: Arrays) -> tuple[Values, Arrays]:
    found: tuple[Values, Arrays]
    found = importlib.import_module(_MODULES[library]).HANDLERS[method](params, arrays)
    return found


def build(params: Values, arrays: Arrays) -> tuple[Values, Arrays]:
    """Saves a drawn model, with its logits and with probabilities that hide them."""
    import tensorflow as tf  # here, where it is version 2

    layers = tf.keras.layers
    inputs = [layers.Input(shape, name=name) for name, shape in params["inputs"].items()]
    flow = layers.Concatenate(name="joined")(inputs) if len(inputs) > 1 else inputs[0]
    for layer in params["layers"]:
        options = {key: value for key, value in layer.items() if key not in ("kind", "units")}
        if layer["kind"] == "flatten":
            flow = layers.Flatten(**options)(flow)
        elif layer["kind"] == "conv":
            flow = layers.Conv2D(layer["units"], 3, **options)(flow)
        else:
            flow = layers.Dense(layer["units"], **options)(flow)
    probabilities = layers.Softmax(name="softmax")(flow)
    model = tf.keras.Model(inputs, probabilities if params["softmax"] else flow)
    hidden = tf.keras.Model(inputs, layers.Reshape((layer["units"],))(probabilities))
    for name in {key.split("/")[0] for key in arrays}:
        weights = [arrays[f"{name}/kernel"], arrays[f"{name}/bias"]]
        model.get_layer(name).set_weights(weights)
    model.save(params["path"])
    hidden.save(params["hidden"])
    return {}, {}


HANDLERS = {
    "build": build,
    **{
        f"{library}.{method}": partial(_call, library, method)
        for library in _MODULES
        for method in _METHODS
    },
}
