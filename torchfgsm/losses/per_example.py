"""Losses per example, (N,), in torch's layout: classes in dim 1."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfgsm.labels import is_single_logit
from torchfgsm.losses import formulas


def cross_entropy(output: Tensor, target: Tensor, *, validate: bool | None = None) -> Tensor:
    """Returns the loss of each example, (N,): the default loss of the attacks, torch's layout.

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
    kind = _kind(output, target)
    if kind == "binary":
        return formulas.sigmoid_formula(output, _binary_target(output, target, validate)).flatten()
    if kind == "soft":
        losses = F.cross_entropy(output, target.to(output.dtype), reduction="none")
    else:
        labels = target.to(torch.int64)
        formulas.check_label_range(labels, output.shape[1], validate)
        losses = F.cross_entropy(output, labels, reduction="none")
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
    kind = _kind(probabilities, target)
    if kind == "binary":
        target = _binary_target(probabilities, target, validate)
        return formulas.sigmoid_probability_formula(probabilities, target).flatten()
    if kind == "soft":
        losses = formulas.probability_formula(probabilities, target.to(probabilities.dtype), 1)
    else:
        labels = target.to(torch.int64)
        formulas.check_label_range(labels, probabilities.shape[1], validate)
        losses = formulas.sparse_probability_formula(probabilities, labels, 1)
    return losses.flatten(1).sum(1) if losses.dim() > 1 else losses


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


def _kind(output: Tensor, target: Tensor) -> str:
    """Tells "binary", "soft" or "labels" from shapes and dtypes, or refuses."""
    if not isinstance(output, Tensor) or not output.is_floating_point():
        came = output.dtype if isinstance(output, Tensor) else type(output).__name__
        raise TypeError(f"expected the output to be a floating-point tensor, got {came}")
    if not isinstance(target, Tensor):
        raise TypeError(f"expected the labels to be a tensor, got {type(target).__name__}")
    floats = target.is_floating_point()
    if is_single_logit(output):
        if target.shape in (output.shape[:1], (*output.shape[:1], 1)):
            return "binary"
        wanted = f"0/1 labels of shape {tuple(output.shape[:1])} or {(*output.shape[:1], 1)}"
    elif output.dim() < 2 or output.shape[1] == 1:
        wanted = "an output (N, C, ...) of at least two classes, (N,) or (N, 1)"
    elif floats and target.shape == output.shape:
        return "soft"
    elif not floats and target.shape == (*output.shape[:1], *output.shape[2:]):
        return "labels"
    else:
        wanted = (
            f"integer labels of shape {(*output.shape[:1], *output.shape[2:])} or float rows of "
            f"shape {tuple(output.shape)}"
        )
    raise ValueError(
        f"expected {wanted}; got labels {tuple(target.shape)} of {target.dtype} and an output "
        f"{tuple(output.shape)}; for another layout give a loss_fn"
    )


def _binary_target(output: Tensor, target: Tensor, validate: bool | None) -> Tensor:
    if not target.is_floating_point():
        formulas.check_label_range(target, 2, validate)
    return target.to(output.dtype).reshape(output.shape)
