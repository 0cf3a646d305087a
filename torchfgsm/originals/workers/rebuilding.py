"""Writes Keras 3 models as Keras 2 files, for the originals; both are in one process.

Handlers:

version(path) -> values keras_version: of the Keras that wrote an .h5 file, "" where none is named.
rebuild(model, path, allow_unsafe) -> values difference: the largest between the outputs of the
    model and those of the file at path, as a share of the largest output. Layers and settings that
    Keras 2 lacks are refused by name, before Keras loads anything. allow_unsafe: the file may name
    code of its own, which Keras runs.
"""

from __future__ import annotations

import os
import sys

import numpy as np

# The worker is loaded by its path alone; last, so that nothing of TensorFlow's is shadowed.
_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.append(os.path.join(_PACKAGE, "converters"))

from tensorflow_side import archives, hdf5, keras_trust  # noqa: E402

_BATCH = 16
_MESSAGE = 300  # Keras puts whole configurations into its messages
_MODELS = {"Sequential": "keras", "Functional": "keras.src.engine.functional"}
_SUPPORTED = " ".join(
    (
        "InputLayer Dense SeparableConv1D SeparableConv2D DepthwiseConv1D DepthwiseConv2D",
        "BatchNormalization Normalization Rescaling Dropout Flatten Reshape Permute",
        "Activation ReLU LeakyReLU PReLU ELU Softmax",
        "Add Subtract Multiply Average Maximum Minimum Concatenate",
        *(
            f"Conv{n}D MaxPooling{n}D AveragePooling{n}D GlobalMaxPooling{n}D "
            f"GlobalAveragePooling{n}D ZeroPadding{n}D Cropping{n}D UpSampling{n}D"
            for n in (1, 2, 3)
        ),
    )
).split()
# Settings that Keras 2 does not know, with the only value that means the same there.
_LATER = {
    "optional": False,
    "quantization_config": None,
    "renorm": False,
    "renorm_clipping": None,
    "renorm_momentum": 0.99,
}


def version(params, arrays):
    """Returns which Keras wrote an .h5 file."""
    import h5py

    try:
        with h5py.File(params["path"], "r") as file:
            found = file.attrs.get("keras_version", "") if "model_config" in file.attrs else ""
    except OSError:
        found = ""  # whoever reads the model says what is the matter
    return {"keras_version": found.decode() if isinstance(found, bytes) else str(found)}, {}


def rebuild(params, arrays):
    """Builds the model from its configuration and weights, saves it and tries the file."""
    stored = _stored(params["model"])
    _check(stored)
    # After it, since what is not supported cannot be allowed either.
    safe = not params.get("allow_unsafe")
    reason = keras_trust.distrust(stored)
    if safe and reason:
        raise ValueError(reason)
    # Only now, so that a refusal does not wait for it.
    import tensorflow as tf
    import tf_keras

    try:
        model = tf.keras.models.load_model(params["model"], compile=False, safe_mode=safe)
    except Exception as error:  # Keras raises many classes
        text = " ".join(str(error).split())[:_MESSAGE]
        raise ValueError(f"Keras 3 cannot read the model: {text}") from error
    if not model.inputs:
        raise ValueError("the model has no input shape yet: call it once, then save it again")
    _as_keras_2(model).save(params["path"])
    rebuilt = tf_keras.models.load_model(params["path"], compile=False)
    # Values on both sides of 0 and of 1.
    random = np.random.default_rng(0)
    batch = {
        x.name: random.normal(0.5, 1.0, (_BATCH, *(n or 8 for n in x.shape[1:]))).astype(x.dtype)
        for x in model.inputs
    }
    # Rewrapped, because a model that was declared with dicts takes and gives dicts.
    sides = []
    for kind, one in ((tf.keras.Model, model), (tf_keras.Model, rebuilt)):
        flat = kind(list(one.inputs), list(one.outputs))
        found = flat([batch[x.name.split(":")[0]] for x in one.inputs], training=False)
        sides.append([np.asarray(y) for y in tf.nest.flatten(found)])
    return {"difference": max(map(_difference, *sides))}, {}


def _as_keras_2(model):
    """The same model in Keras 2, with its weights."""
    import tf_keras

    kinds = {"Sequential": tf_keras.Sequential, "Functional": tf_keras.Model}
    leaves = dict(_leaves(model))
    try:
        built = kinds[type(model).__name__].from_config(_model(model.get_config(), "", leaves))
        for name, layer in _leaves(built):
            layer.set_weights(_weights(leaves[name]))
    except (TypeError, ValueError, KeyError) as error:
        text = " ".join(str(error).split())[:_MESSAGE]
        raise ValueError(f"the originals' Keras 2 cannot build this model: {text}") from error
    return built


def _difference(expected, actual):
    if expected.shape != actual.shape:
        raise ValueError(f"expected outputs {expected.shape}, Keras 2 gives {actual.shape}")
    largest = float(np.abs(expected).max())
    return float(np.abs(expected - actual).max()) / (largest or 1.0)


def _stored(path):
    """The configuration that the file holds, read without Keras."""
    hdf5.refuse_outside(path)
    if path.endswith(".h5"):
        return hdf5.read_config(path)
    return archives.read_json(path, "config.json")


def _check(entry):
    kind, config = entry["class_name"], entry["config"]
    if kind not in _MODELS:
        raise ValueError(f"the originals take a Sequential or functional model, got a {kind}")
    for layer in config["layers"]:
        if layer["class_name"] in _MODELS:
            _check(layer)
        else:
            _check_layer(layer["class_name"], layer.get("registered_name"), layer["config"])


def _check_layer(kind, registered, config):
    name = config.get("name")
    if kind not in _SUPPORTED or registered not in (None, kind):
        raise _cannot(name, f"is a {kind}")
    if isinstance(config.get("activation"), dict):
        raise _cannot(name, "has an activation of its own")
    dtype = _dtype(config.get("dtype"))
    if dtype not in (None, "float32") and kind != "InputLayer":
        raise _cannot(name, f"computes in {dtype}")
    for key, only in _later(kind).items():
        if config.get(key, only) != only:
            raise _cannot(name, f"has {key}={config[key]!r}")


def _later(kind):
    return _LATER | ({"data_format": "channels_last"} if kind == "ZeroPadding1D" else {})


def _dtype(value):
    """The name of a dtype, which Keras 3 also writes as a policy."""
    return value["config"].get("name") if isinstance(value, dict) else value


def _cannot(name, what):
    return ValueError(
        f"layer {name!r} {what}: the originals run on Keras 2 and cannot run it from a Keras 3 "
        "file; save the model with Keras 2 (tf-keras) instead"
    )


def _leaves(model, prefix=""):
    """Yields every layer that holds no others, with its name."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _leaves(layer, f"{prefix}{layer.name}/")
        else:
            yield prefix + layer.name, layer


def _weights(layer):
    # Those of a Normalization go into its configuration: Keras 2 has others.
    return [] if type(layer).__name__ == "Normalization" else layer.get_weights()


def _model(config, prefix, leaves):
    entries = config["layers"]
    # Keras 2 counts the call by which a model was built; Keras 3 does so for functional models,
    # and only where it lists the outputs.
    nested = {e["config"]["name"]: e["class_name"] for e in entries if e["class_name"] in _MODELS}
    shift = dict.fromkeys(nested, 1)
    found = {"name": config["name"], "layers": [_layer(e, prefix, leaves, shift) for e in entries]}
    if "input_layers" in config:
        shift = {name: 1 for name, kind in nested.items() if kind == "Sequential"}
        found["input_layers"] = config["input_layers"]
        found["output_layers"] = _shifted(config["output_layers"], shift)
    return found


def _layer(entry, prefix, leaves, shift):
    kind, name = entry["class_name"], entry["config"]["name"]
    if kind in _MODELS:
        config = _model(entry["config"], f"{prefix}{name}/", leaves)
    else:
        config = dict(_settings(kind, entry["config"]))
    if kind == "Normalization" and config["mean"] is None:
        layer = leaves[prefix + name]
        config["mean"] = np.asarray(layer.adapt_mean).tolist()
        config["variance"] = np.asarray(layer.adapt_variance).tolist()
    module = _MODELS.get(kind, "keras.layers")
    found = {"module": module, "class_name": kind, "config": config, "registered_name": None}
    if "inbound_nodes" in entry:
        found["name"] = name
        found["inbound_nodes"] = [_node(name, node, shift) for node in entry["inbound_nodes"]]
    return found


def _settings(kind, config):
    for key, value in config.items():
        if key.endswith("_initializer") or key in _later(kind):
            continue  # all weights are set later
        if key == "batch_shape":
            yield "batch_input_shape", [None, *value[1:]]
        elif key == "dtype":
            yield key, _dtype(value)
        elif kind == "LeakyReLU" and key == "negative_slope":
            yield "alpha", value
        else:
            yield key, value


def _node(layer, node, shift):
    """One call: [[source, its call, its output, keywords], ...]."""
    keywords = {
        key: value
        for key, value in node["kwargs"].items()
        if value is not None and not (isinstance(value, list) and set(value) == {None})
    }
    given = node["args"][0] if len(node["args"]) == 1 else None
    tensors = given if isinstance(given, list) else [given]
    others = any(isinstance(value, (dict, list)) for value in keywords.values())
    if others or not all(isinstance(t, dict) and "keras_history" in t["config"] for t in tensors):
        raise _cannot(layer, "is called with more than outputs of other layers")
    return [[*_shifted(t["config"]["keras_history"], shift), keywords] for t in tensors]


def _shifted(value, shift):
    """Source, call and output, or a structure of these, with calls as Keras 2 counts them."""
    if isinstance(value, dict):
        return {key: _shifted(item, shift) for key, item in value.items()}
    if value and isinstance(value[0], str):
        source, call, output = value
        return [source, call + shift.get(source, 0), output]
    return [_shifted(item, shift) for item in value]


HANDLERS = {"version": version, "rebuild": rebuild}
