"""A Keras model as the source of a conversion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from . import keras_model, training
from .graph import FrozenGraph

Values = dict[str, Any]
Arrays = dict[str, Any]
Caller = Callable[[list[Any]], list[Any]]


class KerasSource:
    """A Keras model: traced for the export, called as it is for the comparison."""

    def __init__(self, path: str) -> None:
        self.model = keras_model.load(path)
        self.description = keras_model.describe(self.model)
        self.functions: dict[str, Any] = {}

    def export(self) -> tuple[Values, Any, Arrays]:
        """Returns what there is to say of the model, its ONNX graph and its weights."""
        weights = keras_model.weights(self.model)
        settings = training.batch_norms(self.model)
        variables = {id(variable): variable for _, variable, _ in weights}
        graph = FrozenGraph(self._trace(), variables)
        listed, arrays = [], {}
        tensors = {variable: tensor for tensor, variable in graph.weights.items()}
        for name, variable, trainable in weights:
            if id(variable) not in tensors:
                continue  # no output depends on it
            entry = {"name": name, "onnx": tensors[id(variable)], "trainable": trainable}
            listed.append({**entry, "batch_norm": settings.get(id(variable))})
            arrays[f"weight/{name}"] = variable.numpy()
        values = {
            **self.description,
            "input_tensors": graph.inputs,
            "output_tensors": graph.outputs,
            "weights": listed,
            "only_inference": training.only_inference(self.model),
        }
        names = {self.model.name, *(layer.name for layer in keras_model.leaves(self.model))}
        return values, graph.to_onnx(names), arrays

    def caller(self, precision: str) -> Caller:
        """Returns the model in a precision, as a function of the list of its inputs."""
        model = self.model if precision == "float32" else keras_model.in_float64(self.model)
        return lambda tensors: keras_model.call(model, tensors)

    def _trace(self) -> Any:
        def function(*tensors: Any) -> list[Any]:
            return [tf.identity(y) for y in keras_model.call(self.model, list(tensors))]

        shapes, dtypes = self.description["shapes"], self.description["dtypes"]
        signature = [
            tf.TensorSpec([None, *shape], dtype, name=f"input_{i}")
            for i, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=True))
        ]
        with training.markers(self.model):
            return tf.function(function).get_concrete_function(*signature)
