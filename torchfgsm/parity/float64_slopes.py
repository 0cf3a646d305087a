"""What judges an attack's gradient: the original model's float64 gradient and label's slope."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from torchfgsm.originals.process import Worker
from torchfgsm.parity.cases import Case
from torchfgsm.parity.data import Array, Data
from torchfgsm.parity.truth import Gradient, Inputs

_SOFTMAX = ("SparseCategoricalCrossentropy", "CategoricalCrossentropy")

# (inputs, first step or a later one) -> the arrays of `slopes_of`.
Slopes = Callable[[Inputs, bool], Mapping[str, Array]]


def slopes_of(worker: Worker, case: Case, path: Path, data: Data, labels: Array | None) -> Slopes:
    """The slopes of the attack's loss by the original model in float64.

    Args:
        worker: NSL's process.
        case: A case of kind "perturb".
        path: The Keras model's file.
        data: The batch.
        labels: The labels that the original took, where it says so.

    Returns:
        A function whose arrays are gradient64/<input>, which grows the loss, and for a softmax
        cross-entropy of logits label_slope/<input> and label_miss (see the worker's `oracle`).
    """
    targets, loss = _targets(worker, case, path, data, labels)
    mean = case.library == "cleverhans-torch" or (
        case.library == "nsl" and case.loss.get("reduction") != "sum"
    )
    weights = {k: v for k, v in data.extras(case).items() if k == "w"}
    sign = -1.0 if case.labels == "target" else 1.0
    want = ["input_gradient", *["label_slope"] * _takes_logits(loss)]

    def slopes(x: Inputs, first: bool) -> Mapping[str, Array]:
        arrays = {f"x/{name}": value for name, value in x.items()} | {"y": targets}
        reply = worker.call(
            "oracle",
            {**arrays, **(weights if first else {})},
            model=str(path),
            output=case.output,
            dtype="float64",
            loss=loss,
            reduction="mean" if mean else "sum",
            finds_logits=case.library == "nsl",
            want=want,
        )
        rest = {k: v for k, v in reply.arrays.items() if not k.startswith("gradient/")}
        return rest | {f"gradient64/{n}": sign * reply.arrays[f"gradient/{n}"] for n in x}

    return slopes


def gradient_of(slopes: Slopes) -> Gradient:
    """The gradient alone."""

    def gradient(x: Inputs, first: bool) -> Inputs:
        found = slopes(x, first)
        return {name: found[f"gradient64/{name}"] for name in x}

    return gradient


def _takes_logits(loss: Mapping[str, Any]) -> bool:
    """Whether a loss has the slope p - 1 at the label's logit."""
    plain = loss["class"] in _SOFTMAX and not loss.get("label_smoothing")
    return plain and bool(loss.get("from_logits"))


def _targets(
    worker: Worker, case: Case, path: Path, data: Data, labels: Array | None
) -> tuple[Array, dict[str, Any]]:
    """The labels that the original took, and the Keras loss that takes them."""
    if case.library == "nsl":
        return data.labels(case)["y"], dict(case.loss)
    if case.library == "cleverhans3" and labels is not None:
        return labels, {"class": "CategoricalCrossentropy", "from_logits": True}
    loss = {"class": "SparseCategoricalCrossentropy", "from_logits": True}
    if case.labels != "predicted":
        return data.class_numbers(case), loss
    if labels is not None:
        return labels, loss
    reply = worker.call(
        "oracle", data.inputs("float64"), model=str(path), output=case.output, want=["logits"]
    )
    return np.argmax(reply.arrays["logits"], axis=1), loss
