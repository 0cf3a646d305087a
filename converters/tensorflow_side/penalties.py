"""Finds the layer losses and constraints of a Keras model."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from .keras_model import KERAS_MAJOR, leaves, named_weights, sublayers, variable_of


def penalties(model: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns the L1 and L2 losses of weights, and what else the training adds, in words.

    The first list holds {"weight": name, "l1": factor, "l2": factor}; a weight stands in it once
    for each time that Keras adds its loss.
    """
    names = {id(variable_of(weight)): name for name, weight in named_weights(model)}
    found, lost = [], []
    for variable, regularizer in _regularizers(model):
        name, kind = names[id(variable)], type(regularizer).__name__
        factors = _factors(regularizer)
        if factors is None:
            lost.append(f"the {kind} loss of {name!r}")
        elif any(factors.values()):
            found.append({"weight": name, **factors})
    for name, weight in named_weights(model):
        constraint = getattr(weight, "constraint", None)
        if constraint is not None:
            lost.append(f"the constraint {type(constraint).__name__} of {name!r}")
    for layer in leaves(model):
        if getattr(layer, "activity_regularizer", None) is not None:
            lost.append(f"the activity loss of {type(layer).__name__} {layer.name!r}")
    return found, lost


def added_losses(model: Any) -> list[str]:
    """Names the layers that called ``add_loss`` in the last call of the model, in words.

    To be called inside a trace, whose losses are then forgotten again.
    """
    found = []
    for layer in (*sublayers(model).values(), model):
        losses = getattr(layer, "_eager_losses", None) or getattr(layer, "_losses", None)
        if losses and getattr(layer, "activity_regularizer", None) is None:
            found.append(f"the loss that {type(layer).__name__} {layer.name!r} adds in its call")
    model._clear_losses()
    return found


def _regularizers(model: Any) -> Iterator[tuple[Any, Any]]:
    """Yields (variable, regularizer) for each term that Keras adds to ``model.losses``."""
    if KERAS_MAJOR >= 3:
        for weight in model.trainable_weights:
            if weight.regularizer is not None:
                yield variable_of(weight), weight.regularizer
        return
    for layer in (*sublayers(model).values(), model):
        for loss in layer._callable_losses:
            # Keras 2 keeps partial(tag, partial(loss, variable)), the regularizer in a closure.
            term = loss.args[0]
            if isinstance(term, functools.partial):
                yield term.args[0], inspect.getclosurevars(term.func).nonlocals["regularizer"]


def _factors(regularizer: Any) -> dict[str, float] | None:
    """Returns the factors of Keras' own L1 and L2 losses, None for any other loss."""
    kinds = tf.keras.regularizers
    if type(regularizer) not in (kinds.L1, kinds.L2, kinds.L1L2):
        return None
    return {key: float(getattr(regularizer, key, 0.0)) for key in ("l1", "l2")}
