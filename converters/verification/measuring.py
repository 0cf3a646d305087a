"""What a converted model computes on a batch, and the scalar that is differentiated for it.

That is the cross-entropy of the logits with labels chosen at random, or half the sum of squares
where an output is no vector of logits, the same in TensorFlow and torch. Outputs of whole numbers
take no part. The cross-entropy is written so that nothing cancels where a classifier is sure of its
answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from torchfgsm.converters.annotation import Array, Port
from torchfgsm.converters.model import ConvertedModel, as_tensor
from torchfgsm.converters.torch_side.heads import Head

CROSS_ENTROPY, BINARY, SQUARES, NONE = "cross_entropy", "binary", "squares", "none"


@dataclass(frozen=True)
class Objective:
    """The part of one output.

    Attributes:
        kind: CROSS_ENTROPY, BINARY (one for each entry), SQUARES or NONE.
        head: the operation that was cut at the output, if any.
        axis: the classes' axis, counted from the end.
        classes: how many labels there are.
        label_shape: shape of one example's label.
    """

    kind: str
    head: str | None = None
    axis: int = -1
    classes: int = 0
    label_shape: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns what the TensorFlow side needs to know."""
        return {"kind": self.kind, "head": self.head, "axis": self.axis}


def objectives_of(model: ConvertedModel) -> tuple[Objective, ...]:
    """Returns the objective of each output."""
    pairs = zip(model.annotation.outputs, model.found_heads, strict=True)
    return tuple(_objective(port, head) for port, head in pairs)


def _objective(port: Port, head: Head) -> Objective:
    if np.dtype(port.dtype).kind != "f":
        return Objective(NONE)
    sizes = tuple(n for n in port.shape if n is not None)
    known = len(sizes) == len(port.shape)
    rank = len(port.shape) + 1
    axis = head.axis if head.axis < 0 else head.axis - rank
    if known and head.kind == "Sigmoid":
        return Objective(BINARY, head.kind, classes=2, label_shape=sizes)
    if known and -rank < axis and sizes[axis] > 1 and not head.probabilities:
        label_shape = tuple(n for i, n in enumerate(sizes) if i != axis % len(sizes))
        return Objective(CROSS_ENTROPY, head.kind, axis, sizes[axis], label_shape)
    return Objective(SQUARES, head.kind)


def labels_for(objectives: Sequence[Objective], count: int) -> dict[int, Array]:
    """Returns random labels of ``count`` examples, by the output's number."""
    random = np.random.default_rng(1)
    return {
        i: random.integers(objective.classes, size=(count, *objective.label_shape))
        for i, objective in enumerate(objectives)
        if objective.classes
    }


def objective_values(
    logits: Sequence[Tensor], objectives: Sequence[Objective], labels: Mapping[int, Array]
) -> list[Tensor]:
    """Returns the objective at every place of each output that takes part, (N, ...)."""
    return [
        _values(z, objective, labels.get(i))
        for i, (z, objective) in enumerate(zip(logits, objectives, strict=True))
        if objective.kind != NONE
    ]


def _values(z: Tensor, objective: Objective, label: Array | None) -> Tensor:
    if label is None:
        return z * z / 2
    target = as_tensor(label).to(z.device)
    if objective.kind == BINARY:
        return _softplus(torch.where(target.bool(), -z, z))
    # Of a sure classifier -log_softmax is 0 but for rounding, and its derivative p - 1 too. How far
    # the others are behind the label has every digit.
    classes = z.movedim(objective.axis, 1)
    place = target.unsqueeze(1)
    others = classes.scatter(1, place, -math.inf).logsumexp(dim=1)
    return _softplus(others - classes.gather(1, place).squeeze(1))


def _softplus(z: Tensor) -> Tensor:
    """Returns log(1 + exp(z)), exact to the last digits at either end, as is its derivative."""
    # torch's own threshold of 20 is for float32: in float64 it makes a step.
    return F.softplus(z, threshold=50.0)


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
