"""Keras' losses by name and as objects, and NSL's training loss of them, as JSON.

Runs with the originals' packages: JSON in by a file, JSON out on stdout.
"""

# The stand-ins are needed by the imports after them.
# ruff: noqa: E402
import json
import sys
from pathlib import Path

# The originals' workers, which say what stands in for what TensorFlow does not have any more.
sys.path.append(str(Path(__file__).resolve().parents[2] / "torchfgsm" / "originals" / "workers"))
import stand_ins

stand_ins.keras_2()
stand_ins.estimator()

import neural_structured_learning as nsl
import numpy as np
import tensorflow as tf


def alone(name, keywords, y_true, y_pred):
    """Value and gradient of a loss by itself: by name per example, as an object its mean."""
    loss = tf.keras.losses.get(name)
    if keywords is not None:
        loss = getattr(tf.keras.losses, name)(**keywords)
    output = tf.constant(y_pred)
    with tf.GradientTape() as tape:
        tape.watch(output)
        value = tf.reduce_mean(loss(tf.constant(y_true), output))
    return value, tape.gradient(value, output)


def regularized(name, keywords, y_true, y_pred):
    """NSL's labeled and adversarial loss of a model that gives its input."""
    base = tf.keras.Sequential(
        [tf.keras.Input(y_pred.shape[1:], name="x"), tf.keras.layers.Activation("linear")]
    )
    loss = name if keywords is None else getattr(tf.keras.losses, name)(**keywords)
    config = nsl.configs.make_adv_reg_config(multiplier=1.0, adv_step_size=0.05)
    model = nsl.keras.AdversarialRegularization(base, adv_config=config)
    model.compile("sgd", loss, run_eagerly=True)
    batch = {"x": y_pred, "label": y_true}
    found = model.evaluate(batch, batch_size=len(y_pred), verbose=0, return_dict=True)
    return found["loss"] - found["scaled_adversarial_loss"], found["scaled_adversarial_loss"]


def outputs_of_dicts(x, first, second, a, b):
    """The labeled loss of a model that gives {"b": ..., "a": ...}, weights 1 and 10."""

    class Model(tf.keras.Model):
        def call(self, features):
            x = features["x"]
            return {"b": tf.matmul(x, tf.constant(b)), "a": tf.matmul(x, tf.constant(a))}

    config = nsl.configs.make_adv_reg_config(multiplier=0.0)
    model = nsl.keras.AdversarialRegularization(
        Model(), label_keys=["first", "second"], adv_config=config
    )
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", [loss, loss], loss_weights=[1.0, 10.0], run_eagerly=True)
    batch = {"x": x, "first": first, "second": second}
    return model.evaluate(batch, batch_size=len(x), verbose=0, return_dict=True)["loss"]


def main(path):
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    cases, found = json.loads(str(arrays.pop("cases"))), []
    for i, (name, keywords) in enumerate(cases):
        given = (name, keywords, arrays[f"{i}/y_true"], arrays[f"{i}/y_pred"])
        value, gradient = alone(*given)
        labeled, adversarial = regularized(*given)
        found.append([float(value), gradient.numpy().tolist(), labeled, adversarial])
    nested = outputs_of_dicts(*(arrays[name] for name in ("x", "first", "second", "a", "b")))
    print(json.dumps({"losses": found, "dicts": nested}))


if __name__ == "__main__":
    main(sys.argv[1])
