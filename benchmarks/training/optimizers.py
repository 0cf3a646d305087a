"""Optimizers that make the same steps in Keras 2.15, in TensorFlow 1 and in `torch.optim`."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

Library = Literal["nsl", "cleverhans3"]
_BETAS = {"nsl": ("beta_1", "beta_2"), "cleverhans3": ("beta1", "beta2")}


@dataclass(frozen=True)
class Optimizer:
    """An optimizer in the words of all three.

    Attributes:
        name: "sgd", "momentum" or "adam".
        rate: The learning rate.
        momentum: Of "momentum".
        betas: Of "adam".
        epsilon: Of "adam", where Keras and TensorFlow put it: beside the root of the second moment
            before its bias is corrected.
    """

    name: Literal["sgd", "momentum", "adam"]
    rate: float
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-7

    def for_loss_times(self, factor: float) -> Optimizer:
        """The optimizer that makes the same steps for a loss `factor` times as large.

        Gradients are `factor` times as large, too: plain steps need the rate divided by it. Adam
        divides by the gradients' own size, and only epsilon is measured in their units.
        """
        if self.name == "adam":
            return dataclasses.replace(self, epsilon=self.epsilon * factor)
        return dataclasses.replace(self, rate=self.rate / factor)

    def of(self, library: Library) -> dict[str, Any]:
        """The class and the keywords in Keras 2.15 (NSL) or tf.train (CleverHans 3)."""
        keras = library == "nsl"
        named: dict[str, dict[str, Any]] = {
            "sgd": {"class": "SGD" if keras else "GradientDescentOptimizer"},
            "momentum": {
                "class": "SGD" if keras else "MomentumOptimizer",
                "momentum": self.momentum,
            },
            "adam": {
                "class": "Adam" if keras else "AdamOptimizer",
                **dict(zip(_BETAS[library], self.betas, strict=True)),
                "epsilon": self.epsilon,
            },
        }
        return {"learning_rate": self.rate, **named[self.name]}

    def in_torch(self, model: nn.Module, library: Library) -> torch.optim.Optimizer:
        """The optimizer of `torch.optim` that makes the same steps.

        Settings are rounded where the original holds them in float32, also in a float64 run.
        """
        parameters = [p for p in model.parameters() if p.requires_grad]
        rate = self.rate if library == "nsl" else _in_float32(self.rate)
        if self.name != "adam":
            momentum = _in_float32(self.momentum) if self.name == "momentum" else 0.0
            return torch.optim.SGD(parameters, rate, momentum=momentum)
        betas = self.betas
        if library == "cleverhans3":
            betas = (_in_float32(betas[0]), _in_float32(betas[1]))
        found = torch.optim.Adam(parameters, rate, betas=betas)
        found.register_step_pre_hook(_AsTensorFlow(self, library, rate, betas))
        return found


class _AsTensorFlow:
    """Sets epsilon and rate of `torch.optim.Adam` before each step, so that it is TensorFlow's.

    torch adds epsilon to the corrected root, `sqrt(v / (1 - beta2^t)) + eps`; TensorFlow to the
    root itself, which is torch's with `eps / sqrt(1 - beta2^t)`. And both originals correct with
    powers of the betas that went through float32: Keras rounds the betas first, TensorFlow 1
    holds the powers themselves so. The rate carries what that changes.
    """

    def __init__(
        self, settings: Optimizer, library: Library, rate: float, betas: tuple[float, float]
    ) -> None:
        self.rate, self.betas = rate, betas
        keras = library == "nsl"
        self.epsilon = settings.epsilon if keras else _in_float32(settings.epsilon)
        self.factors: list[Any] = [np.float32(beta) for beta in settings.betas]
        if keras:
            self.factors = [float(factor) for factor in self.factors]
        self.powers = list(self.factors)
        self.steps = 0

    def __call__(self, adam: torch.optim.Optimizer, *arguments: Any) -> None:
        """The hook."""
        self.steps += 1
        exact = [1 - beta**self.steps for beta in self.betas]
        held = [1 - float(power) for power in self.powers]
        for group in adam.param_groups:
            group["eps"] = self.epsilon / math.sqrt(exact[1])
            group["lr"] = self.rate * exact[0] / held[0] * math.sqrt(held[1] / exact[1])
        self.powers = [p * factor for p, factor in zip(self.powers, self.factors, strict=True)]


def _in_float32(value: float) -> float:
    return float(np.float32(value))
