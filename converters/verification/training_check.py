"""Compares steps of gradient descent with Keras: losses, gradients, weights and statistics."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from torchfgsm.converters.annotation import Array
from torchfgsm.converters.errors import ConversionError
from torchfgsm.converters.model import ConvertedModel, as_tensor
from torchfgsm.converters.ops.noise import is_noise
from torchfgsm.converters.verification.batches import training_batch
from torchfgsm.converters.verification.judging import SLACK, judge
from torchfgsm.converters.verification.measuring import (
    NONE,
    Question,
    gradients_of,
    objective_values,
    precision_of,
)
from torchfgsm.converters.verification.scaled import compare_scaled
from torchfgsm.judging.comparison import Comparison

if TYPE_CHECKING:
    from torchfgsm.converters.exporting import Exporter

_FLOAT32_TOLERANCE = 1e-4
"""For models without float64: a gradient sums over all places of all examples."""
_EXACT_TOLERANCE = 1e-7
"""For models in float64; Keras holds some settings in float32: factors of losses, momentum."""
_EXAMPLES = 16
_STRENGTHS = ("stddev", "rate", "p")
_COMPARED_STEPS = (1, 3)
_PARTS = {"gradient": "gradient"} | {str(n): f"step {n}" for n in _COMPARED_STEPS}
_RATES = (0.1, 0.01, 1e-3, 1e-4, 1e-5)
_CALM = 1e-5
"""Largest distance of a float32 loss from its float64 after the steps, as a share of it."""


def verify_training(model: ConvertedModel, exporter: Exporter) -> Comparison:
    """Compares one and three steps of gradient descent in torch and in Keras.

    Both start from the model's own weights and take the same batch of 16 random examples. It
    proves that training mode means the same on both sides: the loss with its layer losses, the
    gradient of every trainable weight (so that shared weights are tied and frozen ones rest), and
    the weights and moving statistics after the steps, each within 1e-6 of its largest entry.
    Where rounding is larger, float64 judges; a model without float64 gets 1e-4. Noise layers are
    switched off on both sides and compared by name and strength: what they draw is not shown here.

    Raises:
        ConversionError: only the model's inference was converted, or a part of its training was
            lost.
    """
    _refuse_partial(model, exporter)
    training = _Training.of(model)
    precision = precision_of(model)
    expected, reason = training.in_keras(model, exporter, precision)
    if reason:
        raise ConversionError(reason)
    title = f"{_COMPARED_STEPS[-1]} training steps of rate {training.rate:g} against Keras"
    actual = training.in_torch(model, precision)
    if precision == "float64":
        # Keras 2 has the variances of its fused kernel in float32 alone.
        actual = {n: a for n, a in actual.items() if n in expected or n.startswith("noise")}
        return compare_scaled(expected, actual, _EXACT_TOLERANCE, title)
    truth, reason = training.in_keras(model, exporter, "float64")
    tolerance = SLACK if truth else _FLOAT32_TOLERANCE
    parts = judge(
        model, training.in_torch, expected, actual, truth or None, "", tolerance=tolerance
    )
    return Comparison.join(title + (f" (in float32 alone: {reason})" if reason else ""), parts)


def _refuse_partial(model: ConvertedModel, exporter: Exporter) -> None:
    known = "expected a model whose training is known in torch"
    if model.annotation.only_inference:
        raise ConversionError(f"{known}, got {', '.join(model.annotation.only_inference)}")
    if exporter.format != "keras":
        raise ConversionError(f"{known}, got a file without Keras layers: give the .keras file")
    if model.annotation.lost:
        raise ConversionError(f"{known}, lost were: {'; '.join(model.annotation.lost)}")


@dataclass(frozen=True)
class _Training:
    """Some steps of gradient descent: their batch and rate."""

    question: Question
    rate: float

    @classmethod
    def of(cls, model: ConvertedModel) -> _Training:
        """Chooses the largest rate of a few at which the loss goes down and rounding stays small.

        Larger steps of some models blow up a difference of rounding, and show nothing. Where no
        rate is like that, it is the least.

        Raises:
            ConversionError: there is no loss to train with.
        """
        batch = training_batch(model.annotation.inputs, _EXAMPLES)
        precision = precision_of(model)
        question = Question.about(model, batch)
        if all(objective.kind == NONE for objective in question.objectives):
            raise ConversionError("expected an output of floating-point numbers to train with")
        for rate in _RATES:
            training = cls(question, rate)
            first, last = training._losses(model, precision)
            if last <= first and abs(last - training._exact_loss(model)) <= _CALM * abs(last):
                break
        return training

    def _losses(self, model: ConvertedModel, precision: str) -> tuple[float, float]:
        """Returns the losses of the first and the last step in torch."""
        arrays = self.in_torch(model, precision)
        first, last = (float(arrays[f"step {n}: loss"][0]) for n in _COMPARED_STEPS)
        return first, last

    def _exact_loss(self, model: ConvertedModel) -> float:
        """Returns the loss of the last step in float64."""
        return self._losses(copy.deepcopy(model).double(), "float64")[1]

    def in_keras(
        self, model: ConvertedModel, exporter: Exporter, precision: str
    ) -> tuple[dict[str, Array], str]:
        """Returns what Keras makes of it, or why there is nothing in this precision."""
        reply = exporter.call(
            "train",
            self.question.arrays(),
            objectives=[objective.to_dict() for objective in self.question.objectives],
            precision=precision,
            rate=self.rate,
            steps=_COMPARED_STEPS[-1],
        )
        # A weight on which no output depends is not in the torch module.
        names = {weight.name for weight in model.annotation.weights} | {"loss"}
        found = {}
        for key, array in reply.arrays.items():
            part, name = key.split("/", 1)
            if part == "noise" or (name in names and part in _PARTS):
                found[f"{_PARTS.get(part, part)}: {name}"] = array[None]
        return found, str(reply.values.get("unavailable", ""))

    def in_torch(
        self, model: ConvertedModel, precision: str, noise: float = 0.0
    ) -> dict[str, Array]:
        """Returns what a copy of the module makes of it; each array as one example (1, ...)."""
        question = self.question.in_precision(precision, noise)
        copied = copy.deepcopy(model).train()
        found = {f"noise: {name}": array for name, array in _switch_noise_off(copied).items()}
        for step in range(1, _COMPARED_STEPS[-1] + 1):
            loss, gradients = _descend(copied, question, self.rate)
            if step == 1:
                found |= {f"gradient: {name}": array for name, array in gradients.items()}
            if step in _COMPARED_STEPS:
                found[f"step {step}: loss"] = loss
                arrays = copied.keras_arrays(_state(copied))
                found |= {f"step {step}: {name}": array for name, array in arrays.items()}
        return {name: array[None] for name, array in found.items()}


def _switch_noise_off(model: ConvertedModel) -> dict[str, Array]:
    """Returns the strengths of the layers that acted, by name."""
    strengths: dict[str, set[float]] = defaultdict(set)
    for module in model.modules():
        if is_noise(module):
            strength = next(getattr(module, n) for n in _STRENGTHS if hasattr(module, n))
            if strength > 0:
                strengths[str(module.layer)].add(float(strength))
            module.eval()
    return {name: np.sort(list(found)) for name, found in strengths.items()}


def _descend(
    model: ConvertedModel, question: Question, rate: float
) -> tuple[Array, Mapping[str, Array]]:
    """Makes one step; returns the loss before it and the gradients by Keras' names."""
    weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
    with torch.inference_mode(False), torch.enable_grad():
        inputs = [as_tensor(question.batch[name]) for name in model.input_names]
        _, logits = model.outputs_and_logits(*inputs)
        values = objective_values(logits, question.objectives, question.labels)
        loss = torch.stack([*(v.mean() for v in values), *model.layer_losses()]).sum()
        gradients = gradients_of([loss], list(weights.values()))
    with torch.no_grad():
        for weight, gradient in zip(weights.values(), gradients, strict=True):
            weight.sub_(rate * gradient)
    return np.asarray(loss.detach()), model.keras_arrays(dict(zip(weights, gradients, strict=True)))


def _state(model: ConvertedModel) -> dict[str, torch.Tensor]:
    """Returns copies of all weights and statistics."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}
