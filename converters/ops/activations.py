"""Activations, with TensorFlow's derivative at their kinks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfgsm.converters.ops.registry import (
    Build,
    Built,
    Function,
    NotHere,
    constant,
    given,
    number,
)


class Extremum(nn.Module):
    """Element-wise maximum or minimum; at a tie the gradient goes to the first operand."""

    def __init__(self, largest: bool) -> None:
        super().__init__()
        self.largest = largest

    def forward(self, *tensors: Tensor) -> Tensor:
        """Combines the operands from left to right; NaN wins, as in TensorFlow."""
        result = tensors[0]
        for other in tensors[1:]:
            first = result >= other if self.largest else result <= other
            result = torch.where(first | result.isnan(), result, other)
        return result


class Clip(nn.Module):
    """x kept between two bounds, of which either may be missing.

    Args:
        low: the least value of the result.
        high: its largest value.
        flat_at_bounds: whether the derivative at a bound is 0, as in relu6, and not 1, as in
            clip_by_value.
    """

    def __init__(self, low: float | None, high: float | None, flat_at_bounds: bool) -> None:
        super().__init__()
        self.low, self.high, self.flat_at_bounds = low, high, flat_at_bounds

    def forward(self, x: Tensor) -> Tensor:
        """Clips ``x`` of any shape."""
        return clip(x, self.low, self.high, flat_at_bounds=self.flat_at_bounds)

    def extra_repr(self) -> str:
        """Shows the bounds."""
        return f"{self.low}, {self.high}, flat_at_bounds={self.flat_at_bounds}"


class StopGradient(nn.Module):
    """The identity, whose derivative is taken as 0."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``x`` without its history."""
        return x.detach()


def clip(
    x: Tensor, low: float | None, high: float | None, *, flat_at_bounds: bool = False
) -> Tensor:
    """Returns ``x`` between two bounds; see :class:`Clip`."""
    # The derivative of torch.clamp at its bounds differs between versions of torch.
    if low is not None:
        above = x > low if flat_at_bounds else x >= low
        x = torch.where(above, x, torch.clamp(x, min=low).detach())
    if high is not None:
        below = x < high if flat_at_bounds else x <= high
        x = torch.where(below, x, torch.clamp(x, max=high).detach())
    return x


def clip_by_tensors(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Returns ``x`` between bounds that the graph computes; at a bound all gradient goes to x."""
    if low is not None:
        x = torch.where(x >= low, x, low)
    return x if high is None else torch.where(x <= high, x, high)


def selu(x: Tensor, *, alpha: float, gamma: float) -> Tensor:
    """Returns SELU, whose derivative at 0 is that of the positive side, as in TensorFlow."""
    # The positive side's exponential is not used, and must not overflow.
    negative = torch.expm1(torch.where(x >= 0, 0.0, x))
    return gamma * torch.where(x >= 0, x, alpha * negative)


def thresholded_relu(x: Tensor, *, alpha: float) -> Tensor:
    """Returns x where x > alpha, else 0."""
    return torch.where(x > alpha, x, 0.0)


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """Returns x where x > 0, else slope * x, with any slope that broadcasts; flat at 0 as Keras."""
    return F.relu(x) - slope * F.relu(-x)


def hard_sigmoid(x: Tensor, *, alpha: float, beta: float) -> Tensor:
    """Returns alpha * x + beta between 0 and 1; its derivative at both is alpha, as in Keras 2."""
    return clip(alpha * x + beta, 0.0, 1.0)


def hard_swish(x: Tensor) -> Tensor:
    """Returns x * relu6(x + 3) / 6, differentiated in this form, as in Keras 3."""
    return x * F.relu6(x + 3.0) / 6.0


def softplus(x: Tensor) -> Tensor:
    """Returns log(1 + exp(x)), which torch's own softplus rounds to x above 20."""
    return -F.logsigmoid(-x)


def shrink(x: Tensor, *, threshold: float, bias: float) -> Tensor:
    """Returns x moved by ``bias`` towards 0 outside the threshold, 0 inside of it."""
    outside = torch.where(x > threshold, x - bias, 0.0)
    return torch.where(x < -threshold, x + bias, outside)


def _clip(node: Any, graph: Any) -> Built:
    kink = _trace(node)
    if kink == "StopGradient":
        return StopGradient(), node.input_values[:1]
    bounds: list[float | None] = []
    for i, name in ((1, "min"), (2, "max")):
        if name in node.attributes:
            bounds.append(number(node, name, 0.0))
            continue
        try:
            bounds.append(constant(node, graph, i) if given(node, i) else None)
        except NotHere:
            return Function(clip_by_tensors), node.input_values
    # Without a trace of ClipByValue, (0, 6) is a relu6: TensorFlow's and torch's both are flat.
    relu6 = bounds == [0, 6] and kink != "ClipByValue"
    return Clip(bounds[0], bounds[1], relu6), node.input_values[:1]


def _trace(node: Any) -> str | None:
    """Returns which TensorFlow operation a node was, where the export left a trace of it."""
    text = node.proto.doc_string
    return json.loads(text).get("kink") if text.startswith('{"kink"') else None


def _extremum(node: Any, graph: Any) -> Built:
    return Extremum(node.operation_type == "Max"), node.input_values


def _with(
    function: Callable[..., Tensor], names: dict[str, tuple[str, float]] | None = None
) -> Build:
    """Returns a builder; ``names`` are the function's settings: (ONNX attribute, default)."""

    def build(node: Any, graph: Any) -> Built:
        settings = {k: number(node, *attribute) for k, attribute in (names or {}).items()}
        return Function(function, **settings), node.input_values

    return build


def _gelu(node: Any, graph: Any) -> Built:
    approximate = node.attributes.get("approximate", "none")
    return Function(F.gelu, approximate=approximate), node.input_values


_ALPHA = {"alpha": ("alpha", 1.0)}

BUILDERS: dict[str, Build] = {
    "Celu": _with(F.celu, _ALPHA),
    "Clip": _clip,
    "Elu": _with(F.elu, _ALPHA),
    "Gelu": _gelu,
    "HardSigmoid": _with(hard_sigmoid, {"alpha": ("alpha", 0.2), "beta": ("beta", 0.5)}),
    "HardSwish": _with(hard_swish),
    "LeakyRelu": _with(F.leaky_relu, {"negative_slope": ("alpha", 0.01)}),
    "Max": _extremum,
    "Min": _extremum,
    "Mish": _with(F.mish),
    "PRelu": _with(prelu),
    "Relu": _with(F.relu),
    # The standard's values, which an exporter may leave out.
    "Selu": _with(
        selu, {"alpha": ("alpha", 1.6732632423543772), "gamma": ("gamma", 1.0507009873554805)}
    ),
    "Shrink": _with(shrink, {"threshold": ("lambd", 0.5), "bias": ("bias", 0.0)}),
    "Sigmoid": _with(torch.sigmoid),
    "Softplus": _with(softplus),
    "Softsign": _with(F.softsign),
    "Tanh": _with(torch.tanh),
    "ThresholdedRelu": _with(thresholded_relu, _ALPHA),
}
