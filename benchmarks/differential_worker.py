"""The originals of one TensorFlow in one process, and the saving of drawn models.

Handlers, by the environment ("tensorflow-2.15" or "cleverhans-3"):

    <library>.<method>(...) -> as the worker of that library (originals/workers).
    build(path, hidden, inputs, layers, softmax; weights by Keras' names) -> the model is saved, and
        once more with a softmax and a reshape behind it, which hides the logits from Keras.
"""

from __future__ import annotations

from typing import Any

Values = dict[str, Any]
Arrays = dict[str, Any]

try:
    import neural_structured_learning  # noqa: F401
except ImportError:
    import cleverhans3  # type: ignore[import-not-found]

    LIBRARIES = {"cleverhans3": cleverhans3}
    tf = cleverhans3.tf
else:
    import cleverhans_tf2  # type: ignore[import-not-found]
    import nsl  # type: ignore[import-not-found]

    LIBRARIES = {"nsl": nsl, "cleverhans-tf2": cleverhans_tf2}
    tf = nsl.tf


def build(params: Values, arrays: Arrays) -> tuple[Values, Arrays]:
    """Saves a drawn model, with its logits and with probabilities that hide them."""
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
        f"{library}.{method}": handler
        for library, module in LIBRARIES.items()
        for method, handler in module.HANDLERS.items()
    },
}
