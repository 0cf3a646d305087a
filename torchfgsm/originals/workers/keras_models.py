"""Keras 2 models for the workers: reading, rebuilding without head or in float64, inputs.

A model is read once, as configuration and weights, and built anew from them: with or without its
final softmax, in float32 or float64, in TensorFlow 2 or inside a TensorFlow 1 graph. Needs a
Sequential or functional model.
"""

from __future__ import annotations

import copy
import functools
import os
import tempfile
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python import tf2 as tf2_switch
from tensorflow.python.eager import context

OUTPUTS = ("logits", "probabilities")
DTYPES = ("float32", "float64")
_HEADS = ("softmax", "sigmoid")
_MODELS = ("Functional", "Sequential", "Model")
_LATER = b', "optional": false'  # of inputs


_reading = {}


def allow_unsafe(params, arrays):
    """Handler: from now on models may run the Python code that lies in their files."""
    from keras.src.saving import serialization_lib

    _reading["safe_mode"] = False
    serialization_lib.enable_unsafe_deserialization()  # for building anew from a configuration
    return {}, {}


@dataclass(frozen=True)
class Source:
    """A model as data: its class, configuration and weights."""

    kind: type
    config: dict
    weights: list


@dataclass(frozen=True)
class Loaded:
    """A model ready to run; ``logits`` says what was cut off, or why nothing."""

    model: Any
    logits: str
    dtype: str

    @property
    def input_names(self):
        """Names of the inputs in the model's own order."""
        return list(self.model.input_names)


def read(path):
    """Returns the model at ``path`` (.keras, .h5 or a Keras SavedModel folder) as data."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"expected a Keras model, found nothing at {path}")
    inner = os.path.join(path, "saved_model.pb")
    status = os.stat(inner if os.path.exists(inner) else path)
    return _read(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=8)
def _read(path, _changed, _size):
    # Reading needs eager TensorFlow 2, also in a process that runs in TensorFlow 1 mode.
    version_2 = tf2_switch.enabled()
    tf2_switch.enable()
    try:
        with context.eager_mode():
            model = tf.keras.models.load_model(_known(path), compile=False, **_reading)
            sequential = isinstance(model, tf.keras.Sequential)
            config = _config(model, path)
            return Source(
                tf.keras.Sequential if sequential else tf.keras.Model, config, model.get_weights()
            )
    finally:
        if not version_2:
            tf2_switch.disable()


def _known(path):
    """The file itself; under Keras 2.15 the same without what later versions (tf-keras) write."""
    if tf.keras.__name__.startswith("tf_keras") or not zipfile.is_zipfile(path):
        return path
    target = os.path.join(tempfile.gettempdir(), f"known-{os.path.basename(path)}")
    with zipfile.ZipFile(path) as given, zipfile.ZipFile(target, "w") as known:
        for name in given.namelist():
            content = given.read(name)
            if name == "config.json":
                content = content.replace(b'"tf_keras.', b'"keras.').replace(_LATER, b"")
            known.writestr(name, content)
    return target


def _config(model, path):
    try:
        config = model.get_config()
    except NotImplementedError:
        config = {}
    if not config.get("layers"):
        raise ValueError(
            f"{path}: expected a Sequential or functional model, got a "
            f"{type(model).__name__} whose layers are known to its own code only"
        )
    return config


def build(params):
    """Returns a fresh model for ``params`` (model, output, dtype), in the current graph if any."""
    output, dtype = params.get("output", "logits"), params.get("dtype", "float32")
    if output not in OUTPUTS or dtype not in DTYPES:
        raise ValueError(
            f"expected output out of {OUTPUTS} and dtype out of {DTYPES}, got {output!r}, {dtype!r}"
        )
    source = read(params["model"])
    config = _with_dtype(source.config, dtype)
    note = "the model's own output, nothing cut"
    if output == "logits":
        config = copy.deepcopy(config)
        cut = _cut_heads(config)
        note = "; ".join(cut) if cut else "no softmax or sigmoid at the end: taken as logits"
    model = source.kind.from_config(config)
    model.set_weights(source.weights)
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.Normalization):
            layer.finalize_state()  # its constants are computed from the weights once
    _refuse_equal_names(model)
    return Loaded(model, note, dtype)


def load(params):
    """Returns the model for ``params``, built once and kept: not to be changed."""
    path = params["model"]
    read(path)  # says first that there is no such file
    status = os.stat(path)
    return _load(
        path,
        (status.st_mtime_ns, status.st_size),
        params.get("output", "logits"),
        params.get("dtype", "float32"),
    )


@functools.lru_cache(maxsize=8)
def _load(path, _stamp, output, dtype):
    return build({"model": path, "output": output, "dtype": dtype})


def describe(loaded):
    """Returns the values of the handler ``load``."""
    model = loaded.model
    return {
        "input_names": loaded.input_names,
        "output_names": list(model.output_names),
        "logits": loaded.logits,
        "weights": [weight.name for weight in model.weights],
        "trainable": [weight.name for weight in model.trainable_weights],
    }, {}


def _with_dtype(value, dtype):
    """The configuration with every floating dtype replaced."""
    if isinstance(value, dict):
        return {
            key: _float_name(item, dtype) if key == "dtype" else _with_dtype(item, dtype)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return type(value)(_with_dtype(item, dtype) for item in value)
    return value


def _float_name(value, dtype):
    name = value["config"].get("name", "") if isinstance(value, dict) else value
    return dtype if isinstance(name, str) and "float" in name else value


def _cut_heads(config):
    """Makes the last activations linear, in place; says which."""
    layers = config["layers"]
    last = [layers[-1]["config"]["name"]]
    if "output_layers" in config:
        last = [entry[0] for entry in config["output_layers"]]
    return [
        text for layer in layers if layer["config"]["name"] in last for text in _cut_layer(layer)
    ]


def _cut_layer(layer):
    config = layer["config"]
    if layer["class_name"] in _MODELS:
        return _cut_heads(config)
    if layer["class_name"] == "Softmax":
        layer.update(class_name="Activation", registered_name=None)
        kept = {key: config[key] for key in ("name", "trainable", "dtype") if key in config}
        layer["config"] = {**kept, "activation": "linear"}
        return [f"softmax of layer {config['name']} cut off"]
    if config.get("activation") in _HEADS:
        text = f"{config['activation']} of layer {config['name']} cut off"
        config["activation"] = "linear"
        return [text]
    return []


def _refuse_equal_names(model):
    names = [weight.name for weight in model.weights]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"several weights are named {', '.join(twice)}; expected names that tell weights "
            "apart: rename the layers"
        )


def match_inputs(loaded, arrays):
    """Returns ``{caller's name: (model's name, array)}`` in the model's order, floats cast.

    Args:
        loaded: the model.
        arrays: of the request; those called x/<name> are the inputs.
    """
    given, names = select(arrays, "x"), loaded.input_names
    if len(given) == len(names) == 1:
        pairs = [(next(iter(given)), names[0])]
    elif set(given) == set(names):
        pairs = [(name, name) for name in names]
    else:
        raise ValueError(f"expected inputs {names}, got arrays x/ {sorted(given)}")
    return {caller: (name, cast(given[caller], loaded.dtype)) for caller, name in pairs}


def only_input(loaded, arrays):
    """Returns the caller's name and the array of the one input that CleverHans attacks."""
    if len(loaded.input_names) != 1:
        raise ValueError(
            f"CleverHans attacks models with one input; this one has {loaded.input_names}"
        )
    ((caller, (_, value)),) = match_inputs(loaded, arrays).items()
    return caller, value


def select(arrays, prefix):
    """Returns the arrays called ``prefix/<rest>`` by their rest, in the request's order."""
    start = prefix + "/"
    return {key[len(start) :]: value for key, value in arrays.items() if key.startswith(start)}


def labels(arrays, dtype):
    """Returns the labels of each output: "y", or "y/0", "y/1" and so on; floats cast."""
    found = [arrays["y"]] if "y" in arrays else []
    found = found or [value for _, value in sorted(select(arrays, "y").items())]
    if not found:
        raise ValueError("expected labels: an array y, or y/0, y/1 ... for several outputs")
    return [cast(value, dtype) for value in found]


def cast(value, dtype):
    """Returns a float array in ``dtype`` and any other as it is."""
    return value.astype(dtype) if value.dtype.kind == "f" else value


def keras_losses(params, count):
    """Returns a Keras loss for each of ``count`` outputs, from the request's ``loss``."""
    spec = params.get("loss") or {"class": "SparseCategoricalCrossentropy"}
    specs = spec if isinstance(spec, list) else [spec] * count
    if len(specs) != count:
        raise ValueError(f"expected a loss for each of {count} outputs, got {len(specs)}")
    return [_keras_loss(dict(one), params.get("output", "logits")) for one in specs]


def _keras_loss(spec, output):
    name = spec.pop("class")
    loss = getattr(tf.keras.losses, name, None)
    if loss is None:
        raise ValueError(f"expected the name of a Keras loss class, got {name!r}")
    if name.endswith("Crossentropy"):
        spec.setdefault("from_logits", output == "logits")
    return loss(**spec)


def numpy_arrays(prefix, named):
    """Returns ``{prefix/name: array}`` of named tensors; a missing gradient is refused."""
    missing = [name for name, value in named.items() if value is None]
    if missing:
        raise ValueError(f"there is no {prefix} of {', '.join(missing)}: the loss does not use it")
    return {f"{prefix}/{name}": np.asarray(value) for name, value in named.items()}
