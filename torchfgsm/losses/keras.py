"""Keras' losses with the names, parameters, order and values of `tf.keras.losses` (Keras 2.15).

Classes are in the last dimension, as in Keras.
"""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor

from torchfgsm.losses import formulas
from torchfgsm.losses.output_checks import look_at_output
from torchfgsm.losses.output_form import OutputForm

_REDUCTIONS = ("auto", "none", "sum", "sum_over_batch_size")


class KerasLoss(ABC):
    """What the Keras losses share: called `(y_true, y_pred, sample_weight=None)`, then reduced.

    Attributes:
        reduction: "sum_over_batch_size" ("auto" is the same) divides the weighted sum by the
            number of loss elements, not by the sum of the weights; "sum"; "none".
        name: kept, not used.
        squeezes: whether labels (B,) are taken for an output (B, 1), and the reverse, as Keras'
            loss objects do where both are tensors, such as in NSL. Its functions spread the two
            over (B, B).
        head: what makes probabilities of logits for this loss; None: it takes any numbers.
    """

    squeezes = False
    head: Literal["softmax", "sigmoid"] | None = None
    from_logits = False
    # The form of outputs whose head is put back before the loss, since it takes probabilities.
    _before: OutputForm | None = None
    # The loss of which this one is a copy.
    _origin: KerasLoss | None = None

    def __init__(self, reduction: str, name: str | None) -> None:
        if reduction not in _REDUCTIONS:
            raise ValueError(f"expected reduction among {_REDUCTIONS}, got {reduction!r}")
        self.reduction = reduction
        self.name = name

    def __call__(self, y_true: Any, y_pred: Tensor, sample_weight: Any = None) -> Tensor:
        """Returns the loss of a batch.

        Args:
            y_true: labels; each class says which shapes.
            y_pred: the model's output, (B, ...).
            sample_weight: a number, or (B,) or (B, 1) per example, or one per loss element; may
                be negative.

        Raises:
            TypeError: `y_pred` is not a floating-point tensor.
            ValueError: shapes do not fit, or a label is out of range.
        """
        losses, mask = self._weighted(y_true, y_pred, sample_weight)
        if self.reduction == "none":
            return losses
        total = losses.sum()
        if self.reduction == "sum" or not losses.numel():
            return total
        return total / (losses.numel() if mask is None else mask.sum().clamp(min=1))

    def over_all(self, y_true: Any, y_pred: Tensor, sample_weight: Any = None) -> Tensor:
        """Returns the loss of a batch as NSL takes it.

        A loss with a mean divides by the number of all elements, those of `ignore_class` included.
        """
        if self.reduction in ("none", "sum"):
            return self(y_true, y_pred, sample_weight)
        losses, _ = self._weighted(y_true, y_pred, sample_weight)
        return losses.sum() / max(losses.numel(), 1)

    def as_objects_take_labels(self) -> KerasLoss:
        """Returns the loss with `squeezes`."""
        found = self._copied()
        found.squeezes = True
        return found

    def following(self, form: OutputForm | None) -> KerasLoss:
        """Returns the loss for the outputs of a model that states their form.

        A model that gives logits had its softmax or sigmoid cut off. As Keras does behind such a
        layer, a cross-entropy takes the logits, whatever `from_logits` says, and a binary one
        those of a softmax, too; any other loss gets the probabilities that the layer would have
        made, and so does a loss that would not have found the logits. The loss itself stays as it
        is.
        """
        if form is None or form.values != "logits" or form.head is None:
            return self
        found = self._copied()
        if self.head is not None and not form.hidden:
            found.from_logits = True
        elif not self.from_logits:
            found._before = form
        return found

    def _copied(self) -> KerasLoss:
        found = copy.copy(self)
        found._origin = self._origin or self
        return found

    def _weighted(
        self, y_true: Any, y_pred: Tensor, sample_weight: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Weighted losses, 0 where they do not count, and 1 where they do (None: everywhere)."""
        if not isinstance(y_pred, Tensor) or not y_pred.is_floating_point():
            came = y_pred.dtype if isinstance(y_pred, Tensor) else type(y_pred).__name__
            raise TypeError(f"expected y_pred to be a floating-point tensor, got {came}")
        if self._before is not None:
            y_pred = self._before.probabilities(y_pred)
        losses, mask = self._elements(torch.as_tensor(y_true, device=y_pred.device), y_pred)
        if self._before is None and self.head is not None and not self.from_logits:
            self._look(y_pred)
        if sample_weight is not None:
            losses = losses * _aligned(sample_weight, losses)
        return (losses if mask is None else losses * mask), mask

    def _look(self, y_pred: Tensor) -> None:
        """Warns, once for this loss, where it takes logits or other numbers for probabilities."""
        look_at_output(
            self._origin or self,
            y_pred,
            None,
            probabilities=True,
            values=formulas.looks(y_pred, None),
            dim=getattr(self, "axis", -1),
            binary=self.head == "sigmoid",
        )

    def _same_shape(self, y_true: Tensor, y_pred: Tensor, hint: str) -> tuple[Tensor, Tensor]:
        """Labels and output in one shape; a last dimension of 1 too many goes, as in Keras."""
        if self.squeezes and y_true.shape == (*y_pred.shape, 1):
            return y_true.squeeze(-1), y_pred
        if self.squeezes and y_true.dim() and y_pred.shape == (*y_true.shape, 1):
            return y_true, y_pred.squeeze(-1)
        if y_true.shape != y_pred.shape or not y_pred.dim():
            raise ValueError(
                f"expected y_true and y_pred of one shape (B, ...), got y_true "
                f"{tuple(y_true.shape)} and y_pred {tuple(y_pred.shape)}; {hint}"
            )
        return y_true, y_pred

    @abstractmethod
    def _elements(self, y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns unreduced losses, and 1 where they count (None: everywhere)."""


class SparseCategoricalCrossentropy(KerasLoss):
    """Cross-entropy with integer labels, as `tf.keras.losses.SparseCategoricalCrossentropy`.

    `y_pred` is (B, ..., C), classes last; `y_true` is (B, ...) or (B, ..., 1), of integers or
    floats that hold integers. Probabilities are clipped to [1e-7, 1 - 1e-7], and the clipped ones
    are normalised again.

    Args:
        from_logits: whether `y_pred` holds logits, not probabilities.
        ignore_class: label of elements that do not count, or None.
        reduction: see `KerasLoss`.
        name: kept, not used.
    """

    head = "softmax"

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str = "sum_over_batch_size",
        name: str | None = "sparse_categorical_crossentropy",
    ) -> None:
        super().__init__(reduction, name)
        self.from_logits = from_logits
        self.ignore_class = ignore_class

    def _elements(self, y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor | None]:
        shape = y_pred.shape[:-1]
        if y_pred.dim() < 2 or y_true.shape not in (shape, (*shape, 1)):
            raise ValueError(
                f"expected y_true of y_pred's shape without its last dimension (the classes), got "
                f"y_true {tuple(y_true.shape)} and y_pred {tuple(y_pred.shape)}; for one-hot "
                "labels use CategoricalCrossentropy"
            )
        labels = y_true.to(torch.int64).reshape(shape)
        mask = None
        if self.ignore_class is not None:
            counts = labels != self.ignore_class
            labels, mask = labels * counts, counts
        formulas.check_label_range(labels, y_pred.shape[-1])
        if self.from_logits:
            return formulas.sparse_formula(y_pred, labels, -1), mask
        return formulas.sparse_probability_formula(y_pred, labels, -1), mask


class CategoricalCrossentropy(KerasLoss):
    """Cross-entropy with one-hot or soft labels, as `tf.keras.losses.CategoricalCrossentropy`.

    `y_true` and `y_pred` have one shape. The labels are used as they are, not normalised;
    probabilities are normalised, then clipped to [1e-7, 1 - 1e-7].

    Args:
        from_logits: whether `y_pred` holds logits, not probabilities.
        label_smoothing: part of each label that is spread evenly over the classes.
        axis: dimension of the classes.
        reduction: see `KerasLoss`.
        name: kept, not used.
    """

    head = "softmax"

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str = "sum_over_batch_size",
        name: str | None = "categorical_crossentropy",
    ) -> None:
        super().__init__(reduction, name)
        self.from_logits = from_logits
        self.label_smoothing = label_smoothing
        self.axis = axis

    def _elements(self, y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor | None]:
        hint = "for integer labels use SparseCategoricalCrossentropy"
        y_true, y_pred = self._same_shape(y_true, y_pred, hint)
        classes = y_pred.shape[self.axis]
        if classes == 1:
            warnings.warn(
                f"y_pred {tuple(y_pred.shape)} has one class, so the loss is constant: for a "
                "model of one output per example use BinaryCrossentropy",
                stacklevel=4,
            )
        target = y_true.to(y_pred.dtype)
        if self.label_smoothing:
            target = target * (1 - self.label_smoothing) + self.label_smoothing / classes
        formula = formulas.softmax_formula if self.from_logits else formulas.probability_formula
        return formula(y_pred, target, self.axis), None


class BinaryCrossentropy(KerasLoss):
    """Binary cross-entropy, as `tf.keras.losses.BinaryCrossentropy`.

    `y_true` and `y_pred` have one shape, whose dimension `axis` is averaged: (B, 1) gives (B,)
    losses. As in Keras, outputs of shape (B,) give one loss, their mean, which can take no
    weights per example and which "sum" leaves as it is. On a saturated right answer a small
    gradient of logits remains (2e-9 at logit 20), as in TensorFlow.

    Args:
        from_logits: whether `y_pred` holds logits, not probabilities.
        label_smoothing: part of each label that is moved to 1/2.
        axis: dimension over which the losses are averaged.
        reduction: see `KerasLoss`.
        name: kept, not used.
    """

    head = "sigmoid"

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str = "sum_over_batch_size",
        name: str | None = "binary_crossentropy",
    ) -> None:
        super().__init__(reduction, name)
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
        if self.from_logits:
            return formulas.sigmoid_formula(y_pred, target).mean(self.axis), None
        return formulas.sigmoid_probability_formula(y_pred, target).mean(self.axis), None


def _aligned(sample_weight: Any, losses: Tensor) -> Tensor:
    """Weights that broadcast against the losses, (B,) always being per example.

    Keras lines up weights whose rank is two or more below the losses' with the last dimension.
    """
    given = torch.as_tensor(sample_weight, device=losses.device).to(losses.dtype)
    weight = given
    if weight.dim() == losses.dim() + 1 and weight.shape[-1] == 1:
        weight = weight.squeeze(-1)
    if weight.dim():
        weight = weight.reshape(weight.shape + (1,) * (losses.dim() - weight.dim()))
        fits = weight.dim() == losses.dim() and all(
            w in (1, size) for w, size in zip(weight.shape, losses.shape, strict=True)
        )
        if not fits:
            raise ValueError(
                "expected sample_weight of shape (B,) or (B, 1) or that of the losses, got "
                f"{tuple(given.shape)} for losses {tuple(losses.shape)}"
            )
    return weight
