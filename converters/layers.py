"""The torch modules of converted graphs whose weights come in as arguments.

Weights belong to the model, not to these modules: one tensor stays one parameter however often
the graph uses it. Kinks differentiate as in TensorFlow. No module copies a value to the host.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


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


class Convolution(nn.Module):
    """ONNX Conv with explicit or SAME padding, in one to three dimensions."""

    def __init__(
        self,
        strides: Sequence[int] | None,
        dilations: Sequence[int] | None,
        groups: int,
        pads: Sequence[int] | str,
    ) -> None:
        super().__init__()
        self.strides, self.dilations, self.groups, self.pads = strides, dilations, groups, pads

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Convolves ``x`` (N, C, ...) with ``weight`` (O, C / groups, ...)."""
        rank = weight.dim() - 2
        strides = list(self.strides or [1] * rank)
        dilations = list(self.dilations or [1] * rank)
        pads = self.pads
        if isinstance(pads, str):
            extents = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
            pads = same_padding(x.shape[2:], extents, strides, pads)
        inside: Sequence[int] | int = 0
        if list(pads[:rank]) == list(pads[rank:]):
            inside = list(pads[:rank])
        else:
            x = F.pad(x, torch_padding(pads))
        return _CONV[rank](x, weight, bias, strides, inside, dilations, self.groups)


class AveragePool(nn.Module):
    """Average pooling whose padding may differ between the sides; padding does not count."""

    def __init__(
        self, kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int] | str, count: bool
    ) -> None:
        super().__init__()
        self.kernel, self.strides, self.pads, self.count = kernel, strides, pads, count

    def forward(self, x: Tensor) -> Tensor:
        """Pools ``x`` (N, C, ...)."""
        pool = _AVERAGE[len(self.kernel)]
        kernel, strides, pads = list(self.kernel), list(self.strides), self.pads
        if isinstance(pads, str):
            pads = same_padding(x.shape[2:], kernel, strides, pads)
        if not any(pads):
            return pool(x, kernel, strides)
        padding = torch_padding(pads)
        mean = pool(F.pad(x, padding), kernel, strides)
        if self.count:
            return mean
        ones = F.pad(torch.ones_like(x[:1, :1]), padding)
        return mean / pool(ones, kernel, strides)


class GlobalMaxPool(nn.Module):
    """Maximum over all positions; ties share the gradient, as in TensorFlow's reduce_max."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns (N, C, 1, ...) of ``x`` (N, C, ...)."""
        return torch.amax(x, dim=tuple(range(2, x.dim())), keepdim=True)


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


class Selu(nn.Module):
    """SELU, whose derivative at 0 is that of the positive side, as in TensorFlow."""

    def __init__(self, alpha: float, gamma: float) -> None:
        super().__init__()
        self.alpha, self.gamma = alpha, gamma

    def forward(self, x: Tensor) -> Tensor:
        """Applies SELU to ``x`` of any shape."""
        negative = torch.expm1(torch.clamp(x, max=0.0))
        return self.gamma * torch.where(x >= 0, x, self.alpha * negative)


class ThresholdedRelu(nn.Module):
    """x where x > alpha, else 0."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """Applies the threshold to ``x`` of any shape."""
        return torch.where(x > self.alpha, x, 0.0)


class PRelu(nn.Module):
    """x where x > 0, else slope * x, with any slope that broadcasts."""

    def forward(self, x: Tensor, slope: Tensor) -> Tensor:
        """Applies ``slope`` to the negative part of ``x``."""
        return F.relu(x) - slope * F.relu(-x)


class Reshape(nn.Module):
    """Reshape to a known shape: 0 keeps that dimension, -1 takes what is left."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``x`` in the shape."""
        return x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(self.shape)])


class Squeeze(nn.Module):
    """Removes dimensions of size one."""

    def __init__(self, axes: Sequence[int]) -> None:
        super().__init__()
        self.axes = tuple(axes)

    def forward(self, x: Tensor) -> Tensor:
        """Removes the axes from ``x``."""
        return torch.squeeze(x, self.axes)


class Unsqueeze(nn.Module):
    """Inserts dimensions of size one, at the places that they have in the result."""

    def __init__(self, axes: Sequence[int]) -> None:
        super().__init__()
        self.axes = tuple(axes)

    def forward(self, x: Tensor) -> Tensor:
        """Inserts the axes into ``x``."""
        rank = x.dim() + len(self.axes)
        for axis in sorted(axis % rank for axis in self.axes):
            x = x.unsqueeze(axis)
        return x


class ConstantPad(nn.Module):
    """Padding with one value; negative amounts crop."""

    def __init__(self, pads: Sequence[int], value: float) -> None:
        super().__init__()
        self.padding, self.value = torch_padding(pads), value

    def forward(self, x: Tensor) -> Tensor:
        """Pads ``x``."""
        return F.pad(x, self.padding, value=self.value)


def torch_padding(pads: Sequence[int]) -> list[int]:
    """Returns ONNX padding (all begins, all ends) in torch's order (last dimension first)."""
    half = len(pads) // 2
    return [n for i in reversed(range(half)) for n in (pads[i], pads[half + i])]


def same_padding(
    sizes: Sequence[int], extents: Sequence[int], strides: Sequence[int], side: str
) -> list[int]:
    """Returns ONNX padding for outputs of ceil(size / stride); SAME_UPPER pads the end more."""
    begins, ends = [], []
    for size, extent, stride in zip(sizes, extents, strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + extent - size, 0)
        less, more = total // 2, total - total // 2
        begins.append(less if side == "SAME_UPPER" else more)
        ends.append(more if side == "SAME_UPPER" else less)
    return begins + ends
