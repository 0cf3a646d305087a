"""A Keras model as the source of a conversion."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from . import keras_model, penalties, training
from .description import describe
from .differences import remove_keys
from .graph import FrozenGraph
from .keras_model import UnsupportedModelError, one_line
from .pipelines import lost_preprocessor
from .reading import load
from .traces import Traces

Values = dict[str, Any]
Arrays = dict[str, Any]
Caller = Callable[[list[Any]], list[Any]]


class KerasSource:
    """A Keras model: traced for the export, called as it is for the comparison.

    Attributes:
        model: the model; where layers compute in half precision, the same in float32.
        description: names, shapes, dtypes and structure of inputs and outputs.
        functions: the compiled evaluations, which ``evaluation`` keeps here.
    """

    def __init__(
        self,
        path_or_model: Any,
        *,
        custom_objects: Mapping[str, Any] | None = None,
        allow_unsafe: bool = False,
    ) -> None:
        """Takes a model, or loads one from a file; see :func:`reading.load`."""
        self.model = path_or_model
        if not isinstance(path_or_model, tf.keras.Model):
            self.model = load(str(path_or_model), custom_objects, allow_unsafe)
        _refuse_state(self.model)
        self.functions: dict[str, Any] = {}
        self._twins: dict[str, Any] = {}
        self._lost = lost_preprocessor(self.model)
        half = keras_model.half_precision(self.model)
        if half is not None:
            self.model = keras_model.in_precision(self.model, "float32")
            self._lost.append(f"computing in {half}: its layers compute in float32")
        self.description = describe(self.model)

    def export(self, precision: str = "float32") -> tuple[Values, Any, Arrays]:
        """Returns what there is to say of the model, its ONNX graph and its weights.

        Args:
            precision: "float32" for the model as it is, or "float64".

        Raises:
            UnsupportedModelError: a layer has no counterpart, or none in this precision.
        """
        model = self._in(precision)
        # The names are those by which the inputs are asked for later: tracing a subclassed model of
        # Keras 2 gives its inputs other ones.
        description = self.description | {"dtypes": describe(model)["dtypes"]}
        traces = _traces(model, description, precision)
        weights = self._weights(model)
        graph = FrozenGraph(
            traces.inference, {id(variable): variable for _, variable, _ in weights}
        )
        remove_keys(graph.open)
        remove_keys(graph.constant)
        listed, arrays = _entries(weights, graph, training.batch_norms(model))
        order = keras_model.named_weights(self.model)
        values = {
            **description,
            "input_tensors": graph.inputs,
            "output_tensors": graph.outputs,
            "weights": listed,
            "weight_order": [name for name, _ in order],
            "only_inference": traces.only_inference,
            **self._losses({entry["name"] for entry in listed}, traces.added_losses),
        }
        for name, weight in order:
            if f"weight/{name}" not in arrays:
                arrays[f"other/{name}"] = np.asarray(weight)
        layers = {model.name, *(x.name for x in keras_model.sublayers(model).values())}
        return values, graph.to_onnx(layers), arrays

    def caller(self, precision: str) -> Caller:
        """Returns the model in a precision, as a function of the list of its inputs.

        Raises:
            UnsupportedModelError: TensorFlow cannot run the model in this precision.
        """
        model = self._in(precision)
        return lambda tensors: keras_model.call(model, tensors)

    def _weights(self, model: Any) -> list[tuple[str, Any, bool]]:
        """Returns the weights of a twin under the model's own names."""
        pairs = zip(keras_model.weights(self.model), keras_model.weights(model), strict=True)
        return [(own[0], *other[1:]) for own, other in pairs]

    def _losses(self, used: Collection[str], added: list[str]) -> Values:
        """Returns the losses of the weights in the graph, and what of the training is lost."""
        terms, lost = penalties.penalties(self.model)
        unused = [term["weight"] for term in terms if term["weight"] not in used]
        lost += [f"the loss of {name!r}, on which no output depends" for name in unused]
        return {
            "penalties": [term for term in terms if term["weight"] in used],
            "lost": [*self._lost, *lost, *added],
        }

    def _in(self, precision: str) -> Any:
        if precision == "float32":
            return self.model
        if precision not in self._twins:
            self._twins[precision] = keras_model.in_precision(self.model, precision)
        return self._twins[precision]


def _refuse_state(model: Any) -> None:
    for layer in keras_model.leaves(model):
        if getattr(layer, "stateful", False) is True and hasattr(layer, "reset_states"):
            raise UnsupportedModelError(
                f"layer {layer.name!r} keeps its state from batch to batch (stateful=True), which "
                "a converted model does not: build the model with stateful=False"
            )


def _traces(model: Any, description: Values, precision: str) -> Traces:
    try:
        return Traces(model, description)
    except (TypeError, ValueError, tf.errors.OpError) as error:
        if precision == "float32" or isinstance(error, UnsupportedModelError):
            raise
        raise UnsupportedModelError(
            f"the model cannot compute in {precision}: {one_line(error)}"
        ) from error


def _entries(
    weights: list[tuple[str, Any, bool]], graph: FrozenGraph, settings: Mapping[int, Values]
) -> tuple[list[Values], Arrays]:
    """Returns the entries and arrays of the weights on which an output depends."""
    tensors = {variable: tensor for tensor, variable in graph.weights.items()}
    listed, arrays = [], {}
    for name, variable, trainable in weights:
        if id(variable) in tensors:
            entry = {"name": name, "onnx": tensors[id(variable)], "trainable": trainable}
            listed.append({**entry, "batch_norm": settings.get(id(variable))})
            arrays[f"weight/{name}"] = variable.numpy()
    return listed, arrays
