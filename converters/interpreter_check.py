"""Compares a converted TFLite model with the TFLite interpreter, which knows outputs alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from torchfgsm.comparison import Comparison, compare
from torchfgsm.converters.annotation import Array
from torchfgsm.converters.batches import Data, batches
from torchfgsm.converters.exporting import Exporter
from torchfgsm.converters.hints import hints_of
from torchfgsm.converters.model import ConvertedModel, as_tensor

TOLERANCE = 1e-5
"""Relative to an output's largest entry; both sides compute in float32."""


def compare_outputs(
    model: ConvertedModel, source: Exporter, data: Data | None, graph: Any
) -> Comparison:
    """Returns how far the outputs are from the interpreter's, batch by batch.

    Args:
        model: the module.
        source: the TensorFlow side, which has exported the model.
        data: the user's examples.
        graph: the exported ONNX model, which tells where its kinks are.
    """
    parts = []
    for title, batch in batches(model.annotation.inputs, data, hints_of(graph)).items():
        reply = source.call("outputs", {f"input/{name}": x for name, x in batch.items()})
        with torch.no_grad():
            outputs, _ = model.outputs_and_logits(*(as_tensor(batch[n]) for n in model.input_names))
        expected, actual = {}, {}
        for i, name in enumerate(model.output_names):
            scale = _scale(reply.arrays[f"output/{i}"])
            expected[f"output {name}"] = reply.arrays[f"output/{i}"] / scale
            actual[f"output {name}"] = outputs[i].numpy() / scale
        parts.append(compare(expected, actual, atol=TOLERANCE, title=title))
    return Comparison.join("TFLite interpreter", parts)


def _scale(array: Array) -> Array:
    largest = np.abs(array).max()
    return np.asarray(largest if largest > 0 else 1, array.dtype)
