"""What a Keras model takes and returns: names, shapes, types and structure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from .keras_model import called, input_structure, is_functional, structure


def describe(model: Any) -> dict[str, Any]:
    """Returns names, shapes, types and structure of inputs and outputs as JSON values."""
    _, keys, inputs = structure(input_structure(model))
    names = keys or [_tensor_name(tensor, i) for i, tensor in enumerate(inputs)]
    kind, output_keys, outputs = structure(_output_structure(model))
    return {
        "inputs": names,
        "shapes": [list(t.shape[1:]) for t in inputs],
        "dtypes": [tf.as_dtype(t.dtype).name for t in inputs],
        "outputs": output_keys or list(_output_names(model, outputs)),
        "output_structure": kind,
    }


def _output_structure(model: Any) -> Any:
    for attribute in ("_outputs_struct", "_nested_outputs"):  # Keras 3, Keras 2
        nested = getattr(model, attribute, None)
        if nested is not None:
            return nested
    if is_functional(model):
        return model.outputs if len(model.outputs) > 1 else model.outputs[0]
    found: list[Any] = []
    structured = input_structure(model)

    def function(*tensors: Any) -> Any:
        found.append(called(model, structured, list(tensors), training=False))

    tf.function(function).get_concrete_function(*structure(structured)[2])
    return found[-1]


def _tensor_name(tensor: Any, place: int) -> str:
    return tensor.name.split(":")[0] if tensor.name else f"input_{place}"


def _output_names(model: Any, outputs: list[Any]) -> Iterator[str]:
    # Keras 2 and 3 both name an output by the layer that made it.
    names = getattr(model, "output_names", None) if is_functional(model) else None
    used: set[str] = set()
    for i, tensor in enumerate(outputs):
        if not is_functional(model):
            name = f"output_{i}"
        else:
            name = names[i] if names else tensor._keras_history[0].name
        while name in used:
            name += "_"
        used.add(name)
        yield name
