"""What a converted model computes on a batch: outputs, logits and input gradients, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from torchfgsm.converters.annotation import Array
from torchfgsm.converters.model import ConvertedModel, as_tensor
from torchfgsm.converters.verification.objectives import (
    Objective,
    labels_for,
    objective_values,
    objectives_of,
)


@dataclass(frozen=True)
class Question:
    """A batch and the objective whose gradient is asked for.

    Attributes:
        batch: the inputs by name, (N, ...).
        objectives: one for each output.
        labels: labels by the output's number, (N, ...).
    """

    batch: Mapping[str, Array]
    objectives: tuple[Objective, ...]
    labels: Mapping[int, Array]

    @classmethod
    def about(cls, model: ConvertedModel, batch: Mapping[str, Array]) -> Question:
        """Asks for all that the model computes on the batch."""
        objectives = objectives_of(model)
        count = next(len(array) for array in batch.values() if array.ndim)
        return cls(batch, objectives, labels_for(objectives, count))

    def in_precision(self, dtype: str, noise: float = 0.0) -> Question:
        """Returns the same question, with floating-point inputs of a dtype.

        Args:
            dtype: "float32" or "float64".
            noise: largest random change of each number, relative to it.
        """
        random = np.random.default_rng(3)
        batch = dict(self.batch)
        for name, array in self.batch.items():
            if is_float(array):
                change = 1 + noise * random.uniform(-1, 1, array.shape)
                batch[name] = np.asarray(array * change if noise else array, dtype)
        return replace(self, batch=batch)

    def arrays(self) -> dict[str, Array]:
        """Returns it as the TensorFlow side takes it."""
        arrays = {f"input/{name}": array for name, array in self.batch.items()}
        return arrays | {f"label/{i}": label for i, label in self.labels.items()}


def measure(model: ConvertedModel, question: Question) -> dict[str, Array]:
    """Returns "output <name>", "logits <name>" where a head was cut, and "gradient <name>".

    The gradient is that of the objectives' sum; it is zero where nothing depends on an input.
    """
    with torch.inference_mode(False), torch.enable_grad():
        inputs = {name: as_tensor(question.batch[name]) for name in model.input_names}
        floats = {n: x.requires_grad_() for n, x in inputs.items() if x.is_floating_point()}
        outputs, logits = model.outputs_and_logits(*inputs.values())
        values = objective_values(logits, question.objectives, question.labels)
        gradients = gradients_of(values, list(floats.values()))
    arrays = {f"output/{i}": y for i, y in enumerate(outputs)}
    arrays |= {f"logits/{i}": z for i, z in enumerate(logits)}
    arrays |= {f"gradient/{n}": g for n, g in zip(floats, gradients, strict=True)}
    return named(model, {name: t.detach().numpy() for name, t in arrays.items()})


def gradients_of(values: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """Returns the gradients of the sum of the values; zeros where nothing depends on an input."""
    totals = [v.sum() for v in values if v.requires_grad]
    if not totals or not inputs:
        return [torch.zeros_like(x) for x in inputs]
    found = torch.autograd.grad(totals, inputs, allow_unused=True)
    pairs = zip(inputs, found, strict=True)
    return [torch.zeros_like(x) if g is None else g for x, g in pairs]


def objective_totals(model: ConvertedModel, question: Question) -> Array:
    """Returns the objectives' sum of each example, (N,)."""
    with torch.no_grad():
        inputs = [as_tensor(question.batch[name]) for name in model.input_names]
        _, logits = model.outputs_and_logits(*inputs)
        values = objective_values(logits, question.objectives, question.labels)
        return np.asarray(sum(v.reshape(len(v), -1).sum(dim=1) for v in values))


def named(model: ConvertedModel, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Replaces the numbers of outputs by their names; logits stand only where a head was cut."""
    found = {}
    for key, array in arrays.items():
        kind, _, what = key.partition("/")
        if kind != "gradient":
            if kind == "logits" and model.found_heads[int(what)].kind is None:
                continue
            what = model.output_names[int(what)]
        found[f"{kind} {what}"] = array
    return found


def precision_of(model: ConvertedModel) -> str:
    """Returns the precision in which the model was exported: "float32" or "float64"."""
    annotation = model.annotation
    inputs = [port for port in annotation.inputs if port.dtype.startswith("float")]
    # One that takes float32 may give float64: a cast does not make its numbers more exact.
    ports = inputs or annotation.outputs
    return "float64" if any(port.dtype == "float64" for port in ports) else "float32"


def is_float(array: Array) -> bool:
    """Whether an array holds floating-point numbers, which have gradients."""
    return bool(array.dtype.kind == "f")
