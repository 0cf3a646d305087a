"""Graphs that know no Keras as the source of a conversion."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import tensorflow as tf

from .graph import FrozenGraph, to_constant
from .graph_trust import refuse_saved_model
from .keras_model import UnsupportedModelError
from .keras_source import Arrays, Caller, Values
from .precision import in_float64


class GraphSource:
    """A concrete function without its Keras model: it computes what it does in inference.

    Attributes:
        description: names, shapes, dtypes and structure of inputs and outputs.
        functions: the compiled evaluations, which ``evaluation`` keeps here.
    """

    def __init__(
        self, function: Any, description: Values, kind: str, untrained: Collection[str] = ()
    ) -> None:
        """Takes a function.

        Args:
            function: the concrete function.
            description: what it is called with.
            kind: what to call it in messages.
            untrained: names of variables that are not trained, whatever they say themselves.
        """
        self.functions: dict[str, Any] = {}
        self.description = description
        self._kind = kind
        self._function, self._untrained = function, untrained
        # The function's own variables: those of a loaded object may be other Python objects.
        variables = {id(v): v for v in function.graph.variables}
        self._weights = {k: v for k, v in variables.items() if v.dtype.is_floating}
        self._graph = FrozenGraph(function, self._weights)

    def export(self, precision: str = "float32") -> tuple[Values, Any, Arrays]:
        """Returns what there is to say of the model, its ONNX graph and its weights."""
        if precision != "float32":
            raise UnsupportedModelError(f"a {self._kind} computes in its own precision")
        listed, arrays = [], {}
        variables = self._function.graph.trainable_variables
        trained = {id(v) for v in variables if v.name not in self._untrained}
        for tensor, key in self._graph.weights.items():
            variable = self._weights[key]
            name = variable.name
            while f"weight/{name}" in arrays:
                name += "#2"
            listed.append({"name": name, "onnx": tensor, "trainable": key in trained})
            arrays[f"weight/{name}"] = variable.numpy()
        values = {
            **self.description,
            "input_tensors": self._graph.inputs,
            "output_tensors": self._graph.outputs,
            "weights": listed,
            "only_inference": [f"{self._kind}: its graph is the one for inference"],
        }
        return values, self._graph.to_onnx(), arrays

    def caller(self, precision: str) -> Caller:
        """Returns the graph as a function of its inputs, in its own precision or float64."""
        graph, definition = self._graph, _to_import(self._graph.constant)
        if precision == "float64":
            definition = in_float64(definition)

        def call(tensors: list[Any]) -> list[Any]:
            inputs = dict(zip(graph.inputs, tensors, strict=True))
            found = tf.import_graph_def(definition, input_map=inputs, return_elements=graph.outputs)
            return list(found)

        return call


class SavedModelSource(GraphSource):
    """A SavedModel's serving signature, without Keras: its graph is all there is."""

    def __init__(self, path: str, *, allow_unsafe: bool = False) -> None:
        """Loads the folder.

        Raises:
            UnsupportedModelError: an operation could do more than compute, and is not allowed; no
                serving signature; an input of strings.
        """
        if not allow_unsafe:
            refuse_saved_model(path)
        self._loaded = tf.saved_model.load(path)  # keeps the variables alive
        signatures = self._loaded.signatures
        if not signatures:
            raise UnsupportedModelError("expected a SavedModel with a serving signature, got none")
        name = "serving_default" if "serving_default" in signatures else next(iter(signatures))
        function = signatures[name]
        specs = function.structured_input_signature[1]
        captured = {id(inner) for _, inner in function.graph.captures}
        inputs = [t for t in function.inputs if id(t) not in captured]
        outputs = function.structured_outputs
        description = {
            "inputs": sorted(specs),  # TensorFlow flattens dicts by their sorted keys
            "shapes": [list(t.shape[1:]) for t in inputs],
            "dtypes": [t.dtype.name for t in inputs],
            "outputs": sorted(outputs),
            "output_structure": "single" if len(outputs) == 1 else "dict",
        }
        refuse_text(description)
        super().__init__(function, description, "SavedModel", _untrained(self._loaded))


def _untrained(loaded: Any) -> set[str]:
    """Returns the names of the variables of layers that are not trained.

    Keras 3 writes variables that all say they are trainable, and copies of them in two lists.
    """

    def names(attribute: str) -> set[str]:
        found = getattr(loaded, attribute, None)
        listed = found if isinstance(found, list) else []
        return {v.name for v in listed if isinstance(v, tf.Variable)}

    return names("non_trainable_variables") - names("trainable_variables")


def _to_import(graph: Any) -> Any:
    """Returns a graph that can be computed and differentiated inside another one.

    Its operations have TensorFlow's own gradients: a custom one, as that of swish, is a Python
    function that belongs to the first graph. XLA refuses placeholders, even those that the import
    replaces by its inputs: they become constants.
    """
    result = tf.compat.v1.GraphDef()
    result.CopyFrom(graph)
    for node in result.node:
        node.attr.pop("_gradient_op_type", None)
        if node.op == "Placeholder":
            to_constant(node, np.zeros((), tf.as_dtype(node.attr["dtype"].type).as_numpy_dtype))
    return result


def refuse_text(description: Values) -> None:
    """Refuses a model with an input of strings.

    Raises:
        UnsupportedModelError: naming the input.
    """
    for name, dtype in zip(description["inputs"], description["dtypes"], strict=True):
        if dtype == "string":
            raise UnsupportedModelError(
                f"input {name!r} takes strings, which torch has no tensors of: convert the part of "
                "the model that follows its text layers"
            )
