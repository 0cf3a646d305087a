# mypy: ignore-errors
# (runs where TensorFlow is installed and the port is not)
"""Records values and gradients of Keras' losses: run by hand under TensorFlow 2.15.

    TF_ENABLE_ONEDNN_OPTS=0 python tests/support/record_losses.py tests/golden/losses.npz

The file holds one JSON list of cases, with the arrays of case 7 as "7/y_pred", "7/value" and so
on; a case that Keras refuses holds the name of the exception in place of a value.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

REDUCTIONS = ("sum_over_batch_size", "sum", "none")


def logits(rng, *shape):
    """Ordinary, tied and saturated logits, right and wrong."""
    values = rng.normal(0, 3, shape)
    values[0, ...] = 1.0
    values[1, ..., 0] = 40.0
    values[2, ..., -1] = 17.0
    return values


def probabilities(rng, *shape):
    """Normalised rows, 0, 1, and values around both bounds of the clip in the last rows."""
    exponents = np.exp(rng.normal(0, 2, shape))
    values = exponents / exponents.sum(-1, keepdims=True)
    if shape[-1] == 1:
        values = rng.uniform(0, 1, shape)
    rest = shape[-1] - 1
    for row, first in enumerate((1.0, 0.0, 1e-8, 1 - 1e-8, 1e-7, 1 - 1e-7)):
        values[row, ..., 0] = first
        values[row, ..., 1:] = (1 - first) / max(rest, 1)
    return values


def weightings(rng, batch):
    return [None, rng.uniform(0, 2, batch), rng.normal(0, 1, (batch, 1)), np.float64(3)]


def grid():
    """Yields (loss name, constructor keywords, y_true, y_pred, sample_weight)."""
    rng = np.random.default_rng(20)
    batch, classes = 8, 4
    labels = np.array([0, 1, 3, 0, 0, 1, 2, 3])
    one_hot = np.eye(classes)[labels]
    soft = rng.dirichlet(np.ones(classes), batch)
    bits = (labels % 2)[:, None]
    for from_logits, make in ((True, logits), (False, probabilities)):
        keywords = {"from_logits": from_logits}
        rows, dense, single = (
            make(rng, batch, classes),
            make(rng, batch, 3, 2, classes),
            make(rng, batch, 1),
        )
        maps = rng.integers(0, classes, (batch, 3, 2))
        for reduction in REDUCTIONS:
            options = keywords | {"reduction": reduction}
            for weight in weightings(rng, batch):
                yield "SparseCategoricalCrossentropy", options, labels, rows, weight
                yield "CategoricalCrossentropy", options, one_hot, rows, weight
                yield "BinaryCrossentropy", options, bits, single, weight
            yield "SparseCategoricalCrossentropy", options, maps, dense, weightings(rng, batch)[2]
        yield "SparseCategoricalCrossentropy", keywords, labels[:, None], rows, None
        yield "SparseCategoricalCrossentropy", keywords, labels.astype(np.float64), rows, None
        yield "SparseCategoricalCrossentropy", keywords, maps[..., None], dense, None
        yield "SparseCategoricalCrossentropy", keywords, maps, dense, rng.uniform(0, 2, maps.shape)
        yield "SparseCategoricalCrossentropy", keywords | {"ignore_class": 3}, labels, rows, None
        yield "SparseCategoricalCrossentropy", keywords, labels + 1, rows, None
        yield "CategoricalCrossentropy", keywords, soft, rows, None
        yield "CategoricalCrossentropy", keywords, 2 * soft, rows, None
        yield "CategoricalCrossentropy", keywords, one_hot, rows[:, :3], None
        yield (
            "CategoricalCrossentropy",
            keywords | {"axis": 1},
            np.moveaxis(np.eye(4)[maps], -1, 1),
            np.moveaxis(dense, -1, 1),
            None,
        )
        for smoothing in (0.1, 0.5):
            smooth = keywords | {"label_smoothing": smoothing}
            yield "CategoricalCrossentropy", smooth, one_hot, rows, None
            yield "BinaryCrossentropy", smooth, bits, single, None
        yield "BinaryCrossentropy", keywords, one_hot, rows, rng.uniform(0, 2, batch)
        yield "BinaryCrossentropy", keywords, soft, rows, None
        yield "BinaryCrossentropy", keywords, bits[:, 0], single[:, 0], None
        yield "BinaryCrossentropy", keywords | {"reduction": "sum"}, bits[:, 0], single[:, 0], None
        yield "BinaryCrossentropy", keywords, bits[:, 0], single[:, 0], rng.uniform(0, 2, batch)
        if from_logits:
            # With probabilities Keras silently broadcasts to (B, B) here; the port refuses both.
            yield "BinaryCrossentropy", keywords, bits[:, 0], single, None
    outputs, wanted = rng.normal(size=(2, batch, 3))
    for reduction in REDUCTIONS:
        for weight in weightings(rng, batch):
            yield "MeanSquaredError", {"reduction": reduction}, wanted, outputs, weight


def record(name, keywords, y_true, y_pred, weight):
    """Returns the value, or the exception's name, and the gradient."""
    variable = tf.constant(y_pred)
    try:
        loss = getattr(tf.keras.losses, name)(**keywords)
        with tf.GradientTape() as tape:
            tape.watch(variable)
            # Labels as NumPy arrays, as NSL and `fit` outside a tf.function pass them on.
            value = loss(y_true, variable, sample_weight=weight)
        return value.numpy(), tape.gradient(value, variable).numpy()
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        return type(error).__name__, None


def main(path):
    cases, arrays = [], {}
    for dtype in ("float32", "float64"):
        for name, keywords, y_true, y_pred, weight in grid():
            index = len(cases)
            y_true, y_pred = np.asarray(y_true), y_pred.astype(dtype)
            if weight is not None:
                weight = np.asarray(weight, dtype)
                arrays[f"{index}/weight"] = weight
            value, gradient = record(name, keywords, y_true, y_pred, weight)
            case = {"loss": name, "keywords": keywords, "dtype": dtype, "error": None}
            arrays |= {f"{index}/y_true": y_true, f"{index}/y_pred": y_pred}
            if gradient is None:
                case["error"] = value
            else:
                arrays |= {f"{index}/value": value, f"{index}/gradient": gradient}
            cases.append(case)
    versions = {"tensorflow": tf.__version__, "keras": keras.__version__}
    header = {"versions": versions, "python": sys.version.split()[0], "cases": cases}
    np.savez_compressed(path, header=np.array(json.dumps(header)), **arrays)
    errors = [case for case in cases if case["error"]]
    print(f"{len(cases)} cases, {len(errors)} refused by Keras, {versions} -> {path}")


if __name__ == "__main__":
    main(sys.argv[1])
