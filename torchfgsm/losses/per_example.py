"""Losses per example, (N,): torch's layout, classes in dim 1, or the form that a model states.

The default loss of an attack is one of them, by the form of the output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfgsm.losses import formulas
from torchfgsm.losses.labels import binary_shapes, no_classes
from torchfgsm.losses.output_form import OutputForm, class_dim, is_binary, is_single_logit


def cross_entropy(output: Tensor, target: Tensor, *, validate: bool | None = None) -> Tensor:
    """Returns the loss of each example, (N,), torch's layout.

    The loss elements of an example (the positions of a segmentation) are summed, so that its
    gradient does not depend on the rest of the batch.

    Args:
        output: logits (N, C, ...), or (N,) or (N, 1), the logit of a binary model.
        target: integer labels (N, ...); or one-hot or soft rows in the output's shape, floats,
            used as they are, not normalised; or 0, 1 or a probability for each example of a
            binary model, (N,) or (N, 1), integers or floats.
        validate: whether the range of labels is checked; None: on CPU tensors only.

    Raises:
        TypeError: `output` is not a floating-point tensor, or `target` is not a tensor.
        ValueError: shapes or dtypes that do not fit, or a label out of range.
    """
    losses = elements(output, target, validate=validate)
    return losses.flatten(1).sum(1) if losses.dim() > 1 else losses


def probability_cross_entropy(
    probabilities: Tensor, target: Tensor, *, validate: bool | None = None
) -> Tensor:
    """Returns the loss of each example, (N,), from probabilities, clipped as Keras clips them.

    Args:
        probabilities: (N, C, ...), or (N,) or (N, 1) for a binary model.
        target: as for `cross_entropy`.
        validate: as for `cross_entropy`.

    Raises:
        TypeError: as for `cross_entropy`.
        ValueError: as for `cross_entropy`.
    """
    losses = elements(probabilities, target, probabilities=True, validate=validate)
    return losses.flatten(1).sum(1) if losses.dim() > 1 else losses


def elements(
    output: Tensor,
    target: Tensor,
    form: OutputForm | None = None,
    *,
    probabilities: bool = False,
    ignore_index: int | None = None,
    validate: bool | None = None,
) -> Tensor:
    """Returns the loss of each example, position or number: the default loss of the attacks.

    Args:
        output: as for `cross_entropy`, or in the form that the model states. Where each number is
            a yes or no of its own, the loss is the binary one of each.
        target: as for `cross_entropy`, in the output's own layout.
        form: what the model states of its output; None: torch's layout.
        probabilities: whether the output holds probabilities, which are clipped as Keras' are.
        ignore_index: a label whose positions have a loss of 0.
        validate: as for `cross_entropy`.

    Raises:
        TypeError: as for `cross_entropy`.
        ValueError: as for `cross_entropy`.
    """
    kind = _kind(output, target, form)
    counts = None
    if ignore_index is not None and kind != "soft":
        counts = target != ignore_index
        target = torch.where(counts, target, 0)
    if kind == "binary":
        target = _binary_target(output, target, validate)
        formula = (
            formulas.sigmoid_probability_formula if probabilities else formulas.sigmoid_formula
        )
        losses = formula(output, target)
        losses = losses.flatten() if is_single_logit(output) else losses
    else:
        losses = _of_classes(output, target, class_dim(output, form), kind, probabilities, validate)
    return losses if counts is None else torch.where(counts.reshape(losses.shape), losses, 0.0)


def _of_classes(
    output: Tensor, target: Tensor, dim: int, kind: str, probabilities: bool, validate: bool | None
) -> Tensor:
    """Returns the losses of one class of several, in the output's shape without the classes."""
    if dim != 1:
        output = output.movedim(dim, 1)
        target = target.movedim(dim, 1) if kind == "soft" else target
    if kind == "soft":
        target = target.to(output.dtype)
    else:
        target = target.to(torch.int64)
        formulas.check_label_range(target, output.shape[1], validate)
    if not probabilities:
        return F.cross_entropy(output, target, reduction="none")
    if kind == "soft":
        return formulas.probability_formula(output, target, 1)
    return formulas.sparse_probability_formula(output, target, 1)


def softmax_cross_entropy(labels: Tensor, logits: Tensor) -> Tensor:
    """Returns the loss of each example, (N,), as CleverHans 3's: rows (N, C) as labels.

    Value and gradient are TensorFlow's; the labels get no gradient.

    Raises:
        ValueError: labels and logits do not have one shape (N, C).
    """
    if logits.dim() != 2 or labels.shape != logits.shape:
        raise ValueError(
            "expected one-hot or soft labels (N, C) in the shape of the logits, got labels "
            f"{tuple(labels.shape)} and logits {tuple(logits.shape)}"
        )
    return formulas.softmax_formula(logits, labels.to(logits.dtype), 1)


def sparse_softmax_cross_entropy(labels: Tensor, logits: Tensor) -> Tensor:
    """Returns the loss of each example, (N,), as CleverHans 4's for TensorFlow: integer labels.

    Raises:
        ValueError: labels are not integers (N,) for logits (N, C), or are out of range.
    """
    integer = not (labels.is_floating_point() or labels.is_complex())
    if logits.dim() != 2 or labels.shape != logits.shape[:1] or not integer:
        raise ValueError(
            "expected integer labels (N,) for logits (N, C), got labels "
            f"{tuple(labels.shape)} of {labels.dtype} and logits {tuple(logits.shape)}"
        )
    labels = labels.to(torch.int64)
    formulas.check_label_range(labels, logits.shape[1])
    return formulas.sparse_formula(logits, labels, 1)


def _kind(output: Tensor, target: Tensor, form: OutputForm | None) -> str:
    """Tells "binary", "soft" or "labels" from shapes, dtypes and form, or refuses."""
    if not isinstance(output, Tensor) or not output.is_floating_point():
        came = output.dtype if isinstance(output, Tensor) else type(output).__name__
        raise TypeError(f"expected the output to be a floating-point tensor, got {came}")
    if not isinstance(target, Tensor):
        raise TypeError(f"expected the labels to be a tensor, got {type(target).__name__}")
    floats, shape = target.is_floating_point(), tuple(output.shape)
    if is_binary(output, form):
        shapes = binary_shapes(output, form)
        if tuple(target.shape) in shapes:
            return "binary"
        wanted = f"0/1 labels of shape {' or '.join(map(str, shapes))}"
        if not is_single_logit(output):
            wanted += ", since each number of this model's output is a yes or no of its own"
    elif output.dim() < 2 or shape[class_dim(output, form)] == 1:
        wanted = "an output (N, C, ...) of at least two classes, (N,) or (N, 1)"
    else:
        dim = class_dim(output, form)
        places = (*shape[:dim], *shape[dim + 1 :])
        if floats and tuple(target.shape) == shape:
            return "soft"
        if not floats and tuple(target.shape) == places:
            return "labels"
        wanted = f"integer labels of shape {places} or float rows of shape {shape}"
    raise ValueError(
        f"expected {wanted}; got labels {tuple(target.shape)} of {target.dtype} and an output "
        f"{shape}; for another layout give a loss_fn{_hint(output, form)}"
    )


def _hint(output: Tensor, form: OutputForm | None) -> str:
    if form is not None or output.dim() < 3:
        return ""
    return (
        ". Classes are in dim 1, as in torch; a model that has them elsewhere states it: "
        "model.output_form = torchfgsm.OutputForm(class_dim=-1), and head='sigmoid' where each "
        "number is a yes or no of its own"
    )


def _binary_target(output: Tensor, target: Tensor, validate: bool | None) -> Tensor:
    if not target.is_floating_point():
        formulas.check_label_range(target, 2, validate)
    elif formulas.looks(target, validate) and not bool(((target >= 0) & (target <= 1)).all()):
        raise ValueError(
            f"expected 0, 1 or probabilities for an output of one number, the logit of a binary "
            f"model, got labels from {float(target.min()):g} to {float(target.max()):g}; for a "
            "regression give a loss_fn, such as torch.nn.functional.mse_loss"
        )
    return target.to(output.dtype).reshape(output.shape)


# Not frozen: torch 2.9 finds no attribute of a frozen one that is made while it compiles.
@dataclass
class DefaultLoss:
    """Cross-entropy; called `(output, y)` it gives the losses of examples, positions or numbers.

    Attributes:
        model_output: "logits" or "probabilities": what the output is taken for.
        form: What the model states of its output. Logits are never taken for probabilities.
        values: Whether labels are looked at.
        ignore_index: A label whose positions have a loss of 0.
    """

    model_output: str
    form: OutputForm | None = None
    values: bool = True
    ignore_index: int | None = None

    @property
    def probabilities(self) -> bool:
        """Whether the output is taken for probabilities.

        As behind a softmax layer in Keras, the logits are used where the model gives them.
        """
        known = self.form is not None and self.form.values == "logits"
        return self.model_output == "probabilities" and not known

    def __call__(self, output: Tensor, y: Any) -> Tensor:
        """The losses, (N,) or (N, ...).

        Raises:
            TypeError: Labels that are not a tensor.
            ValueError: Labels that do not fit the output.
        """
        return elements(
            output,
            y,
            self.form,
            probabilities=self.probabilities,
            ignore_index=self.ignore_index,
            validate=self.values,
        )

    def refuse_no_classes(self, output: Tensor, y: Any) -> None:
        """Refuses labels of the right shape that are no classes.

        Raises:
            ValueError: Targets outside of [0, 1], or rows that do not add up to 1.
        """
        reason = no_classes(y, output, self.form) if self.values else None
        if reason is not None:
            raise ValueError(
                f"the default loss is the cross-entropy of classes, and {reason}: give a loss_fn, "
                "such as torch.nn.functional.binary_cross_entropy_with_logits for several labels, "
                "mse_loss for a regression, or torchfgsm.losses.cross_entropy to take rows as they "
                "are"
            )
