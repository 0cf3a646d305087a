"""Steps of gradient descent as Keras makes them, to compare training with."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from . import evaluation, keras_model
from .keras_source import Arrays, Values
from .training import calling, is_noise


def train(source: Any, params: Values, arrays: Arrays) -> tuple[Values, Arrays]:
    """Makes steps of gradient descent in training mode, and takes them back.

    The loss is the mean of the objectives plus the layers' losses; noise layers do nothing.

    Args:
        source: the exported Keras model.
        params: rate, steps, objectives and precision ("float32" or "float64").
        arrays: a batch, "input/<name>" and "label/<i>".

    Returns:
        Arrays "<step>/loss", "gradient/<weight>" of the first step and "<step>/<weight>" after
        each, steps counted from 1, and "noise/<layer>", the strengths of the noise layers that
        would have acted. Where the model does not compute in float64, the value
        "unavailable" says why.
    """
    precision, objectives = params["precision"], params["objectives"]
    inputs, labels = evaluation.inputs_and_labels(source, precision, objectives, arrays)
    try:
        model = source.model
        if precision != str(model.dtype):
            model = keras_model.in_float64(model)
        return {}, _steps(source, model, params, inputs, labels)
    except (TypeError, ValueError, NotImplementedError, tf.errors.OpError) as error:
        if precision == "float64":
            return {"unavailable": evaluation.reason(error)}, {}
        raise


def _steps(source: Any, model: Any, params: Values, inputs: list[Any], labels: list[Any]) -> Arrays:
    names = [name for name, _, _ in keras_model.weights(source.model)]
    weights = keras_model.weights(model)
    left_out = set() if model is source.model else _corrected_variances(source.model)
    step = _step(model, weights, params["objectives"], params["rate"])
    result: Arrays = {}
    before = model.get_weights()
    try:
        with _noise_off(model) as acting:
            for number in range(1, params["steps"] + 1):
                loss, gradients = step(inputs, labels)
                result[f"{number}/loss"] = loss.numpy()
                if number == 1:
                    trained = [n for n, (_, _, t) in zip(names, weights, strict=True) if t]
                    pairs = zip(trained, gradients, strict=True)
                    result |= {f"gradient/{name}": g.numpy() for name, g in pairs}
                for name, (_, variable, _) in zip(names, weights, strict=True):
                    if name not in left_out:
                        result[f"{number}/{name}"] = variable.numpy()
            result |= {f"noise/{name}": np.sort(list(found)) for name, found in acting.items()}
    finally:
        model.set_weights(before)
    return result


def _step(model: Any, weights: list[Any], objectives: list[Values], rate: float) -> Any:
    trained = [variable for _, variable, trainable in weights if trainable]

    def run(inputs: list[Any], labels: list[Any]) -> tuple[Any, list[Any]]:
        with tf.GradientTape() as tape:
            outputs = keras_model.call(model, inputs, training=True)
            logits = evaluation.before_heads(outputs, objectives)
            values = evaluation.objective_values(logits, objectives, labels)
            loss = tf.add_n([*map(tf.reduce_mean, values), *map(tf.reduce_sum, model.losses)])
        found = tape.gradient(loss, trained)
        gradients = [
            tf.zeros_like(v) if g is None else tf.convert_to_tensor(g)
            for v, g in zip(trained, found, strict=True)
        ]
        for variable, gradient in zip(trained, gradients, strict=True):
            variable.assign_sub(rate * gradient)
        return loss, gradients

    return tf.function(run, autograph=False)


@contextlib.contextmanager
def _noise_off(model: Any) -> Iterator[dict[str, set[float]]]:
    """Switches noise layers off; fills a dict of the strengths of those that would act, by name."""
    silent = [layer for layer in keras_model.leaves(model) if is_noise(layer)]
    acting: dict[str, set[float]] = defaultdict(set)
    with contextlib.ExitStack() as stack:
        for layer in silent:
            stack.enter_context(calling(layer, _silent_call(layer, acting)))
        yield acting


def _silent_call(layer: Any, acting: dict[str, set[float]]) -> Any:
    strength = float(layer.stddev if hasattr(layer, "stddev") else layer.rate)

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def call(inputs: Any, training: Any = None) -> Any:
        if training and strength > 0:
            acting[layer.name].add(strength)
        return tf.identity(inputs)

    return call


def _corrected_variances(model: Any) -> set[str]:
    """Names the variances that only Keras 2's fused kernel, which has no float64, gives so.

    It moves them with Bessel's correction, and the float64 twin without.
    """
    fused = {
        id(keras_model.variable_of(layer.moving_variance))
        for layer in keras_model.leaves(model)
        if keras_model.KERAS_MAJOR < 3 and getattr(layer, "fused", False)
    }
    return {name for name, variable, _ in keras_model.weights(model) if id(variable) in fused}
