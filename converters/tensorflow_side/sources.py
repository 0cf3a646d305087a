"""What a conversion reads: a Keras model, or a graph that knows no Keras."""

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


class SavedModelSource:
    """A SavedModel's serving signature, without Keras: its graph is all there is."""

    def __init__(self, path: str) -> None:
        self.functions: dict[str, Any] = {}
        self._loaded = tf.saved_model.load(path)  # keeps the variables alive
        signatures = self._loaded.signatures
        if not signatures:
            raise keras_model.UnsupportedModelError(
                "expected a SavedModel with a serving signature, got none"
            )
        name = "serving_default" if "serving_default" in signatures else next(iter(signatures))
        self._function = signatures[name]
        variables = {id(v): v for v in self._function.graph.variables}
        # The signature's own variables: those of the loaded object may be other Python objects.
        self._weights = {k: v for k, v in variables.items() if v.dtype.is_floating}
        self._graph = FrozenGraph(self._function, self._weights)
        specs = self._function.structured_input_signature[1]
        by_tensor = {f"{tensor.op.name}:0": tensor for tensor in self._function.inputs}
        self._inputs = [by_tensor[name] for name in self._graph.inputs]
        # TensorFlow flattens dicts by their sorted keys.
        names = dict(zip(self._graph.inputs, sorted(specs), strict=True))
        outputs = self._function.structured_outputs
        self.description = {
            "inputs": [names[tensor] for tensor in self._graph.inputs],
            "shapes": [list(t.shape[1:]) for t in self._inputs],
            "dtypes": [t.dtype.name for t in self._inputs],
            "outputs": sorted(outputs),
            "output_structure": "single" if len(outputs) == 1 else "dict",
        }

    def export(self) -> tuple[Values, Any, Arrays]:
        """Returns what there is to say of the model, its ONNX graph and its weights."""
        listed, arrays = [], {}
        trained = {id(v) for v in self._function.graph.trainable_variables}
        names: set[str] = set()
        for tensor, key in self._graph.weights.items():
            variable = self._weights[key]
            name = variable.name
            while name in names:
                name += "#2"
            names.add(name)
            listed.append({"name": name, "onnx": tensor, "trainable": key in trained})
            arrays[f"weight/{name}"] = variable.numpy()
        values = {
            **self.description,
            "input_tensors": self._graph.inputs,
            "output_tensors": self._graph.outputs,
            "weights": listed,
            "only_inference": ["SavedModel: its graph is the one for inference"],
        }
        return values, self._graph.to_onnx(), arrays

    def caller(self, precision: str) -> Caller:
        """Returns the graph as a function of the list of its inputs; it knows float32 alone."""
        if precision != "float32":
            raise keras_model.UnsupportedModelError("a SavedModel computes in its own precision")
        graph = self._graph

        def call(tensors: list[Any]) -> list[Any]:
            inputs = dict(zip(graph.inputs, tensors, strict=True))
            found = tf.import_graph_def(
                graph.constant, input_map=inputs, return_elements=graph.outputs
            )
            return list(found)

        return call
