"""Layers that act in training alone: dropout and its relatives, as Keras has them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfgsm.converters.ops.registry import Build, Built, NotHere, constant, given


class Dropout(nn.Dropout):
    """Dropout: each number is 0 with probability ``p``, and divided by 1 - p otherwise.

    Attributes:
        layer: the layer's name, "" where the model does not tell.
    """

    def __init__(self, p: float, layer: str = "") -> None:
        super().__init__(p)
        self.layer = layer


class Noise(nn.Module):
    """Noise that acts in training mode alone; the identity in eval mode.

    Args:
        layer: the layer's name.
        axes: axes of the input along which all numbers share one draw.
    """

    def __init__(self, layer: str = "", axes: Sequence[int] = ()) -> None:
        super().__init__()
        self.layer, self.axes = layer, tuple(axes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``x`` with noise in training mode."""
        return self.disturb(x) if self.training else x

    def disturb(self, x: Tensor) -> Tensor:
        """Returns ``x`` with noise."""
        raise NotImplementedError

    def ones(self, x: Tensor) -> Tensor:
        """Returns a one for each draw, in a shape that broadcasts to that of ``x``."""
        shared = {axis % x.dim() for axis in self.axes}
        return x.new_ones([1 if i in shared else n for i, n in enumerate(x.shape)])

    def extra_repr(self) -> str:
        """Shows the settings."""
        settings = {k: v for k, v in vars(self).items() if not k.startswith("_")}
        return ", ".join(f"{k}={v!r}" for k, v in settings.items() if k != "training")


class SharedDropout(Noise):
    """Dropout of whole slices: SpatialDropout, or a Dropout with a noise_shape."""

    def __init__(self, rate: float, layer: str = "", axes: Sequence[int] = ()) -> None:
        super().__init__(layer, axes)
        self.rate = rate

    def disturb(self, x: Tensor) -> Tensor:
        """Drops slices with probability ``rate`` and divides the others by 1 - rate."""
        return x * F.dropout(self.ones(x), self.rate)


class GaussianNoise(Noise):
    """x + N(0, stddev)."""

    def __init__(self, stddev: float, layer: str = "", axes: Sequence[int] = ()) -> None:
        super().__init__(layer, axes)
        self.stddev = stddev

    def disturb(self, x: Tensor) -> Tensor:
        """Adds noise of this standard deviation."""
        return x + torch.randn_like(self.ones(x)) * self.stddev


class GaussianDropout(Noise):
    """x * N(1, sqrt(rate / (1 - rate)))."""

    def __init__(self, rate: float, layer: str = "", axes: Sequence[int] = ()) -> None:
        super().__init__(layer, axes)
        self.rate = rate

    def disturb(self, x: Tensor) -> Tensor:
        """Multiplies by noise around 1."""
        stddev = math.sqrt(self.rate / (1 - self.rate))
        return x * (1 + torch.randn_like(self.ones(x)) * stddev)


class AlphaDropout(Noise):
    """Dropout to SELU's least value, which keeps mean and variance of standard normal inputs."""

    def __init__(self, rate: float, layer: str = "", axes: Sequence[int] = ()) -> None:
        super().__init__(layer, axes)
        self.rate = rate

    def disturb(self, x: Tensor) -> Tensor:
        """Drops with probability ``rate``, by Keras' formula."""
        least = -1.6732632423543772848170429916717 * 1.0507009873554804934193349852946
        scale = 1 / math.sqrt((1 - self.rate) * (1 + self.rate * least**2))
        kept = torch.rand_like(self.ones(x)) >= self.rate
        return scale * (torch.where(kept, x, least) - least * self.rate)


_KINDS: dict[str, Callable[..., Noise]] = {
    "AlphaDropout": AlphaDropout,
    "Dropout": SharedDropout,
    "GaussianDropout": GaussianDropout,
    "GaussianNoise": GaussianNoise,
}


def is_noise(module: nn.Module) -> bool:
    """Returns whether a module of a converted graph is one of these layers."""
    return isinstance(module, (Dropout, Noise))


def _dropout(node: Any, graph: Any) -> Built:
    names = node.input_values[:1]
    if any(node.output_values[1:]):
        raise NotHere
    if node.proto.doc_string.startswith("{"):
        return _from_trace(json.loads(node.proto.doc_string)), names
    if given(node, 1):
        return Dropout(float(constant(node, graph, 1))), names
    return Dropout(float(node.attributes.get("ratio", 0.5))), names


def _from_trace(settings: dict[str, Any]) -> nn.Module:
    """Returns the layer that the export left a description of."""
    kind = settings.pop("kind")
    if kind == "Dropout" and not settings.get("axes"):
        return Dropout(settings["rate"], settings.get("layer", ""))
    return _KINDS[kind](**settings)


BUILDERS: dict[str, Build] = {"Dropout": _dropout}
