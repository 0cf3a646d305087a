"""TensorFlow's side of the conversions' speed; serves the export worker's handlers too.

build(name, size, path) -> a model with random weights is saved at path; values tensorflow.
prepare(path; x, y) -> arrays gradient: loads the model and compiles its input gradient.
gradient() -> computes that gradient once, for the clock.
nothing() -> what a call costs by itself.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

# TensorFlow's default, which the workers of conversions switch off.
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
sys.path.append(str(Path(__file__).resolve().parent))

import models_worker as zoo  # type: ignore[import-not-found]
import tensorflow as tf

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)

layers = tf.keras.layers
Values = dict[str, Any]
Arrays = dict[str, Any]

_state: dict[str, Any] = {}


def _cnn(size: int) -> Any:
    parts = []
    for i, width in enumerate((32, 64, 128), start=1):
        parts.append(layers.Conv2D(width, 3, padding="same", name=f"conv{i}"))
        parts.append(layers.BatchNormalization(name=f"norm{i}"))
        parts += [layers.ReLU(), layers.MaxPooling2D()]
    head = layers.Dense(10, name="head")
    return tf.keras.Sequential([layers.Input((size, size, 3)), *parts, layers.Flatten(), head])


def _resnet50(size: int) -> Any:
    return tf.keras.applications.ResNet50(
        weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None
    )


_MODELS = {"CNN": _cnn, "ResNet50": _resnet50}


def build(params: Values, arrays: Arrays) -> tuple[Values, Arrays]:
    """Saves a model with random weights."""
    tf.keras.utils.set_random_seed(1)
    model = _MODELS[params["name"]](params["size"])
    zoo.randomise(model)
    model.save(params["path"])
    return {"tensorflow": tf.__version__}, {}


def prepare(params: Values, arrays: Arrays) -> tuple[Values, Arrays]:
    """Loads a model, compiles its input gradient and computes it once."""
    model = tf.keras.models.load_model(params["path"], compile=False)
    model.trainable = False

    @tf.function  # type: ignore[untyped-decorator]
    def gradient(x: Any, y: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            logits = model(x, training=False)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
        return tape.gradient(loss, x)

    x, y = tf.constant(arrays["x"]), tf.constant(arrays["y"])
    _state["run"] = lambda: gradient(x, y).numpy()
    return {}, {"gradient": _state["run"]()}


def gradient(params: Values, arrays: Arrays) -> tuple[Values, Arrays]:
    """Computes the prepared gradient."""
    _state["run"]()
    return {}, {}


def nothing(params: Values, arrays: Arrays) -> tuple[Values, Arrays]:
    """Does nothing."""
    return {}, {}


HANDLERS = {
    **zoo.HANDLERS,
    "build": build,
    "prepare": prepare,
    "gradient": gradient,
    "nothing": nothing,
}
