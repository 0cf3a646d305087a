"""Labels of an attack's loss: those given, checked, or else the model's own prediction."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from torchfgsm.losses.output_form import OutputForm, class_dim, is_binary, is_single_logit
from torchfgsm.models.features import Features

__all__ = ["check_labels", "class_numbers", "is_single_logit", "no_classes", "predicted_labels"]


def predicted_labels(
    output: Tensor,
    ties: Literal["first", "shared"] = "first",
    *,
    probabilities: bool = False,
    form: OutputForm | None = None,
) -> Tensor:
    """The model's own prediction, without gradient.

    Args:
        output: Logits or probabilities (N, classes, ...); (N,) or (N, 1) is the logit of a binary
            model.
        ties: With several equal maxima, "first": the first class, as `argmax`; "shared": a
            probability of 1 / count on each of them, ties being those of the softmax
            (CleverHans 3's `get_or_guess_labels`).
        probabilities: Whether a binary model's output is a probability rather than a logit.
        form: What the model states of its output, such as classes in the last dimension.

    Returns:
        Integer labels (N, ...), the output's shape without the classes; for "shared", rows of
        probabilities in the output's shape. Where each number is a yes or no of its own, 0 or 1 in
        the output's shape and dtype.
    """
    output = output.detach()
    if is_binary(output, form):
        return (output > (0.5 if probabilities else 0.0)).to(output.dtype)
    dim = class_dim(output, form)
    if ties == "first":
        return output.argmax(dim=dim)
    rows = output.softmax(dim=dim)
    # Their shares are float32 numbers in the original, in float64 as well.
    largest = (rows == rows.amax(dim=dim, keepdim=True)).float()
    return (largest / largest.sum(dim=dim, keepdim=True)).to(output.dtype)


def class_numbers(y: Any, output: Tensor, form: OutputForm | None = None) -> Tensor:
    """Labels as class numbers in the shape of the predictions.

    Args:
        y: Class numbers (N, ...), or float rows in the output's shape, whose largest entry counts.
            Where each number is a yes or no of its own, 0 or 1 or probabilities.
        output: The model's output.
        form: What the model states of it.

    Raises:
        TypeError: Not a tensor.
        ValueError: Another shape.
    """
    if not isinstance(y, Tensor):
        raise TypeError(f"labels must be a tensor, got {type(y).__name__}; use torch.as_tensor")
    floats = y.is_floating_point()
    binary = is_binary(output, form)
    if binary:
        if tuple(y.shape) in binary_shapes(output, form):
            return ((y > 0.5) if floats else y).long().reshape(output.shape)
        wanted = f"0/1 labels of shape {' or '.join(map(str, binary_shapes(output, form)))}"
    else:
        dim = class_dim(output, form)
        places = (*output.shape[:dim], *output.shape[dim + 1 :])
        if floats and y.shape == output.shape:
            return y.argmax(dim=dim)
        if not floats and tuple(y.shape) == places:
            return y.long()
        wanted = f"integer labels of shape {places} or float rows of shape {tuple(output.shape)}"
    raise ValueError(f"accuracy needs {wanted}, got {tuple(y.shape)} of {y.dtype}")


def binary_shapes(output: Tensor, form: OutputForm | None = None) -> list[tuple[int, ...]]:
    """The shapes of labels for an output whose numbers are each a yes or no of their own."""
    whole = tuple(output.shape)
    if is_single_logit(output):
        return [whole[:1], (*whole[:1], 1)]
    dim = class_dim(output, form)
    one = whole[dim] == 1
    return [whole, (*whole[:dim], *whole[dim + 1 :])] if one else [whole]


def no_classes(y: Tensor, output: Tensor, form: OutputForm | None = None) -> str | None:
    """Why float labels stand for no classes; None where they do. It looks at values.

    Targets of a regression and rows of several ones have a loss, but no class that could be
    predicted.
    """
    if not y.is_floating_point() or not y.numel():
        return None
    low, high = (float(bound) for bound in torch.aminmax(y.detach()))
    if not (low >= 0 and high <= 1):
        return f"targets from {low:g} to {high:g}, outside of [0, 1], are no classes"
    if is_binary(output, form) or y.shape != output.shape:
        return None
    sums = y.detach().float().sum(class_dim(output, form))
    slack = max(1e-3, 4 * torch.finfo(y.dtype).eps)
    if bool(((sums - 1).abs() <= slack).all()):
        return None
    return (
        f"rows that add up to {float(sums.min()):g} to {float(sums.max()):g} rather than 1 are no "
        "classes, but several labels or none for each example"
    )


def check_labels(y: Any, features: Features, *, default_loss: bool, values: bool) -> None:
    """Refuses labels whose batch is not the input's, and negative class numbers.

    Args:
        y: Labels, or None.
        features: The input's features.
        default_loss: Whether no loss function of the caller's own takes the labels.
        values: Whether entries are looked at.

    Raises:
        TypeError: Labels that are not a tensor, for the default loss.
        ValueError: Labels for another number of examples, a negative class, another device.
    """
    if not isinstance(y, Tensor):
        if y is not None and default_loss:
            raise TypeError(f"y must be a tensor, got {type(y).__name__}; use torch.as_tensor(y)")
        return
    like = features.tensors[0]
    if y.dim() == 0 or y.shape[0] != like.shape[0]:
        raise ValueError(
            f"y must have one label per example: expected ({like.shape[0]}, ...), got "
            f"{tuple(y.shape)}"
        )
    if default_loss and y.device != like.device:
        raise ValueError(f"y is on {y.device} and x on {like.device}; move one of them")
    if default_loss and values and not y.is_floating_point() and bool((y < 0).any()):
        raise ValueError(f"class labels must be at least 0, got {int(y.min())}")
