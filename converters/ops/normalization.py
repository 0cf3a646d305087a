"""Normalisation: BatchNormalization as Keras trains it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfgsm.converters.ops.registry import Build, Built, Function, number, refuse


class KerasBatchNorm(nn.Module):
    """BatchNormalization as Keras trains it; mean and variance are updated in place.

    moving = momentum * moving + (1 - momentum) * batch, with the variance of the batch biased
    (Keras 3, and Keras 2 for dense layers) or with Bessel's correction (the fused kernel of
    Keras 2). A frozen layer normalises with its moving statistics in training, too.

    Args:
        epsilon: added to the variance.
        momentum: share of the old statistics that stays.
        unbiased: whether the moving variance takes the batch's with Bessel's correction.
        frozen: whether the layer is not trainable.
    """

    def __init__(self, epsilon: float, momentum: float, unbiased: bool, frozen: bool) -> None:
        super().__init__()
        self.epsilon, self.momentum = epsilon, momentum
        self.unbiased, self.frozen = unbiased, frozen

    def forward(self, x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        """Normalises ``x`` (N, C, ...) over its channels."""
        if not self.training or self.frozen:
            return F.batch_norm(x, mean, var, gamma, beta, False, 0.0, self.epsilon)
        with torch.no_grad():
            axes = [0, *range(2, x.dim())]
            # One value for each channel has no Bessel correction in TensorFlow either.
            corrected = self.unbiased and x.numel() > x.shape[1]
            batch_var, batch_mean = torch.var_mean(x, axes, correction=int(corrected))
            mean.lerp_(batch_mean, 1 - self.momentum)
            var.lerp_(batch_var, 1 - self.momentum)
        enabled = torch.backends.cudnn.enabled
        # F.batch_norm refuses a batch with one value for each channel; Keras returns beta.
        return torch.batch_norm(x, gamma, beta, None, None, True, 0.0, self.epsilon, enabled)

    def extra_repr(self) -> str:
        """Shows the settings."""
        return (
            f"epsilon={self.epsilon:g}, momentum={self.momentum:g}, "
            f"unbiased={self.unbiased}, frozen={self.frozen}"
        )


class ComputedBatchNorm(nn.Module):
    """Normalisation with statistics that the graph computes (Keras 2 LayerNormalization)."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        """Normalises ``x`` (N, C, ...); gradients flow into the statistics."""
        shape = (1, -1) + (1,) * (x.dim() - 2)
        scale = torch.rsqrt(var + self.epsilon) * gamma
        return (x - mean.reshape(shape)) * scale.reshape(shape) + beta.reshape(shape)


def layer_norm(
    x: Tensor, scale: Tensor, bias: Tensor | None = None, *, axis: int, epsilon: float
) -> Tensor:
    """Normalises ``x`` over all axes from ``axis`` on."""
    shape = x.shape[axis:]
    bias = None if bias is None else bias.expand(shape)
    return F.layer_norm(x, shape, scale.expand(shape), bias, epsilon)


def group_norm(
    x: Tensor, scale: Tensor, bias: Tensor, *, groups: int | None, epsilon: float
) -> Tensor:
    """Normalises ``x`` (N, C, ...) over groups of channels, by default each channel alone.

    Scale and bias have one number for each channel, or for each group as before opset 21.
    """
    channels = x.shape[1]
    groups = groups or channels
    if len(scale) != channels:
        scale, bias = (t.repeat_interleave(channels // groups) for t in (scale, bias))
    # F.group_norm refuses one number for each group; ONNX returns the bias.
    return torch.group_norm(x, groups, scale, bias, epsilon)


def lp_norm(x: Tensor, *, axis: int, p: int) -> Tensor:
    """Divides ``x`` by its norm along an axis; where that is 0 the result is 0, too."""
    # The root of the sum would have no finite derivative at 0.
    power = (x * x if p == 2 else x.abs()).sum(axis, keepdim=True)
    power = torch.where(power == 0, 1.0, power)
    return x / (power.sqrt() if p == 2 else power)


def local_response_norm(x: Tensor, *, size: int, alpha: float, beta: float, bias: float) -> Tensor:
    """Divides ``x`` (N, C, ...) by a power of the squares of ``size`` channels around each."""
    return F.local_response_norm(x, size, alpha, beta, bias)


def _layer_norm(node: Any, graph: Any) -> Built:
    if any(node.output_values[1:]):
        refuse(node, "expected one output, not also the mean and the deviation")
    axis, epsilon = node.attributes.get("axis", -1), number(node, "epsilon", 1e-5)
    names = tuple(name for name in node.input_values if name)
    return Function(layer_norm, axis=axis, epsilon=epsilon), names


def _group_norm(node: Any, graph: Any) -> Built:
    groups = node.attributes.get("num_groups")
    epsilon = number(node, "epsilon", 1e-5)
    return Function(group_norm, groups=groups, epsilon=epsilon), node.input_values


def _lp_norm(node: Any, graph: Any) -> Built:
    axis, p = node.attributes.get("axis", -1), node.attributes.get("p", 2)
    return Function(lp_norm, axis=axis, p=p), node.input_values


def _local_response_norm(node: Any, graph: Any) -> Built:
    size = node.attributes["size"]
    if size % 2 == 0:
        refuse(node, f"expected an odd size, got {size}")
    defaults = {"alpha": 1e-4, "beta": 0.75, "bias": 1.0}
    settings = {name: number(node, name, default) for name, default in defaults.items()}
    return Function(local_response_norm, size=size, **settings), node.input_values


BUILDERS: dict[str, Build] = {
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _group_norm,
    "LRN": _local_response_norm,
    "LayerNormalization": _layer_norm,
    "LpNormalization": _lp_norm,
}


def batch_norm(node: Any, graph: Any, settings: Mapping[str, Mapping[str, Any]]) -> Built:
    """Builds a BatchNormalization; ``settings`` are those of training, by its moving mean.

    Raises:
        ConversionError: the node computes the statistics of the batch, as in training.
    """
    if node.attributes.get("training_mode") or any(node.output_values[1:]):
        refuse(node, "it is in training mode; export the model in inference mode")
    epsilon = number(node, "epsilon", 1e-5)
    mean = node.input_values[3]
    if mean in settings:
        s = settings[mean]
        module: nn.Module = KerasBatchNorm(epsilon, s["momentum"], s["unbiased"], s["frozen"])
    elif mean in graph.initializers or mean in graph.input_values:
        module = KerasBatchNorm(epsilon, 1.0, unbiased=False, frozen=True)
    else:
        module = ComputedBatchNorm(epsilon)
    return module, node.input_values
