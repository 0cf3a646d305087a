"""The TensorFlow side of a conversion: a worker script with three handlers.

look(path) -> values keras_version: of an .h5 file.
export(path, format) -> values describing the model, arrays "onnx" (bytes) and "weight/<name>".
    format is "keras" (.keras, .h5, a SavedModel of Keras 2) or "saved_model" (any other).
evaluate(objectives, precision; input/<name>, label/<i>) -> arrays output/<i>, logits/<i> and
    gradient/<name> of the exported model, precision "float32" or "float64".
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

# The worker is loaded by its path alone; last, so that nothing of TensorFlow's is shadowed.
sys.path.append(os.path.dirname(os.path.abspath(__file__)))

import export_graph  # type: ignore[import-not-found]
import export_keras  # type: ignore[import-not-found]
import export_training  # type: ignore[import-not-found]
import numpy as np
import tensorflow as tf

Values = dict[str, Any]
Arrays = dict[str, Any]
Caller = Callable[[list[Any]], list[Any]]


class _KerasSource:
    """A Keras model: traced for the export, called as it is for the comparison."""

    def __init__(self, path: str) -> None:
        self.model = export_keras.load(path)
        self.description = export_keras.describe(self.model)
        self.functions: dict[str, Any] = {}

    def export(self) -> tuple[Values, Any, Arrays]:
        weights = export_keras.weights(self.model)
        settings = export_training.batch_norms(self.model)
        variables = {id(variable): variable for _, variable, _ in weights}
        graph = export_graph.FrozenGraph(self._trace(), variables)
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
            "only_inference": export_training.only_inference(self.model),
        }
        names = {self.model.name, *(layer.name for layer in export_keras.leaves(self.model))}
        return values, graph.to_onnx(names), arrays

    def caller(self, precision: str) -> Caller:
        """Returns the model in a precision, as a function of the list of its inputs."""
        model = self.model if precision == "float32" else export_keras.in_float64(self.model)
        return lambda tensors: export_keras.call(model, tensors)

    def _trace(self) -> Any:
        def function(*tensors: Any) -> list[Any]:
            return [tf.identity(y) for y in export_keras.call(self.model, list(tensors))]

        shapes, dtypes = self.description["shapes"], self.description["dtypes"]
        signature = [
            tf.TensorSpec([None, *shape], dtype, name=f"input_{i}")
            for i, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=True))
        ]
        with export_training.markers(self.model):
            return tf.function(function).get_concrete_function(*signature)


class _SavedModelSource:
    """A SavedModel's serving signature, without Keras: its graph is all there is."""

    def __init__(self, path: str) -> None:
        self.functions: dict[str, Any] = {}
        self._loaded = tf.saved_model.load(path)  # keeps the variables alive
        signatures = self._loaded.signatures
        if not signatures:
            raise export_keras.UnsupportedModelError(
                "expected a SavedModel with a serving signature, got none"
            )
        name = "serving_default" if "serving_default" in signatures else next(iter(signatures))
        self._function = signatures[name]
        variables = {id(v): v for v in self._function.graph.variables}
        # The signature's own variables: those of the loaded object may be other Python objects.
        self._weights = {k: v for k, v in variables.items() if v.dtype.is_floating}
        self._graph = export_graph.FrozenGraph(self._function, self._weights)
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
            raise export_keras.UnsupportedModelError("a SavedModel computes in its own precision")
        graph = self._graph

        def call(tensors: list[Any]) -> list[Any]:
            inputs = dict(zip(graph.inputs, tensors, strict=True))
            found = tf.import_graph_def(
                graph.constant, input_map=inputs, return_elements=graph.outputs
            )
            return list(found)

        return call


_source: Any = None


def look(params: Values, arrays: Arrays) -> tuple[Values, Arrays]:
    """Returns which Keras wrote an .h5 file."""
    return {"keras_version": export_keras.keras_version_of_h5(params["path"])}, {}


def export(params: Values, arrays: Arrays) -> tuple[Values, Arrays]:
    """Loads a model, keeps it for ``evaluate`` and returns it as ONNX."""
    global _source
    _source = None
    tf.keras.backend.clear_session()
    kinds: dict[str, Any] = {"keras": _KerasSource, "saved_model": _SavedModelSource}
    source = kinds[params["format"]](params["path"])
    values, model, weights = source.export()
    _source = source
    versions = {"tensorflow": tf.__version__, "keras": export_keras.KERAS_VERSION}
    data = np.frombuffer(model.SerializeToString(), np.uint8)
    return {**values, "versions": versions}, {"onnx": data, **weights}


def evaluate(params: Values, arrays: Arrays) -> tuple[Values, Arrays]:
    """Returns outputs, logits and the gradient of the summed objectives of the exported model."""
    precision, objectives = params["precision"], params["objectives"]
    names, dtypes = _source.description["inputs"], _source.description["dtypes"]
    inputs = [
        tf.constant(arrays[f"input/{name}"], precision if dtype == "float32" else dtype)
        for name, dtype in zip(names, dtypes, strict=True)
    ]
    labels = [tf.constant(arrays.get(f"label/{i}", 0)) for i in range(len(objectives))]
    key = json.dumps([precision, objectives])
    if key not in _source.functions:
        run = _evaluation(_source.caller(precision), objectives)
        # One trace for all batch sizes.
        signature = [[_of_any_length(t) for t in tensors] for tensors in (inputs, labels)]
        _source.functions[key] = tf.function(run, input_signature=signature, autograph=False)
    outputs, logits, gradients = _source.functions[key](inputs, labels)
    result = {f"output/{i}": y.numpy() for i, y in enumerate(outputs)}
    result |= {f"logits/{i}": z.numpy() for i, z in enumerate(logits)}
    floats = [name for name, x in zip(names, inputs, strict=True) if x.dtype.is_floating]
    for name, gradient in zip(floats, gradients, strict=True):
        if gradient is not None:
            result[f"gradient/{name}"] = gradient.numpy()
    return {}, result


def _evaluation(call: Any, objectives: list[Values]) -> Any:
    def run(inputs: list[Any], labels: list[Any]) -> Any:
        outputs = call(inputs)
        logits = [
            _before_head(y, objective["head"])
            for y, objective in zip(outputs, objectives, strict=True)
        ]
        total = sum(
            _objective(z, objective["kind"], label)
            for z, objective, label in zip(logits, objectives, labels, strict=True)
        )
        floats = [x for x in inputs if x.dtype.is_floating]
        gradients = tf.gradients(total, floats)
        return outputs, logits, [None if g is None else tf.convert_to_tensor(g) for g in gradients]

    return run


def _of_any_length(tensor: Any) -> Any:
    shape = [None, *tensor.shape[1:]] if tensor.shape.rank else []
    return tf.TensorSpec(shape, tensor.dtype)


def _before_head(output: Any, head: str | None) -> Any:
    """Returns the tensor that went into the head's softmax or sigmoid."""
    if head is None:
        return output
    operation = output.op
    while operation.type == "Identity":
        operation = operation.inputs[0].op
    if operation.type != head:
        raise export_keras.UnsupportedModelError(
            f"expected the output to come from {head}, it comes from {operation.type}"
        )
    return operation.inputs[0]


def _objective(logits: Any, kind: str, label: Any) -> Any:
    if kind == "cross_entropy":
        return tf.reduce_sum(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=label, logits=logits)
        )
    if kind == "binary":
        target = tf.cast(label, logits.dtype)
        return tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(labels=target, logits=logits))
    return tf.reduce_sum(logits * logits) / 2


HANDLERS = {"look": look, "export": export, "evaluate": evaluate}
