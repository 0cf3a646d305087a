"""The judge's values: the original Keras model in float64, without any attack library."""

from __future__ import annotations

import keras_models
import numpy as np
import tensorflow as tf

_WANT = ("input_gradient", "label_slope", "loss", "losses", "parameter_gradient", "logits")


def oracle(params, arrays):
    """Returns what ``want`` names; the handler of the same name (see ``nsl.py``)."""
    params = {"dtype": "float64", **params}
    want = params.get("want", ["input_gradient", "loss"])
    if not set(want) <= set(_WANT):
        raise ValueError(f"expected want out of {_WANT}, got {want}")
    loaded = keras_models.load(params)
    model = loaded.model
    inputs = keras_models.match_inputs(loaded, arrays)
    tensors = {name: tf.constant(value) for name, (_, value) in inputs.items()}
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([tensor for tensor in tensors.values() if tensor.dtype.is_floating])
        outputs = tf.nest.flatten(model(list(tensors.values()), training=False))
        if not params.get("finds_logits", True):
            # Keras' loss finds the logits behind a softmax, CleverHans' does not.
            outputs = [tf.identity(output) for output in outputs]
        losses = _losses(params, arrays, outputs) if set(want) != {"logits"} else None
        total = _total(losses, params, arrays) if losses is not None else None
        if "label_slope" in want:
            chosen, miss = _label_logits(arrays, params["dtype"], outputs)
            chosen = _total(chosen, params, arrays)
    results = {}
    if "input_gradient" in want:
        results.update(keras_models.numpy_arrays("gradient", tape.gradient(total, tensors)))
    if "label_slope" in want:
        results.update(keras_models.numpy_arrays("label_slope", tape.gradient(chosen, tensors)))
        results["label_miss"] = np.asarray(miss)
    if "parameter_gradient" in want:
        weights = {weight.name: weight for weight in model.trainable_weights}
        results.update(keras_models.numpy_arrays("grad", tape.gradient(total, weights)))
    if "loss" in want:
        results["loss"] = np.asarray(total)
    if "losses" in want:
        results["losses"] = np.asarray(losses)
    if "logits" in want:
        for i, value in enumerate(outputs):
            results["logits" if len(outputs) == 1 else f"logits/{i}"] = np.asarray(value)
    return {"logits": loaded.logits}, results


def _losses(params, arrays, outputs):
    """The loss of each example (of each of its positions), summed over outputs, unweighted."""
    spec = params.get("loss") or {"class": "SparseCategoricalCrossentropy"}
    specs = spec if isinstance(spec, list) else [spec] * len(outputs)
    unreduced = [{**one, "reduction": "none"} for one in specs]
    functions = keras_models.keras_losses({**params, "loss": unreduced}, len(outputs))
    labels = keras_models.labels(arrays, params["dtype"])
    return tf.add_n([loss(labels[i], outputs[i]) for i, loss in enumerate(functions)])


def _label_logits(arrays, dtype, outputs):
    """The logit of each example's label, and 1 less the label's probability, without rounding.

    A label that is shared by classes misses nothing: its slope is no difference of p and 1.
    """
    (logits,), (labels,) = outputs, keras_models.labels(arrays, dtype)
    rows = tf.constant(labels)
    if not rows.dtype.is_floating:
        rows = tf.one_hot(rows, logits.shape[-1])
    rows = tf.cast(rows, logits.dtype)
    others = tf.where(rows > 0, tf.constant(float("-inf"), logits.dtype), logits)
    miss = tf.exp(tf.reduce_logsumexp(others, -1) - tf.reduce_logsumexp(logits, -1))
    alone = tf.reduce_max(rows, -1) == 1
    chosen = tf.reduce_sum(tf.where(rows > 0, logits, tf.zeros_like(logits)), -1)
    return chosen, tf.where(alone, miss, tf.zeros_like(miss))


def _total(losses, params, arrays):
    reduction = params.get("reduction", "sum")
    if reduction not in ("sum", "mean"):
        raise ValueError(f"expected reduction 'sum' or 'mean', got {reduction!r}")
    weighted = losses
    if "w" in arrays:
        weights = tf.reshape(
            tf.cast(arrays["w"], losses.dtype), [-1] + [1] * (len(losses.shape) - 1)
        )
        weighted = losses * weights
    total = tf.reduce_sum(weighted)
    return total if reduction == "sum" else total / tf.cast(tf.size(losses), losses.dtype)


def training_truth(params, arrays):
    """CleverHans 3's adversarial training with one step, as a formula in float64; see ``nsl.py``.

    The attack runs in inference mode; under L2 the gradient flows through it (a second-order term).
    An array ``given`` holds its result, and counts as constant.
    """
    params = {"dtype": "float64", **params}
    loaded = keras_models.build(params)
    model = loaded.model
    ((_, (_, value)),) = keras_models.match_inputs(loaded, arrays).items()
    x = tf.constant(value)
    y = tf.constant(arrays["y"], x.dtype)
    smoothed = y * (1 - params["smoothing"]) + params["smoothing"] / y.shape[-1]

    def losses(labels, inputs, training=False):
        logits = model(inputs, training=training)
        return tf.nn.softmax_cross_entropy_with_logits(labels, logits)

    with tf.GradientTape() as tape:
        with tf.GradientTape() as inner:
            inner.watch(x)
            labels = y
            if params["predicted"]:
                predicted = tf.argmax(model(x, training=False), 1)
                labels = tf.one_hot(predicted, y.shape[-1], dtype=x.dtype)
            attacked = tf.reduce_sum(losses(labels, x))
        moved = x + params["eps"] * _step(inner.gradient(attacked, x), params["norm"])
        if "given" in arrays:
            moved = tf.constant(arrays["given"].astype(params["dtype"]))
        training = bool(params["training"])
        clean = tf.reduce_mean(losses(smoothed, x, training))
        adversarial = tf.reduce_mean(losses(smoothed, moved, training))
        total = params["clean"] * clean + params["adversarial"] * adversarial
    trainable = {weight.name: weight for weight in model.trainable_weights}
    gradients = tape.gradient(total, trainable)
    found = keras_models.numpy_arrays("grad", gradients)
    if params.get("optimizer"):
        after = {
            name: w - params["optimizer"]["sgd"] * gradients[name] for name, w in trainable.items()
        }
        found.update(keras_models.numpy_arrays("after", after))
    return {}, {"loss": np.asarray(total), **found}


def _step(gradient, norm):
    axes = list(range(1, len(gradient.shape)))
    if norm == "linf":
        return tf.sign(gradient)
    if norm == "l2":
        squares = tf.reduce_sum(gradient**2, axes, keepdims=True)
        return gradient / tf.sqrt(tf.maximum(squares, 1e-12))
    size = tf.abs(gradient)
    largest = tf.cast(size == tf.reduce_max(size, axes, keepdims=True), gradient.dtype)
    return tf.sign(gradient) * largest / tf.reduce_sum(largest, axes, keepdims=True)
