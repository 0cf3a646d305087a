"""Keras models with heads, their losses by Keras and by NSL, as JSON and arrays.

Runs with the originals' packages: writes `<case>.keras` and `<case>.npz` into a folder.
"""

# The stand-ins are needed by the imports after them.
# ruff: noqa: E402
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

L = tf.keras.layers
# Head, loss by name, shape of an example, classes.
CASES = {
    "softmax-sparse": ("softmax", "sparse_categorical_crossentropy", (4,), 3),
    "softmax-mse": ("softmax", "mse", (4,), 3),
    "softmax-binary": ("softmax", "binary_crossentropy", (4,), 3),
    "sigmoid-binary": ("sigmoid", "binary_crossentropy", (4,), 3),
    "sigmoid-categorical": ("sigmoid", "categorical_crossentropy", (4,), 3),
    "sigmoid-one": ("sigmoid", "binary_crossentropy", (4,), 1),
    "pictures-sparse": ("softmax", "sparse_categorical_crossentropy", (3, 3, 4), 3),
    "pictures-binary": ("sigmoid", "binary_crossentropy", (3, 3, 4), 1),
}


def main(folder):
    rng = np.random.default_rng(0)
    for name, (head, loss, shape, classes) in CASES.items():
        tf.keras.utils.set_random_seed(1)
        x = L.Input(shape, name="x")
        model = tf.keras.Model(x, L.Dense(classes, activation=head, name="y")(x))
        # Sure enough that clipped probabilities have other losses than the logits.
        model.set_weights([20 * w for w in model.get_weights()])
        data = rng.random((6, *shape), np.float32)
        labels = rng.integers(max(classes, 2), size=(6, *shape[:-1]))
        if "sparse" not in loss:
            rows = labels[..., None] == np.arange(classes) if classes > 1 else labels[..., None]
            labels = rows.astype(np.float32)
        config = nsl.configs.make_adv_reg_config(multiplier=1.0, adv_step_size=0.01)
        wrapped = nsl.keras.AdversarialRegularization(model, adv_config=config)
        wrapped.compile("sgd", loss, run_eagerly=False)
        batch = {"x": data, "label": labels}
        found = wrapped.evaluate(batch, batch_size=6, verbose=0, return_dict=True)
        model.compile("sgd", loss, metrics=["accuracy"])
        own, accuracy = model.evaluate(data, labels, batch_size=6, verbose=0)
        model.save(folder / f"{name}.keras")
        np.savez(
            folder / f"{name}.npz", x=data, y=labels, loss=own, accuracy=accuracy,
            adversarial=found["scaled_adversarial_loss"],
            labeled=found["loss"] - found["scaled_adversarial_loss"],
        )  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]))
