"""Writes Keras 3 models as Keras 2.15 files, in environment "tensorflow-2.15".

Handlers:

version(path) -> values keras_version: of the Keras that wrote an .h5 file, "" where none is named.
rebuild(kind, config, counts, path; weight/<layer>/<i>, input/<name>, output/<i>) -> values
    difference: the largest between output/<i> and those of the file at path, as a share of the
    largest output. All but path comes from ``describe`` in ``keras3.py``.
"""

from __future__ import annotations

import numpy as np

_MESSAGE = 300  # Keras puts whole configurations into its messages


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
    import tensorflow as tf

    kinds = {"Sequential": tf.keras.Sequential, "Functional": tf.keras.Model}
    try:
        model = kinds[params["kind"]].from_config(params["config"])
        for name, layer in _leaves(model):
            count = params["counts"][name]
            layer.set_weights([arrays[f"weight/{name}/{i}"] for i in range(count)])
    except (TypeError, ValueError, KeyError) as error:
        text = " ".join(str(error).split())[:_MESSAGE]
        raise ValueError(f"the originals' Keras 2.15 cannot build this model: {text}") from error
    model.save(params["path"])
    model = tf.keras.models.load_model(params["path"], compile=False)
    names = [x.name.split(":")[0] for x in model.inputs]
    flat = tf.keras.Model(list(model.inputs), list(model.outputs))
    found = flat([tf.constant(arrays[f"input/{name}"]) for name in names], training=False)
    pairs = [(arrays[f"output/{i}"], y.numpy()) for i, y in enumerate(tf.nest.flatten(found))]
    return {"difference": max(_difference(*pair) for pair in pairs)}, {}


def _leaves(model, prefix=""):
    """Yields every layer that holds no others, with its name; ``keras3.py`` has the same."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _leaves(layer, f"{prefix}{layer.name}/")
        else:
            yield prefix + layer.name, layer


def _difference(expected, actual):
    if expected.shape != actual.shape:
        raise ValueError(f"expected outputs {expected.shape}, Keras 2.15 gives {actual.shape}")
    largest = float(np.abs(expected).max())
    return float(np.abs(expected - actual).max()) / (largest or 1.0)


HANDLERS = {"version": version, "rebuild": rebuild}
