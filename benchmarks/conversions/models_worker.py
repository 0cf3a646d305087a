"""Builds and saves the models of ``zoo``, and serves the export worker's handlers.

Runs with Keras 2.15 and Keras 3. Its own handlers:

    models() -> values models (the names that this Keras can build), large (those of them that take
        minutes) and versions.
    build(name, path, route) -> values trainable (number of floats that Keras trains), and for the
        route "frozen" inputs and outputs (tensor names); arrays data/<input>: three examples.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

# Loaded by its path alone; last, so that nothing of TensorFlow's is shadowed.
sys.path.append(str(Path(__file__).resolve().parent))
sys.path.append(str(Path(__file__).resolve().parents[2] / "converters"))

import export_worker  # type: ignore[import-not-found]
from zoo import (  # type: ignore[import-not-found]
    activations,
    applications,
    forms,
    images,
    sequences,
)

Values = dict[str, Any]
Arrays = dict[str, Any]

_FAMILIES = (forms, images, sequences, activations, applications)
_MODELS = {name: make for family in _FAMILIES for name, make in family.MODELS.items()}
_KERAS_2 = not hasattr(tf.keras, "ops")
_PIXELS = ("Normalization", "Rescaling")


def models(params: Values, arrays: Arrays) -> tuple[Values, Arrays]:
    """Returns the names of the models, the order being that of the table, and the versions."""
    versions = {
        "tensorflow": tf.__version__,
        "keras_version": importlib.metadata.version("tf-keras" if _KERAS_2 else "keras"),
        "tf2onnx": importlib.metadata.version("tf2onnx"),
    }
    names = [name for name in _MODELS if not (_KERAS_2 and name.endswith("_keras3"))]
    return {"models": names, "large": list(applications.MODELS), "versions": versions}, {}


def build(params: Values, arrays: Arrays) -> tuple[Values, Arrays]:
    """Saves a model with random weights."""
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(1)
    model = _MODELS[params["name"]]()
    randomise(model)
    named = _save(model, params["path"], params["route"])
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    return {"trainable": trainable, **named}, _data(model)


def randomise(model: Any) -> None:
    """Gives biases and statistics values that do not hide a fault of folding or of order."""
    random = np.random.RandomState(0)
    for weight in model.weights:
        path, shape = getattr(weight, "path", weight.name), tuple(weight.shape)
        leaf = path.split("/")[-1].split(":")[0]
        if leaf == "gamma":
            # ConvNeXt's scales of its residuals are small: larger ones would make it explode.
            low, high = (0.1, 0.3) if "convnext" in path.lower() else (0.8, 1.2)
            weight.assign(random.uniform(low, high, shape))
        elif leaf in ("beta", "bias", "moving_mean"):
            weight.assign(random.randn(*shape) * 0.1)
        elif leaf == "moving_variance":
            weight.assign(random.uniform(0.6, 1.6, shape))
        elif leaf in ("alpha", "scale"):
            weight.assign(random.uniform(0.05, 0.4, shape))


def _data(model: Any) -> Arrays:
    random = np.random.RandomState(1)
    pixels = any(type(layer).__name__ in _PIXELS for layer in model.layers)
    found = {}
    for x in getattr(model, "inputs", None) or []:
        shape, name = (3, *x.shape[1:]), x.name.split(":")[0]
        if tf.as_dtype(x.dtype).is_integer:
            found[f"data/{name}"] = random.randint(0, 20, shape).astype(np.int32)
        else:
            values = 255 * random.rand(*shape) if pixels else random.randn(*shape)
            found[f"data/{name}"] = values.astype(np.float32)
    return found


def _save(model: Any, path: str, route: str) -> Values:
    if route == "frozen":
        return _freeze(model, path)
    if route == "tflite":
        Path(path).write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    elif route == "saved_model" and not _KERAS_2:
        model.export(path, verbose=False)
    else:
        model.save(path)
    return {}


def _freeze(model: Any, path: str) -> Values:
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    signature = tf.nest.map_structure(
        lambda x: tf.TensorSpec(x.shape, x.dtype, name=x.name.split(":")[0]), _inputs(model)
    )
    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(signature)
    frozen = convert_variables_to_constants_v2(function, lower_control_flow=False)
    Path(path).write_bytes(frozen.graph.as_graph_def().SerializeToString())
    return {
        "inputs": [tensor.name for tensor in frozen.inputs],
        "outputs": [tensor.name for tensor in frozen.outputs],
    }


def _inputs(model: Any) -> Any:
    """The inputs as the model was declared with them."""
    for attribute in ("_inputs_struct", "_nested_inputs"):  # Keras 3, Keras 2
        nested = getattr(model, attribute, None)
        if nested is not None:
            return nested
    return model.inputs


HANDLERS = {**export_worker.HANDLERS, "models": models, "build": build}
