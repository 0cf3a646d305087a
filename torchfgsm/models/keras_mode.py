"""Keras 3 on the torch backend: its models are modules, but take no mode from `train()`."""

from __future__ import annotations

import re
import warnings
import weakref
from typing import Any

import torch
from torch import nn

_TRAINS = re.compile(r"drop|noise|stochastic|random|batch_?norm", re.IGNORECASE)
_warned: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def warn_if_untrained(model: Any) -> None:
    """Warns, once, of a Keras model in training mode whose layers do not act as in training.

    Args:
        model: The model, as it is called for training.
    """
    if torch.compiler.is_compiling() or not getattr(model, "training", False):
        return
    if not is_keras(model) or model in _warned:
        return
    _warned.add(model)
    layers: list[Any] = list(getattr(model, "_flatten_layers", list)())
    names = sorted(
        {type(layer).__name__ for layer in layers if _TRAINS.search(type(layer).__name__)}
    )
    if names:
        warnings.warn(
            f"Keras takes the mode from the argument `training`, not from train(): this training "
            f"runs the model's {', '.join(names)} as in inference. Give a module whose forward "
            "returns self.model(x, training=self.training), or "
            "torchfgsm.converters.from_keras(model)",
            UserWarning,
            stacklevel=3,
        )


def is_keras(model: Any) -> bool:
    """Whether a model is one of Keras 3."""
    return any(
        kind.__name__ == "Layer" and kind.__module__.split(".")[0] == "keras"
        for kind in type(model).__mro__
    )
