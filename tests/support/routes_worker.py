"""A worker with the converter's handlers that writes models in every form. Handlers:

build(folder, kind, forms) -> values: form -> path of the file or folder.
predict(path; x, weight/<i>) -> array y, computed with other weights, given in Keras' own order;
    values "moved": how far the weights moved, "names": of all weights.
in_memory() -> values "changed": what an export of a model of this process changed in it.
and look, export, evaluate, train, outputs of torchfgsm/converters/export_worker.py
"""

from __future__ import annotations

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "converters"))

import export_worker
import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

layers = tf.keras.layers
KERAS_3 = not keras.__version__.startswith("2")


class Scaled(layers.Layer):
    """A layer that Keras does not know: as if it came from another program."""

    def __init__(self, factor=2.0, **keywords):
        super().__init__(**keywords)
        self.factor = factor

    def call(self, inputs):
        return inputs * self.factor

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


Scaled.__module__ = "__main__"


def _cnn(tail=()):
    image = layers.Input((6, 6, 3), name="image")
    h = layers.Conv2D(4, 3, activation="relu", padding="same", strides=2, name="conv")(image)
    h = layers.BatchNormalization(name="norm")(h)
    h = layers.Flatten()(layers.MaxPooling2D(2)(h))
    for layer in tail:
        h = layer(h)
    h = layers.Dropout(0.2)(h)
    model = tf.keras.Model(image, layers.Dense(3, activation="softmax", name="probs")(h))
    random = np.random.default_rng(0)
    model.set_weights(
        [
            random.uniform(0.5, 1.0, w.shape) if w.ndim == 1 else random.normal(0, 1.0, w.shape)
            for w in model.get_weights()
        ]
    )
    return model


def _texts():
    x = layers.Input((1,), dtype="string", name="text")
    lookup = layers.StringLookup(vocabulary=["a", "b"], output_mode="multi_hot")
    return tf.keras.Model(x, layers.Dense(2)(lookup(x)))


def _numbers():
    x = layers.Input((4,), dtype="int32", name="words")
    h = layers.GlobalAveragePooling1D()(layers.Embedding(7, 3)(x))
    return tf.keras.Model(x, layers.Dense(2)(h))


def _grouped():
    image = layers.Input((6, 6, 4), name="image")
    return tf.keras.Model(image, layers.Conv2D(4, 3, groups=2, use_bias=False)(image))


KINDS = {
    "cnn": _cnn,
    "grouped": _grouped,
    "custom": lambda: _cnn([Scaled(0.5, name="mine")]),
    "lambda": lambda: _cnn([layers.Lambda(lambda x: 2 * x, name="code")]),
    "texts": _texts,
    "numbers": _numbers,
}


def build(params, arrays):
    """Writes a model in the forms that are asked for."""
    folder, kind = pathlib.Path(params["folder"]), params["kind"]
    tf.keras.backend.clear_session()
    model = KINDS[kind]()
    paths = {}
    for form in params["forms"]:
        path = folder / f"{kind}{_SUFFIXES[form]}"
        _WRITERS[form](model, path)
        paths[form] = str(path)
    return paths, {}


def predict(params, arrays):
    """Returns what the model computes with other weights."""
    model = tf.keras.models.load_model(params["path"], compile=False)
    before = model.get_weights()
    weights = [arrays[f"weight/{i}"] for i in range(len(before))]
    model.set_weights(weights)
    moved = max(float(np.abs(a - b).max()) for a, b in zip(before, weights, strict=True))
    names = [getattr(w, "path", w.name) for w in model.weights]
    return {"moved": moved, "names": names}, {"y": model(arrays["x"], training=False).numpy()}


def _frozen(model, path):
    image = tf.TensorSpec([None, *model.inputs[0].shape[1:]], tf.float32, name="image")
    function = tf.function(lambda image: model(image, training=False))
    frozen = convert_variables_to_constants_v2(function.get_concrete_function(image))
    path.write_bytes(frozen.graph.as_graph_def().SerializeToString())


def _tflite(model, path):
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())


def _tflite_of_one(model, path):
    """Written for one example alone, as many files on the web are."""
    image = tf.TensorSpec([1, *model.inputs[0].shape[1:]], tf.float32, name="image")
    function = tf.function(lambda image: model(image, training=False)).get_concrete_function(image)
    frozen = convert_variables_to_constants_v2(function)
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert())


def _quantised(model, path):
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    image = np.ones((1, *model.inputs[0].shape[1:]), np.float32)
    converter.representative_dataset = lambda: [[image]]
    path.write_bytes(converter.convert())


def _saved_model(model, path):
    if KERAS_3:
        model.export(str(path))
    else:
        model.save(path)


_SUFFIXES = {
    "keras": ".keras",
    "h5": ".h5",
    "weights": ".weights.h5",
    "saved_model": "_saved_model",
    "frozen": ".pb",
    "tflite": ".tflite",
    "tflite_of_one": "_one.tflite",
    "quantised": "_quantised.tflite",
}
_WRITERS = {
    "keras": lambda model, path: model.save(path),
    "h5": lambda model, path: model.save(path),
    "weights": lambda model, path: model.save_weights(path),
    "saved_model": _saved_model,
    "frozen": _frozen,
    "tflite": _tflite,
    "tflite_of_one": _tflite_of_one,
    "quantised": _quantised,
}


def in_memory(params, arrays):
    """Exports a model of this process and tells what that changed in it and in Keras."""
    from tensorflow_side import handlers, keras_source

    model = _cnn()
    before = _state(model)
    session = handlers.Session()
    session.export_source(keras_source.KerasSource(model), "float32")
    question = {
        "precision": "float64",
        "objectives": [{"head": "Softmax", "kind": "squares", "axis": -1}],
    }
    session.evaluate(question, {"input/image": np.ones((2, 6, 6, 3), np.float32)})
    after = _state(model)
    return {"changed": [key for key in before if before[key] != after[key]]}, {}


def _state(model):
    every = [model, *model.layers]
    return {
        "floatx": tf.keras.backend.floatx(),
        "attributes": [sorted(vars(layer)) for layer in every],
        "call": [str(layer.call) for layer in every],
        "trainable": [layer.trainable for layer in every],
        "configuration": str(model.get_config()),
        "weights": [weight.tobytes() for weight in model.get_weights()],
        "random": tf.random.get_global_generator().state.numpy().tolist(),
    }


HANDLERS = {
    **export_worker.HANDLERS,
    "build": build,
    "predict": predict,
    "in_memory": in_memory,
}
