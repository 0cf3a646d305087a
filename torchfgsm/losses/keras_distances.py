"""Keras' losses of distances, margins and distributions, as those of `losses.keras`.

Ties go where TensorFlow's gradients go: a maximum of two equal numbers to the first of them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfgsm.losses.keras import KerasLoss

_EPSILON = 1e-7
_GUARD = 1e-12


class _Pointwise(KerasLoss):
    """What losses of labels in the output's shape share: the labels' shape and dtype."""

    def _elements(self, y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor | None]:
        y_true, y_pred = self._same_shape(
            y_true, y_pred, "reshape the labels to the output's shape"
        )
        return self._each(y_true.to(y_pred.dtype), y_pred), None

    def _each(self, target: Tensor, output: Tensor) -> Tensor:
        """The losses, without the last dimension."""
        raise NotImplementedError


class MeanSquaredError(_Pointwise):
    """Mean of squared differences over the last dimension, as `tf.keras.losses.MeanSquaredError`.

    `y_true` and `y_pred` have one shape.

    Args:
        reduction: see `KerasLoss`.
        name: kept, not used.
    """

    def __init__(
        self, reduction: str = "sum_over_batch_size", name: str | None = "mean_squared_error"
    ) -> None:
        super().__init__(reduction, name)

    def _each(self, target: Tensor, output: Tensor) -> Tensor:
        return (output - target).square().mean(-1)


class MeanAbsoluteError(_Pointwise):
    """Mean of absolute differences, as `tf.keras.losses.MeanAbsoluteError`.

    Args:
        reduction: see `KerasLoss`.
        name: kept, not used.
    """

    def __init__(
        self, reduction: str = "sum_over_batch_size", name: str | None = "mean_absolute_error"
    ) -> None:
        super().__init__(reduction, name)

    def _each(self, target: Tensor, output: Tensor) -> Tensor:
        return (output - target).abs().mean(-1)


class MeanAbsolutePercentageError(_Pointwise):
    """As `tf.keras.losses.MeanAbsolutePercentageError`: in percent, labels at least 1e-7.

    Args:
        reduction: see `KerasLoss`.
        name: kept, not used.
    """

    def __init__(
        self,
        reduction: str = "sum_over_batch_size",
        name: str | None = "mean_absolute_percentage_error",
    ) -> None:
        super().__init__(reduction, name)

    def _each(self, target: Tensor, output: Tensor) -> Tensor:
        return 100.0 * ((target - output) / target.abs().clamp(min=_EPSILON)).abs().mean(-1)


class MeanSquaredLogarithmicError(_Pointwise):
    """As `tf.keras.losses.MeanSquaredLogarithmicError`: of log(1 + v), v at least 1e-7.

    Args:
        reduction: see `KerasLoss`.
        name: kept, not used.
    """

    def __init__(
        self,
        reduction: str = "sum_over_batch_size",
        name: str | None = "mean_squared_logarithmic_error",
    ) -> None:
        super().__init__(reduction, name)

    def _each(self, target: Tensor, output: Tensor) -> Tensor:
        first, second = (_at_least(v, _EPSILON).add(1.0).log() for v in (output, target))
        return (first - second).square().mean(-1)


class Huber(_Pointwise):
    """Half the square of a difference up to `delta`, linear beyond, as `tf.keras.losses.Huber`.

    Args:
        delta: where it becomes linear.
        reduction: see `KerasLoss`.
        name: kept, not used.
    """

    def __init__(
        self,
        delta: float = 1.0,
        reduction: str = "sum_over_batch_size",
        name: str | None = "huber_loss",
    ) -> None:
        super().__init__(reduction, name)
        self.delta = delta

    def _each(self, target: Tensor, output: Tensor) -> Tensor:
        error = output - target
        size = error.abs()
        linear = self.delta * size - 0.5 * self.delta**2
        return torch.where(size <= self.delta, 0.5 * error.square(), linear).mean(-1)


class LogCosh(_Pointwise):
    """Logarithm of the hyperbolic cosine of differences, as `tf.keras.losses.LogCosh`.

    Args:
        reduction: see `KerasLoss`.
        name: kept, not used.
    """

    def __init__(
        self, reduction: str = "sum_over_batch_size", name: str | None = "log_cosh"
    ) -> None:
        super().__init__(reduction, name)

    def _each(self, target: Tensor, output: Tensor) -> Tensor:
        error = output - target
        # -logsigmoid(2 e) is softplus(-2 e), which torch cuts off at 20.
        return (error - F.logsigmoid(2.0 * error) - math.log(2.0)).mean(-1)


class Hinge(_Pointwise):
    """As `tf.keras.losses.Hinge`: labels -1 and 1, or a batch of 0 and 1 alone.

    Args:
        reduction: see `KerasLoss`.
        name: kept, not used.
    """

    def __init__(self, reduction: str = "sum_over_batch_size", name: str | None = "hinge") -> None:
        super().__init__(reduction, name)

    def _each(self, target: Tensor, output: Tensor) -> Tensor:
        return _margin(target, output).mean(-1)


class SquaredHinge(_Pointwise):
    """The square of `Hinge`'s margins, as `tf.keras.losses.SquaredHinge`.

    Args:
        reduction: see `KerasLoss`.
        name: kept, not used.
    """

    def __init__(
        self, reduction: str = "sum_over_batch_size", name: str | None = "squared_hinge"
    ) -> None:
        super().__init__(reduction, name)

    def _each(self, target: Tensor, output: Tensor) -> Tensor:
        return _margin(target, output).square().mean(-1)


class CategoricalHinge(_Pointwise):
    """As `tf.keras.losses.CategoricalHinge`: one-hot labels.

    Args:
        reduction: see `KerasLoss`.
        name: kept, not used.
    """

    def __init__(
        self, reduction: str = "sum_over_batch_size", name: str | None = "categorical_hinge"
    ) -> None:
        super().__init__(reduction, name)

    def _each(self, target: Tensor, output: Tensor) -> Tensor:
        right = (target * output).sum(-1)
        wrong = ((1.0 - target) * output).amax(-1)
        return _at_least(wrong - right + 1.0, 0.0)


class KLDivergence(_Pointwise):
    """As `tf.keras.losses.KLDivergence`: of probabilities, both at least 1e-7 and at most 1.

    Args:
        reduction: see `KerasLoss`.
        name: kept, not used.
    """

    def __init__(
        self, reduction: str = "sum_over_batch_size", name: str | None = "kl_divergence"
    ) -> None:
        super().__init__(reduction, name)

    def _each(self, target: Tensor, output: Tensor) -> Tensor:
        p, q = (-_at_least(-_at_least(v, _EPSILON), -1.0) for v in (target, output))
        return (p * (p / q).log()).sum(-1)


class Poisson(_Pointwise):
    """As `tf.keras.losses.Poisson`: `y_pred - y_true * log(y_pred + 1e-7)`.

    Args:
        reduction: see `KerasLoss`.
        name: kept, not used.
    """

    def __init__(
        self, reduction: str = "sum_over_batch_size", name: str | None = "poisson"
    ) -> None:
        super().__init__(reduction, name)

    def _each(self, target: Tensor, output: Tensor) -> Tensor:
        return (output - target * (output + _EPSILON).log()).mean(-1)


class CosineSimilarity(_Pointwise):
    """The cosine less than 0 where they point the same way, as `tf.keras.losses.CosineSimilarity`.

    Args:
        axis: dimension of the vectors.
        reduction: see `KerasLoss`.
        name: kept, not used.
    """

    def __init__(
        self,
        axis: int = -1,
        reduction: str = "sum_over_batch_size",
        name: str | None = "cosine_similarity",
    ) -> None:
        super().__init__(reduction, name)
        self.axis = axis

    def _each(self, target: Tensor, output: Tensor) -> Tensor:
        return -(self._unit(target) * self._unit(output)).sum(self.axis)

    def _unit(self, values: Tensor) -> Tensor:
        squares = values.square().sum(self.axis, keepdim=True)
        return values * _at_least(squares, _GUARD).rsqrt()


def _at_least(values: Tensor, low: float) -> Tensor:
    """The maximum, whose gradient at a tie is that of `values`."""
    return torch.where(values >= low, values, low)


def _margin(target: Tensor, output: Tensor) -> Tensor:
    binary = ((target == 0) | (target == 1)).all()
    return _at_least(1.0 - torch.where(binary, 2.0 * target - 1.0, target) * output, 0.0)
