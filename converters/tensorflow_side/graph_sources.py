"""Graphs that know no Keras as the source of a conversion."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from .graph import FrozenGraph
from .keras_model import UnsupportedModelError
from .keras_source import Arrays, Caller, Values


class SavedModelSource:
    """A SavedModel's serving signature, without Keras: its graph is all there is."""

    def __init__(self, path: str) -> None:
        self.functions: dict[str, Any] = {}
        self._loaded = tf.saved_model.load(path)  # keeps the variables alive
        signatures = self._loaded.signatures
        if not signatures:
            raise UnsupportedModelError("expected a SavedModel with a serving signature, got none")
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
            raise UnsupportedModelError("a SavedModel computes in its own precision")
        graph = self._graph

        def call(tensors: list[Any]) -> list[Any]:
            inputs = dict(zip(graph.inputs, tensors, strict=True))
            found = tf.import_graph_def(
                graph.constant, input_map=inputs, return_elements=graph.outputs
            )
            return list(found)

        return call
