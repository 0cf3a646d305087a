"""Small models drawn at random, as data for Keras and as torch modules with the same weights."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.conversions.twins import Array, Twin

_ACTIVATIONS = ("relu", "tanh", "sigmoid", "elu")
# How much steeper the last layer is than drawn: at 30 most probabilities round to 1.
_STEEPNESS = (1.0, 1.0, 1.0, 3.0, 10.0, 30.0)
_STEEPEST_EXACT = 4.0  # of models with weights of few bits


@dataclass(frozen=True)
class Architecture:
    """A model as data.

    Attributes:
        inputs: Name -> shape of one example; several inputs are vectors, which are joined.
        layers: What each layer is: "kind" ("dense", "conv" or "flatten"), and "name", "units",
            "activation" and, of convolutions, "padding".
        softmax: Whether Keras' model ends with the softmax that the originals' side cuts off.
        weights: Keras' weights, such as "layer1/kernel".
    """

    inputs: Mapping[str, tuple[int, ...]]
    layers: tuple[Mapping[str, Any], ...]
    softmax: bool
    weights: Mapping[str, Array]

    @property
    def classes(self) -> int:
        """The number of outputs."""
        units: int = self.layers[-1]["units"]
        return units

    @property
    def kinked(self) -> bool:
        """Whether there is a ReLU."""
        return any(layer.get("activation") == "relu" for layer in self.layers)

    @property
    def text(self) -> str:
        """What the model is, in a line."""
        parts = [
            layer["kind"] + "".join(f" {layer[k]}" for k in ("units", "activation") if k in layer)
            for layer in self.layers
        ]
        return f"{dict(self.inputs)}: {', '.join(parts)}"


def architecture(seed: int, index: int) -> Architecture:
    """The model of an index: a chain of dense layers, a small CNN, or one of two inputs."""
    rng = random.Random(f"model {seed} {index}")
    kind = rng.choice(["dense", "dense", "dense", "conv", "conv", "two inputs"])
    if kind == "conv":
        side, channels = rng.choice([5, 6]), rng.choice([1, 2, 3])
        inputs: dict[str, tuple[int, ...]] = {"x": (side, side, channels)}
        layers = [_layer(rng, "conv", rng.choice([2, 3, 4])) for _ in range(rng.choice([1, 2]))]
        layers.append({"kind": "flatten", "name": "flat"})
    else:
        names = ["x"] if kind == "dense" else ["left", "right"]
        inputs = {name: (rng.choice([2, 3, 5, 8, 16]),) for name in names}
        layers = []
    widths = [rng.choice([3, 4, 8, 16]) for _ in range(rng.choice([0, 1, 2]))]
    layers += [_layer(rng, "dense", width) for width in widths]
    layers.append({"kind": "dense", "units": rng.choice([2, 3, 5, 10]), "activation": "linear"})
    named = tuple({"name": f"layer{i}", **layer} for i, layer in enumerate(layers))
    weights = _weights(rng, np.random.default_rng([seed, index]), inputs, named)
    return Architecture(inputs, named, rng.random() < 0.5, weights)


def _layer(rng: random.Random, kind: str, units: int) -> dict[str, Any]:
    found = {"kind": kind, "units": units, "activation": rng.choice(_ACTIVATIONS)}
    return {**found, "padding": rng.choice(["same", "valid"])} if kind == "conv" else found


def _weights(
    rng: random.Random,
    numbers: np.random.Generator,
    inputs: Mapping[str, tuple[int, ...]],
    layers: tuple[Mapping[str, Any], ...],
) -> dict[str, Array]:
    """Normal weights, or ones of few bits, with which gradients tie and logits are equal."""
    coarse, steepness = rng.random() < 0.25, rng.choice(_STEEPNESS)
    biased = rng.random() < 0.7
    shape = next(iter(inputs.values()))
    if len(inputs) > 1:
        shape = (sum(vector[0] for vector in inputs.values()),)
    found: dict[str, Array] = {}
    for layer in layers:
        if layer["kind"] == "flatten":
            shape = (int(np.prod(shape)),)
            continue
        window = (3, 3) if layer["kind"] == "conv" else ()
        size = (*window, shape[-1], layer["units"])
        kernel = numbers.standard_normal(size) * np.sqrt(2 / np.prod(size[:-1]))
        bias = 0.3 * biased * numbers.standard_normal(layer["units"])
        if coarse:
            kernel, bias = np.round(4 * kernel) / 4, np.round(4 * bias) / 4
        if layer is layers[-1]:
            steepness = min(steepness, _STEEPEST_EXACT) if coarse else steepness
            kernel, bias = steepness * kernel, steepness * bias
        found[f"{layer['name']}/kernel"] = kernel.astype(np.float32)
        found[f"{layer['name']}/bias"] = bias.astype(np.float32)
        less = 2 if layer.get("padding") == "valid" else 0
        shape = (*(extent - less for extent in shape[:-1]), layer["units"])
    return found


class Drawn(Twin):
    """The torch module of an architecture: logits of images (N, H, W, C) or of vectors."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.input_names = tuple(architecture.inputs)
        self.output_names = ("logits",)
        self._layers = architecture.layers
        for layer in self._layers:
            if layer["kind"] == "flatten":
                continue
            size = architecture.weights[f"{layer['name']}/kernel"].shape
            made: nn.Module = nn.Linear(size[0], size[1])
            if layer["kind"] == "conv":
                made = nn.Conv2d(size[2], size[3], 3, padding=layer["padding"])
            self.add_module(layer["name"], made)
        self.take(architecture.weights)

    def forward(self, *inputs: Tensor) -> Tensor:
        """The logits (N, classes)."""
        flow = torch.cat(inputs, dim=1)
        for layer in self._layers:
            if layer["kind"] == "flatten":
                flow = flow.flatten(1)
                continue
            images = layer["kind"] == "conv"
            flow = flow.permute(0, 3, 1, 2) if images else flow
            flow = self.get_submodule(layer["name"])(flow)
            flow = flow.permute(0, 2, 3, 1) if images else flow
            if layer["activation"] != "linear":
                activation = getattr(nn.functional, layer["activation"], None)
                flow = (activation or getattr(torch, layer["activation"]))(flow)
        return flow

    def keras_arrays(self, tensors: Mapping[str, Tensor]) -> dict[str, Array]:
        """Arrays of tensors that are named as the parameters, in Keras' names and order of axes."""
        axes: Mapping[int, tuple[int, ...]] = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}
        found = {}
        for name, tensor in tensors.items():
            layer, leaf = name.split(".")[-2:]
            leaf = "kernel" if leaf == "weight" else leaf
            array = tensor.detach().numpy()
            found[f"{layer}/{leaf}:0"] = array.transpose(axes[array.ndim])
        return found


class Probabilities(nn.Module):
    """A drawn model with the softmax at its end."""

    def __init__(self, logits: Drawn) -> None:
        super().__init__()
        self.logits = logits
        self.input_names, self.output_names = logits.input_names, ("probabilities",)

    def forward(self, *inputs: Tensor) -> Tensor:
        """The probabilities (N, classes)."""
        return torch.softmax(self.logits(*inputs), dim=1)

    def keras_arrays(self, tensors: Mapping[str, Tensor]) -> dict[str, Array]:
        """As of the drawn model."""
        return self.logits.keras_arrays(tensors)
