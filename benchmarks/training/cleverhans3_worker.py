# mypy: ignore-errors
# (runs where TensorFlow is installed and the port is not)
"""Trains Keras models with CleverHans 3's loss.

Serves the handlers of ``torchfgsm/originals/workers/cleverhans3.py`` and one more:

    fit(model, params, dtype, training, optimizer, batch, at; x/<name>, y one-hot) by
        CrossEntropy.fprop and an optimizer of TensorFlow 1, over the examples as they come, in the
        steps of cleverhans.train.train. params: as of ``train``. optimizer: a class of
        tf.train as {"class": ..., its keywords}. In float64 CleverHans' L2 and L1 steps fail by
        themselves, on `tf.maximum(1e-12, ...)` and `tf.to_float`, which are float32: here, and
        only then, these two give float64.
        -> arrays <step>/weight/<weight> after each step of ``at``, and <step>/loss/loss of that
        step's batch.
"""

from __future__ import annotations

import contextlib

import cleverhans3
import keras_models

tf = cleverhans3.tf
fast_gradient_method = cleverhans3.fast_gradient_method


def fit(params, arrays):
    """Trains a fresh model and returns what it was on its way."""
    found, size, count = {}, params["batch"], len(arrays["y"])
    with cleverhans3._session(params) as session:
        loaded = keras_models.build(params)
        _, images = keras_models.only_input(loaded, arrays)
        labels = keras_models.cast(arrays["y"], images.dtype)
        x, y = (tf.placeholder(v.dtype, (None, *v.shape[1:])) for v in (images, labels))
        with _steps_in(images.dtype):
            loss = _loss(loaded, params, session, x, y)
        options = dict(params["optimizer"])
        optimizer = getattr(tf.train, options.pop("class"))(**options)
        gradients = optimizer.compute_gradients(loss, var_list=loaded.model.trainable_weights)
        with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
            train = optimizer.apply_gradients(gradients)
        session.run(tf.variables_initializer(optimizer.variables()))
        weights = {weight.name: weight for weight in loaded.model.weights}
        for step, begin in enumerate(range(0, count, size), 1):
            batch = slice(begin, begin + size)
            _, value = session.run([train, loss], {x: images[batch], y: labels[batch]})
            if step in params["at"]:
                after = session.run(weights)
                found.update(keras_models.numpy_arrays(f"{step}/weight", after))
                found[f"{step}/loss/loss"] = value
    return {}, found


def _loss(loaded, params, session, x, y):
    options, wrapper = dict(params["params"]), cleverhans3._wrapper(loaded, params)
    attack = cleverhans3._attack(options.pop("attack"), wrapper, session, params)
    objective = cleverhans3.original_loss.CrossEntropy(wrapper, attack=attack, **options)
    return objective.fprop(x, y, **({"training": True} if params.get("training") else {}))


class _InFloat64:
    """TensorFlow, but for the two functions by which CleverHans means float32."""

    def __getattr__(self, name):
        return getattr(tf, name)

    def maximum(self, x, y):
        return tf.maximum(tf.cast(x, y.dtype), y)

    def to_float(self, x):
        return tf.cast(x, tf.float64)


@contextlib.contextmanager
def _steps_in(dtype):
    if dtype == "float64":
        fast_gradient_method.tf = _InFloat64()
    try:
        yield
    finally:
        fast_gradient_method.tf = tf


HANDLERS = {**cleverhans3.HANDLERS, "fit": fit}
