"""What of a model is differentiated: a scalar for each example, the same in TensorFlow and torch.

It is the cross-entropy of the logits with labels chosen at random, or half the sum of squares where
an output is no vector of logits. Outputs of whole numbers take no part. The cross-entropy is
written so that nothing cancels where a classifier is sure of its answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
