"""Reads Keras 3 models for Keras 2.15, in environment "tensorflow-2.21".

One handler:

describe(model, allow_unsafe) -> values kind ("Sequential" or "Functional"), config (as Keras 2.15
    reads it) and counts (layer -> number of its weights; a nested layer is called
    <model>/<layer>); arrays weight/<layer>/<i>, and a batch input/<name> with the model's
    output/<i>. Layers and settings that Keras 2.15 lacks are refused by name, before Keras loads
    anything. allow_unsafe: the file may name code of its own, which Keras runs.
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
# Settings that Keras 2.15 does not know, with the only value that means the same there.
_LATER = {
    "optional": False,
    "quantization_config": None,
    "renorm": False,
    "renorm_clipping": None,
    "renorm_momentum": 0.99,
}


def describe(params, arrays):
    """Returns the model as Keras 2.15 reads it, its weights, and a batch with its outputs."""
    stored = _stored(params["model"])
    _check(stored)
    # After it, since what is not supported cannot be allowed either.
    safe = not params.get("allow_unsafe")
    reason = keras_trust.distrust(stored)
    if safe and reason:
        raise ValueError(reason)
    # Only now, so that a refusal does not wait for it.
    import tensorflow as tf

    try:
        model = tf.keras.models.load_model(params["model"], compile=False, safe_mode=safe)
    except Exception as error:  # Keras raises many classes
        text = " ".join(str(error).split())[:_MESSAGE]
        raise ValueError(f"Keras 3 cannot read the model: {text}") from error
    if not model.inputs:
        raise ValueError("the model has no input shape yet: call it once, then save it again")
    leaves = dict(_leaves(model))
    weights = {name: _weights(layer) for name, layer in leaves.items()}
    # Values on both sides of 0 and of 1.
    random = np.random.default_rng(0)
    batch = [
        random.normal(0.5, 1.0, (_BATCH, *(n or 8 for n in x.shape[1:]))).astype(x.dtype)
        for x in model.inputs
    ]
    # Rewrapped, because a model that was declared with dicts takes and gives dicts.
    flat = tf.keras.Model(list(model.inputs), list(model.outputs))
    outputs = tf.nest.flatten(flat(batch, training=False))
    found = {f"weight/{name}/{i}": w for name, ws in weights.items() for i, w in enumerate(ws)}
    found |= {f"input/{x.name}": value for x, value in zip(model.inputs, batch, strict=True)}
    found |= {f"output/{i}": np.asarray(y) for i, y in enumerate(outputs)}
    values = {
        "kind": type(model).__name__,
        "config": _model(model.get_config(), "", leaves),
        "counts": {name: len(ws) for name, ws in weights.items()},
    }
    return values, found


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
        f"layer {name!r} {what}: the originals run on Keras 2.15 and cannot run it from a Keras 3 "
        "file; save the model with Keras 2.15 instead"
    )


def _leaves(model, prefix=""):
    """Yields every layer that holds no others, with its name; ``keras2.py`` has the same."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _leaves(layer, f"{prefix}{layer.name}/")
        else:
            yield prefix + layer.name, layer


def _weights(layer):
    # Those of a Normalization go into its configuration: Keras 2.15 has others.
    return [] if type(layer).__name__ == "Normalization" else layer.get_weights()


def _model(config, prefix, leaves):
    entries = config["layers"]
    # Keras 2.15 counts the call by which a model was built; Keras 3 does so for functional models,
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
    """Source, call and output, or a structure of these, with calls as Keras 2.15 counts them."""
    if isinstance(value, dict):
        return {key: _shifted(item, shift) for key, item in value.items()}
    if value and isinstance(value[0], str):
        source, call, output = value
        return [source, call + shift.get(source, 0), output]
    return [_shifted(item, shift) for item in value]


HANDLERS = {"describe": describe}
