"""Traces a Keras model for the export, in inference and in training mode."""

from __future__ import annotations

import contextlib
from typing import Any

import tensorflow as tf

from . import keras_model, penalties, training


class Traces:
    """The traces of a Keras model in both modes, and what their comparison says.

    Attributes:
        inference: the concrete function in inference mode, with marks.
        only_inference: layers whose training behaviour has no mark, or why it is unknown.
        added_losses: the layers that add a loss in their call, in words.
    """

    def __init__(self, model: Any, description: dict[str, Any]) -> None:
        self._model = model
        self._signature = [
            tf.TensorSpec([None, *shape], dtype, name=f"input_{i}")
            for i, (shape, dtype) in enumerate(
                zip(description["shapes"], description["dtypes"], strict=True)
            )
        ]
        self.added_losses: list[str] = []
        marks = training.TrainingMarks(model)
        failure = None
        try:
            with marks.applied(training=True):
                acting = self._trace(training=True)
        except Exception as error:  # whatever the layers raise
            failure = f"the model cannot be traced in training: {keras_model.one_line(error)}"
        with marks.applied(training=False):
            self.inference = self._trace(training=False)
        self.only_inference = (
            [failure]
            if failure
            else training.only_inference(model, acting.graph, self.inference.graph)
        )

    def _trace(self, *, training: bool) -> Any:
        def function(*tensors: Any) -> list[Any]:
            with contextlib.nullcontext() if training else keras_model.without_assignments():
                outputs = keras_model.call(self._model, list(tensors), training=training)
            found = penalties.added_losses(self._model)
            if training:
                self.added_losses = found
            return [tf.identity(y) for y in outputs]

        return tf.function(function).get_concrete_function(*self._signature)
