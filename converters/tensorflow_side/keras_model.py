"""Describes Keras models, inside a TensorFlow environment.

Works with Keras 2.15 and Keras 3.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from .messages import cause

# What tf.keras really is: keras, or tf_keras beside a Keras 3.
_PACKAGE = str(tf.keras.Model.__module__).split(".")[0]
KERAS_VERSION = str(importlib.import_module(_PACKAGE).__version__)
KERAS_MAJOR = int(KERAS_VERSION.split(".")[0])

_FLOATS = ("bfloat16", "float16", "float32", "float64")
_FOREIGN = ("builtins", "keras", "numpy", "tensorflow", "tf_keras")


class UnsupportedModelError(ValueError):
    """The model has no conversion; the message names the layer and the reason."""


def keras_version_of_h5(path: str) -> str:
    """Returns the Keras version that wrote an .h5 model; refuses files that are not one."""
    import h5py  # type: ignore[import-not-found,unused-ignore]

    with h5py.File(path, "r") as file:
        if file.attrs.get("model_config") is None:
            raise UnsupportedModelError(
                "expected a whole Keras model, got an .h5 file without model_config: "
                "it holds weights alone (save the model with model.save)"
            )
        version = file.attrs.get("keras_version", b"2")
    return version.decode() if isinstance(version, bytes) else str(version)


def in_float64(model: Any) -> Any:
    """Returns the same model computing in float64, with the same weights; see in_precision."""
    return in_precision(model, "float64")


def in_precision(model: Any, dtype: str) -> Any:
    """Returns a model made from the same configuration, with the same weights.

    Raises:
        UnsupportedModelError: the model cannot be made again, or TensorFlow lacks an operation
            in this precision.
    """
    try:
        config = json.loads(json.dumps(model.get_config(), default=_plain))
        scope = tf.keras.utils.custom_object_scope(_own_objects(model))
        with _default_precision(dtype), scope, _trusted():
            twin = type(model).from_config(_with_dtype(config, dtype))
        if not is_functional(model):
            _build_like(model, twin, dtype)
        twin.set_weights([np.asarray(w) for w in model.get_weights()])
    except Exception as error:  # Keras and TensorFlow raise classes of their own
        raise UnsupportedModelError(
            f"the model cannot compute in {dtype}: {one_line(error)}"
        ) from error
    for layer in leaves(twin):
        if hasattr(layer, "finalize_state"):  # Normalization keeps its statistics as constants
            layer.finalize_state()
    return twin


def one_line(error: Exception) -> str:
    """Returns what went wrong, without the calls and arguments that Keras adds around it."""
    return f"{type(error).__name__}: {cause(str(error))[:300]}"


def half_precision(model: Any) -> str | None:
    """Returns the half precision in which layers of the model compute, None if none does."""
    found = {str(layer.compute_dtype) for layer in leaves(model)}
    return next(iter(sorted(found & {"bfloat16", "float16"})), None)


def without_assignments() -> Any:
    """A context in which the layers of Keras 3 leave their variables alone, seeds above all."""
    return tf.keras.StatelessScope() if KERAS_MAJOR >= 3 else contextlib.nullcontext()


def structure(value: Any) -> tuple[str, list[str] | None, list[Any]]:
    """Returns ("single" | "list" | "dict", the dict's keys, the tensors in the model's order)."""
    if isinstance(value, dict):
        return "dict", list(value), list(value.values())
    if isinstance(value, (list, tuple)):
        return "list", None, list(value)
    return "single", None, [value]


def is_functional(model: Any) -> bool:
    """Whether the model declares its inputs, as functional and Sequential ones do."""
    try:
        return bool(model.inputs)
    except (AttributeError, ValueError):  # Keras 3, before the model was built
        return False


def input_structure(model: Any) -> Any:
    """Returns the model's inputs as it was declared with them (a dict keeps its own order).

    For a subclassed model they are the specifications of what it was built with.

    Raises:
        UnsupportedModelError: the model was never built, or takes several arguments.
    """
    for attribute in ("_inputs_struct", "_nested_inputs"):  # Keras 3, Keras 2
        nested = getattr(model, attribute, None)
        if nested is not None:
            return nested
    if is_functional(model):
        return model.inputs
    arguments = _built_with(model)
    if len(arguments) != 1:
        raise UnsupportedModelError(
            f"expected a model of one argument whose shape is known, got {len(arguments)} for "
            f"{type(model).__name__}: call it once on a batch before saving it, "
            "or export it as a SavedModel"
        )
    return arguments[0]


def call(model: Any, tensors: list[Any], *, training: bool = False) -> list[Any]:
    """Calls the model; inputs and outputs in the model's own order."""
    return structure(called(model, input_structure(model), tensors, training=training))[2]


def called(model: Any, inputs: Any, tensors: list[Any], *, training: bool) -> Any:
    """Calls the model on tensors in the structure of ``inputs``; returns what it returns."""
    kind, keys, _ = structure(inputs)
    if kind == "dict":
        return model(dict(zip(keys or [], tensors, strict=True)), training=training)
    single = kind == "single" or (len(tensors) == 1 and is_functional(model))
    return model(tensors[0] if single else tensors, training=training)


def named_weights(model: Any) -> list[tuple[str, Any]]:
    """Returns (unique name, weight) for every weight, in the order of ``get_weights``."""
    found: dict[str, Any] = {}
    for weight in model.weights:
        name = plain = getattr(weight, "path", weight.name)
        count = 1
        while name in found:
            count += 1
            name = f"{plain}#{count}"
        found[name] = weight
    return list(found.items())


def weights(model: Any) -> list[tuple[str, Any, bool]]:
    """Returns (unique name, tf.Variable, trainable) for every floating-point weight."""
    trainable = {id(weight) for weight in model.trainable_weights}
    return [
        (name, variable_of(weight), id(weight) in trainable)
        for name, weight in named_weights(model)
        if tf.as_dtype(weight.dtype).is_floating
    ]


def sublayers(model: Any) -> dict[str, Any]:
    """Returns every layer and model inside a model, nested ones included, each under a key."""
    layers = getattr(model, "_flatten_layers", None)
    found = layers(include_self=False) if layers else model.submodules
    unique = {id(layer): layer for layer in found if layer is not model}
    return {str(i): layer for i, layer in enumerate(unique.values())}


def leaves(model: Any) -> list[Any]:
    """Returns every layer, nested ones included, without the models that hold them."""
    return [x for x in sublayers(model).values() if not isinstance(x, tf.keras.Model)]


def variable_of(weight: Any) -> Any:
    """Returns the tf.Variable of a weight."""
    return getattr(weight, "value", weight) if KERAS_MAJOR >= 3 else weight


def _trusted() -> Any:
    """A context in which Keras runs the code of Lambda layers that it deserialises."""
    library = importlib.import_module(f"{_PACKAGE}.src.saving.serialization_lib")
    return library.SafeModeScope(False)


@contextlib.contextmanager
def _default_precision(dtype: str) -> Iterator[None]:
    """Lets layers that name no precision of their own compute in this one."""
    policies = tf.keras.config if KERAS_MAJOR >= 3 else tf.keras.mixed_precision
    get, put = (
        (policies.dtype_policy, policies.set_dtype_policy)
        if KERAS_MAJOR >= 3
        else (policies.global_policy, policies.set_global_policy)
    )
    before = tf.keras.backend.floatx(), get()
    tf.keras.backend.set_floatx(dtype)
    put(dtype)
    try:
        yield
    finally:
        tf.keras.backend.set_floatx(before[0])
        put(before[1])


def _build_like(model: Any, twin: Any, dtype: str) -> None:
    """Builds a subclassed model by calling it on what another one was built with."""
    inputs = input_structure(model)
    batch = [
        tf.zeros([1, *(n or 1 for n in t.shape[1:])], dtype if t.dtype.is_floating else t.dtype)
        for t in structure(inputs)[2]
    ]
    called(twin, inputs, batch, training=False)


def _built_with(model: Any) -> list[Any]:
    """Returns the specifications of the arguments with which a subclassed model was built."""
    if KERAS_MAJOR < 3:
        spec = model.save_spec()
        shape = getattr(model, "_build_input_shape", None)
        if spec is not None:
            return list(spec[0])
        return [] if shape is None else [_specifications(tuple(shape), model.compute_dtype)]
    shapes = getattr(model, "_build_shapes_dict", None) or {}
    return [_specifications(shape, model.compute_dtype) for shape in shapes.values()]


def _specifications(shape: Any, dtype: str) -> Any:
    if isinstance(shape, dict):
        return {key: _specifications(value, dtype) for key, value in shape.items()}
    if any(isinstance(n, (list, tuple)) for n in shape):
        return [_specifications(value, dtype) for value in shape]
    return tf.TensorSpec([None, *shape[1:]], dtype)


def _own_objects(model: Any) -> dict[str, Any]:
    """Returns the classes and functions from outside Keras that a model is made of, by name."""
    found = {}
    for layer in sublayers(model).values():
        for value in (layer, *vars(layer).values()):
            thing = value if inspect.isfunction(value) else type(value)
            if thing.__module__.split(".")[0] not in _FOREIGN:
                found[thing.__name__] = thing
    return found


def _with_dtype(config: Any, dtype: str) -> Any:
    if isinstance(config, list):
        return [_with_dtype(item, dtype) for item in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") in ("DTypePolicy", "Policy"):
        return {**config, "config": {**config["config"], "name": dtype}}
    return {
        key: dtype if key == "dtype" and _is_float(value) else _with_dtype(value, dtype)
        for key, value in config.items()
    }


def _is_float(value: Any) -> bool:
    return isinstance(value, str) and (value in _FLOATS or value.startswith("mixed_"))


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
