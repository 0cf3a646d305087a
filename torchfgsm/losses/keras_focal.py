"""Keras' focal cross-entropies, as those of `losses.keras`."""

from __future__ import annotations

from torch import Tensor

from torchfgsm.losses import formulas
from torchfgsm.losses.keras import KerasLoss


class BinaryFocalCrossentropy(KerasLoss):
    """Binary cross-entropy that scales easy examples down.

    As `tf.keras.losses.BinaryFocalCrossentropy`; `y_true` and `y_pred` have one shape.

    Args:
        apply_class_balancing: whether class 1 counts `alpha` and class 0 the rest.
        alpha: weight of class 1.
        gamma: exponent of the factor `(1 - p)`, p being the right class' probability.
        from_logits: whether `y_pred` holds logits, not probabilities.
        label_smoothing: part of each label that is moved to 1/2.
        axis: dimension over which the losses are averaged.
        reduction: see `KerasLoss`.
        name: kept, not used.
    """

    head = "sigmoid"

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str = "sum_over_batch_size",
        name: str | None = "binary_focal_crossentropy",
    ) -> None:
        super().__init__(reduction, name)
        self.apply_class_balancing = apply_class_balancing
        self.alpha = alpha
        self.gamma = gamma
        self.from_logits = from_logits
        self.label_smoothing = label_smoothing
        self.axis = axis

    def _elements(self, y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor | None]:
        y_true, y_pred = self._same_shape(
            y_true, y_pred, "reshape the labels to the output's shape"
        )
        target = y_true.to(y_pred.dtype)
        if self.label_smoothing:
            target = target * (1 - self.label_smoothing) + 0.5 * self.label_smoothing
        p = y_pred.sigmoid() if self.from_logits else y_pred
        right = target * p + (1 - target) * (1 - p)
        formula = (
            formulas.sigmoid_formula if self.from_logits else formulas.sigmoid_probability_formula
        )
        losses = (1.0 - right) ** self.gamma * formula(y_pred, target)
        if self.apply_class_balancing:
            losses = (target * self.alpha + (1 - target) * (1 - self.alpha)) * losses
        return losses.mean(self.axis), None


class CategoricalFocalCrossentropy(KerasLoss):
    """Cross-entropy of one-hot labels that scales sure classes down.

    As `tf.keras.losses.CategoricalFocalCrossentropy`; `y_true` and `y_pred` have one shape.

    Args:
        alpha: weight of each class: a number, or one for each.
        gamma: exponent of the factor `(1 - p)`.
        from_logits: whether `y_pred` holds logits, not probabilities.
        label_smoothing: part of each label that is spread evenly over the classes.
        axis: dimension of the classes.
        reduction: see `KerasLoss`.
        name: kept, not used.
    """

    head = "softmax"

    def __init__(
        self,
        alpha: float | Tensor = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str = "sum_over_batch_size",
        name: str | None = "categorical_focal_crossentropy",
    ) -> None:
        super().__init__(reduction, name)
        self.alpha = alpha
        self.gamma = gamma
        self.from_logits = from_logits
        self.label_smoothing = label_smoothing
        self.axis = axis

    def _elements(self, y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor | None]:
        hint = "for integer labels use SparseCategoricalCrossentropy"
        y_true, y_pred = self._same_shape(y_true, y_pred, hint)
        target = y_true.to(y_pred.dtype)
        if self.label_smoothing:
            spread = self.label_smoothing / y_true.shape[-1]
            target = target * (1 - self.label_smoothing) + spread
        p = y_pred.softmax(self.axis) if self.from_logits else y_pred
        p = formulas.clipped(p / p.sum(self.axis, keepdim=True))
        losses = (1.0 - p) ** self.gamma * self.alpha * (-target * p.log())
        return losses.sum(self.axis), None
