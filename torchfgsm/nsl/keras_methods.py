"""Keras' methods that a torch module has not: each is refused with what does its work here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import nn

_LOOP = (
    "write the loop: for batch in loader: optimizer.zero_grad(); "
    "model(batch).loss.backward(); optimizer.step(), with batch a dict of features and labels"
)
_EVALUATE = (
    "torchfgsm.evaluate(model.base_model, loader, recipe=torchfgsm.Recipe.nsl()) counts clean and "
    "adversarial accuracy; model(batch) gives the losses of a batch"
)
_PREDICT = "call model.base_model(x) in eval mode, under torch.no_grad()"
_SAVE = "torch.save(model.base_model.state_dict(), file)"
_LOAD = "model.base_model.load_state_dict(torch.load(file))"
_INSTEAD: Mapping[str, str] = MappingProxyType(
    {
        "fit": _LOOP,
        "train_on_batch": _LOOP,
        "evaluate": _EVALUATE,
        "test_on_batch": _EVALUATE,
        "predict": _PREDICT,
        "predict_on_batch": _PREDICT,
        "save": _SAVE,
        "save_weights": _SAVE,
        "get_weights": "model.base_model.state_dict()",
        "set_weights": "model.base_model.load_state_dict(state)",
        "load_weights": _LOAD,
        "summary": "print(model)",
        "trainable_variables": "model.base_model.parameters()",
        "trainable_weights": "model.base_model.parameters()",
    }
)


class WithoutKerasMethods(nn.Module):
    """A module that says what stands here for Keras' `fit`, `evaluate` and their like."""

    def __getattr__(self, name: str) -> Any:
        """As of any module.

        Raises:
            AttributeError: There is no such name; of Keras' methods it says what does their work.
        """
        if name in _INSTEAD:
            raise AttributeError(
                f"{type(self).__name__} is a torch module without Keras' {name}: {_INSTEAD[name]}"
            )
        return super().__getattr__(name)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As `Module.compile` of torch, which is another thing than Keras'.

        Raises:
            TypeError: What Keras' `compile` takes was given.
        """
        theirs = [
            name for name in ("optimizer", "loss", "metrics", "loss_weights") if name in kwargs
        ]
        if args or theirs:
            raise TypeError(
                f"{type(self).__name__}.compile is torch's, which takes no "
                f"{', '.join(theirs) or 'optimizer'}: give loss= and loss_weights= where the model "
                f"is made, and the optimizer to the loop. To train {_LOOP}"
            )
        super().compile(**kwargs)


def as_batch(inputs: Any) -> dict[str, Any]:
    """A batch as the model takes it, arrays of numbers as tensors.

    Raises:
        TypeError: It is no dict.
    """
    if not isinstance(inputs, Mapping):
        raise TypeError(
            "expected a batch as a dict of features and labels, as "
            f"{{'feature': x, 'label': y}}, got {type(inputs).__name__}"
        )
    return {
        name: torch.as_tensor(value) if isinstance(value, np.ndarray) else value
        for name, value in inputs.items()
    }
