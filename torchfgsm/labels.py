"""Labels of an attack's loss: those given, checked, or else the model's own prediction."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from torchfgsm.features import Features


def is_single_logit(output: Tensor) -> bool:
    """Whether an output is one number per example, the logit of a binary model."""
    return output.dim() == 1 or (output.dim() == 2 and output.shape[1] == 1)


def predicted_labels(
    output: Tensor,
    ties: Literal["first", "shared"] = "first",
    *,
    probabilities: bool = False,
) -> Tensor:
    """The model's own prediction, without gradient.

    Args:
        output: Logits or probabilities (N, classes, ...); (N,) or (N, 1) is the logit of a binary
            model.
        ties: With several equal maxima, "first": the first class, as `argmax`; "shared": a
            probability of 1 / count on each of them, ties being those of the softmax
            (CleverHans 3's `get_or_guess_labels`).
        probabilities: Whether a binary model's output is a probability rather than a logit.

    Returns:
        Integer labels (N, ...); for "shared", rows of probabilities in the output's shape. Binary
        models give 0 or 1 in the output's shape and dtype.
    """
    output = output.detach()
    if is_single_logit(output):
        return (output > (0.5 if probabilities else 0.0)).to(output.dtype)
    if ties == "first":
        return output.argmax(dim=1)
    rows = output.softmax(dim=1)
    # Their shares are float32 numbers in the original, in float64 as well.
    largest = (rows == rows.amax(dim=1, keepdim=True)).float()
    return (largest / largest.sum(dim=1, keepdim=True)).to(output.dtype)


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
