"""Loads and describes Keras models, inside a TensorFlow environment.

Works with Keras 2.15 and Keras 3.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

KERAS_VERSION = importlib.metadata.version("keras")
KERAS_MAJOR = int(KERAS_VERSION.split(".")[0])

_LAMBDA = (
    "the model has a Lambda layer, and loading it would run the Python code that lies in the "
    "file; replace it by Keras layers or export the model as a SavedModel"
)


class UnsupportedModelError(ValueError):
    """The model has no conversion; the message names the layer and the reason."""


def keras_version_of_h5(path: str) -> str:
    """Returns the Keras version that wrote an .h5 model; refuses files that are not one.

    Lambda layers are refused here: Keras would run the Python code that lies in the file.
    """
    import h5py  # type: ignore[import-not-found,unused-ignore]

    with h5py.File(path, "r") as file:
        config = file.attrs.get("model_config")
        if config is None:
            raise UnsupportedModelError(
                "expected a whole Keras model, got an .h5 file without model_config: "
                "it holds weights alone (save the model with model.save)"
            )
        version = file.attrs.get("keras_version", b"2")
    if '"class_name": "Lambda"' in _text(config):
        raise UnsupportedModelError(_LAMBDA)
    return _text(version)


def load(path: str) -> Any:
    """Loads a .keras or .h5 file or a Keras SavedModel folder; refuses unbuilt models."""
    try:
        model = tf.keras.models.load_model(path, compile=False)
    except ValueError as error:
        if "safe_mode=False" in str(error):
            raise UnsupportedModelError(_LAMBDA) from error
        raise
    if not isinstance(model, tf.keras.Model) or not getattr(model, "inputs", None):
        raise UnsupportedModelError(
            f"expected a functional or Sequential model, got {type(model).__name__} without "
            "declared inputs; export it as a SavedModel"
        )
    return model


def in_float64(model: Any) -> Any:
    """Returns the same model computing in float64, with the same weights."""
    config = _with_dtype(json.loads(json.dumps(model.get_config(), default=_plain)), "float64")
    before = tf.keras.backend.floatx()
    tf.keras.backend.set_floatx("float64")
    try:
        twin = type(model).from_config(config)
    finally:
        tf.keras.backend.set_floatx(before)
    twin.set_weights([np.asarray(w) for w in model.get_weights()])
    return twin


def structure(value: Any) -> tuple[str, list[str] | None, list[Any]]:
    """Returns ("single" | "list" | "dict", the dict's keys, the tensors in the model's order)."""
    if isinstance(value, dict):
        return "dict", list(value), list(value.values())
    if isinstance(value, (list, tuple)):
        return "list", None, list(value)
    return "single", None, [value]


def input_structure(model: Any) -> Any:
    """Returns the model's inputs as it was declared with them (a dict keeps its own order)."""
    for attribute in ("_inputs_struct", "_nested_inputs"):  # Keras 3, Keras 2
        nested = getattr(model, attribute, None)
        if nested is not None:
            return nested
    return model.inputs


def call(model: Any, tensors: list[Any]) -> list[Any]:
    """Calls the model in inference mode; inputs and outputs in the model's own order."""
    kind, keys, _ = structure(input_structure(model))
    if kind == "dict":
        value: Any = dict(zip(keys or [], tensors, strict=True))
    else:
        value = tensors if len(tensors) > 1 else tensors[0]
    return structure(model(value, training=False))[2]


def describe(model: Any) -> dict[str, Any]:
    """Returns names, structure and training settings as JSON values."""
    _, keys, inputs = structure(input_structure(model))
    names = keys or [tensor.name.split(":")[0] for tensor in inputs]
    kind, output_keys, outputs = structure(_output_structure(model))
    output_names = output_keys or list(_output_names(model, outputs))
    return {
        "inputs": names,
        "shapes": [list(t.shape[1:]) for t in inputs],
        "dtypes": [tf.as_dtype(t.dtype).name for t in inputs],
        "outputs": output_names,
        "output_structure": kind,
    }


def weights(model: Any) -> list[tuple[str, Any, bool]]:
    """Returns (unique name, tf.Variable, trainable) for every floating-point weight."""
    trainable = {id(weight) for weight in model.trainable_weights}
    found: list[tuple[str, Any, bool]] = []
    names: set[str] = set()
    for weight in model.weights:
        variable = variable_of(weight)
        if not tf.as_dtype(variable.dtype).is_floating:
            continue  # seeds and counters
        name = plain = getattr(weight, "path", weight.name)
        count = 1
        while name in names:
            count += 1
            name = f"{plain}#{count}"
        names.add(name)
        found.append((name, variable, id(weight) in trainable))
    return found


def leaves(model: Any) -> list[Any]:
    """Returns every layer, nested ones included, without the models that hold them."""
    layers = getattr(model, "_flatten_layers", None)
    found = layers(include_self=False) if layers else model.submodules
    unique = {id(layer): layer for layer in found}
    return [x for x in unique.values() if not isinstance(x, tf.keras.Model)]


def _output_structure(model: Any) -> Any:
    for attribute in ("_outputs_struct", "_nested_outputs"):  # Keras 3, Keras 2
        nested = getattr(model, attribute, None)
        if nested is not None:
            return nested
    return model.outputs if len(model.outputs) > 1 else model.outputs[0]


def _output_names(model: Any, outputs: list[Any]) -> Iterator[str]:
    # Keras 2 and 3 both name an output by the layer that made it.
    names = getattr(model, "output_names", None)
    used: set[str] = set()
    for i, tensor in enumerate(outputs):
        name = names[i] if names else tensor._keras_history[0].name
        while name in used:
            name += "_"
        used.add(name)
        yield name


def variable_of(weight: Any) -> Any:
    """Returns the tf.Variable of a weight."""
    return getattr(weight, "value", weight) if KERAS_MAJOR >= 3 else weight


def _with_dtype(config: Any, dtype: str) -> Any:
    if isinstance(config, list):
        return [_with_dtype(item, dtype) for item in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") in ("DTypePolicy", "Policy"):
        return {**config, "config": {**config["config"], "name": dtype}}
    return {
        key: dtype if key == "dtype" and value == "float32" else _with_dtype(value, dtype)
        for key, value in config.items()
    }


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
