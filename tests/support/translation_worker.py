"""Runs the text of translations beside the originals' workers, a process for each TensorFlow.

Handlers, as of ``differential_worker.py`` and:

    save(path, reshaped; weights by Keras' names) -> the demo's model "digits" with these weights is
        saved, and once more with a reshape behind its softmax, which hides the logits from Keras.
    run(library, code, model, output; x, y, and mask) -> arrays adv, what the text leaves as x_adv;
        where it leaves training_loss also loss and grad/<weight>.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np

# Loaded by its path alone; last, so that nothing of TensorFlow's is shadowed.
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks" / "evidence"))

import differential_worker


def save(params, arrays):
    """Saves the demo's small CNN with given weights."""
    import demo
    import tensorflow as tf

    model = demo._digits()
    model.set_weights([arrays[weight.name] for weight in model.weights])
    model.save(params["path"])
    flat = tf.keras.layers.Reshape((10,))(model.outputs[0])
    tf.keras.Model(model.inputs, flat).save(params["reshaped"])
    return {}, {}


def run(params, arrays):
    """Runs a text as a caller would."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return (_run_in_graph if params["library"] == "cleverhans3" else _run)(params, arrays)


def _run(params, arrays):
    import keras_models
    import stand_ins
    import tensorflow as tf

    stand_ins.estimator()
    model = keras_models.load(params).model
    names = {name: tf.constant(array) for name, array in arrays.items()} | {"model": model}
    with tf.GradientTape() as tape:
        exec(params["code"], names)
    results = {"adv": np.asarray(names["x_adv"])}
    if "training_loss" in names:
        weights = {weight.name: weight for weight in model.trainable_weights}
        gradients = tape.gradient(names["training_loss"], weights)
        results |= {"loss": np.asarray(names["training_loss"])}
        results |= keras_models.numpy_arrays("grad", gradients)
    return {}, results


def _run_in_graph(params, arrays):
    import cleverhans3
    import keras_models

    tf = cleverhans3.tf
    with cleverhans3._session(params) as session:
        model, feed = keras_models.build(params).model, {}
        names = {name: cleverhans3._placeholder(a, None, feed) for name, a in arrays.items()}
        names["model"] = model
        exec(params["code"], names)
        fetches = {"adv": names["x_adv"]}
        if "training_loss" in names:
            weights = model.trainable_weights
            gradients = tf.gradients(names["training_loss"], weights)
            fetches["loss"] = names["training_loss"]
            fetches |= {f"grad/{w.name}": g for w, g in zip(weights, gradients, strict=True)}
        return {}, session.run(fetches, feed)


HANDLERS = {**differential_worker.HANDLERS, "run": run, "save": save}
