# mypy: ignore-errors
"""What TensorFlow makes of models made elsewhere; serves the export worker's handlers too.

mtcnn(source, network, size, path; 0, 1, ...) -> the network with these weights, in their order,
    for images of size x size, is saved at path.
"""

from __future__ import annotations

import importlib.util
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parent))

import converter_zoo_worker as zoo
import tensorflow as tf


def mtcnn(params, arrays):
    """Saves a network as a model of its layers, so that the file needs no class of theirs."""
    spec = importlib.util.spec_from_file_location("network", params["source"])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = getattr(module, params["network"])()
    network.build()
    network.set_weights([arrays[str(i)] for i in range(len(arrays))])
    x = tf.keras.layers.Input((params["size"], params["size"], 3), name="image")
    tf.keras.Model(x, network.call(x)).save(params["path"])
    return {}, {}


def gradient(params, arrays):
    """Differentiates a SavedModel's serving signature."""
    loaded = tf.saved_model.load(params["path"])  # keeps the variables alive
    x = tf.constant(arrays["x"])
    with tf.GradientTape() as tape:
        tape.watch(x)
        output = loaded.signatures["serving_default"](x)[params["output"]]
        total = tf.reduce_sum(output * output)
    return {}, {"output": output.numpy(), "gradient": tape.gradient(total, x).numpy()}


HANDLERS = {**zoo.HANDLERS, "mtcnn": mtcnn, "gradient": gradient}
