"""TensorFlow's cross-entropy formulas, element by element, with TensorFlow's gradients.

Each function takes the dimension of the classes and leaves reductions to its caller; labels are
checked by `check_label_range`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Keras' default epsilon.
_EPSILON = 1e-7


class _SoftmaxCrossEntropy(torch.autograd.Function):
    """Value sum(t * (log-sum-exp - z)), gradient softmax(z) - t.

    TensorFlow's kernel has this gradient also where the targets do not sum to 1, and it subtracts
    before it multiplies with the incoming gradient. Autograd's own order loses digits in
    saturated rows, which the L2 norm then shows.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, target: Tensor, dim: int) -> Tensor:
        shifted, _, total = _exponentials(logits, dim)
        distance = total.log() - shifted
        # A class of logit -inf and target 0 adds nothing.
        return torch.where(target == 0, 0.0, target * distance).sum(dim)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        logits, target, ctx.dim = inputs
        ctx.save_for_backward(logits, target)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        logits, target = ctx.saved_tensors
        # Differentiable operations: CleverHans 3's L2 training has a second-order term.
        _, exponentials, total = _exponentials(logits, ctx.dim)
        slope = exponentials / total - target
        return grad_outputs[0].unsqueeze(ctx.dim) * slope, None, None


def _exponentials(logits: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits less their maximum, the exponentials of these, and the exponentials' sum.

    In a saturated row the sum's last bit is the gradient's leading error, and TensorFlow's order
    of summation is no one's to copy. Added in float64 and rounded once, the sum keeps float32
    gradients at most as far from the true ones as TensorFlow's mostly are.
    """
    shifted = logits - logits.detach().amax(dim, keepdim=True)
    exponentials = shifted.exp()
    total = exponentials.sum(dim, keepdim=True, dtype=torch.float64).to(logits.dtype)
    return shifted, exponentials, total


def softmax_formula(logits: Tensor, target: Tensor, dim: int) -> Tensor:
    """Cross-entropy of logits with one-hot or soft targets, as TensorFlow's kernel.

    Args:
        logits: (..., C, ...), classes in `dim`.
        target: weights of the classes in the logits' shape and dtype; gets no gradient.
        dim: dimension of the classes.

    Returns:
        The losses, in the logits' shape without `dim`.
    """
    loss: Tensor = _SoftmaxCrossEntropy.apply(logits, target.detach(), dim)
    return loss


def sparse_formula(logits: Tensor, labels: Tensor, dim: int) -> Tensor:
    """Cross-entropy of logits with integer labels (the logits' shape without `dim`)."""
    target = torch.zeros_like(logits, requires_grad=False)
    target.scatter_(dim, labels.unsqueeze(dim), 1.0)
    return softmax_formula(logits, target, dim)


def sparse_probability_formula(probabilities: Tensor, labels: Tensor, dim: int) -> Tensor:
    """Keras' sparse cross-entropy of probabilities: clipped, their logs taken as logits."""
    return sparse_formula(clipped(probabilities).log(), labels, dim)


def probability_formula(probabilities: Tensor, target: Tensor, dim: int) -> Tensor:
    """Keras' categorical cross-entropy of probabilities: normalised, then clipped."""
    normalised = probabilities / probabilities.sum(dim, keepdim=True)
    return -(target * clipped(normalised).log()).sum(dim)


def sigmoid_formula(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of logits: max(x, 0) - x * t + log(1 + exp(-|x|)).

    The gradient keeps the last term, about 2e-9 at logit 20, where the sigmoid has rounded to 1.
    """
    positive = logits >= 0
    # x * (1 - t) or x * -t: no two large gradients remain that could swallow the last term.
    linear = logits * (positive.to(logits.dtype) - target)
    return linear + torch.where(positive, -logits, logits).exp().log1p()


def sigmoid_probability_formula(probabilities: Tensor, target: Tensor) -> Tensor:
    """Keras' binary cross-entropy of probabilities: clipped, and 1e-7 inside the logs."""
    p = clipped(probabilities)
    return -(target * (p + _EPSILON).log() + (1 - target) * (1 - p + _EPSILON).log())


def clipped(probabilities: Tensor) -> Tensor:
    """Probabilities within [1e-7, 1 - 1e-7]; the gradient is 1 at the bounds, 0 outside."""
    # torch.clamp's gradient at a bound is 1, 1/2 or 0, by version and by kind of bound.
    high = 1 - _EPSILON
    from_below = torch.where(probabilities < _EPSILON, _EPSILON, probabilities)
    return torch.where(probabilities > high, high, from_below)


def check_label_range(labels: Tensor, classes: int, validate: bool | None = None) -> None:
    """Refuses labels below 0 or above `classes` - 1.

    Args:
        labels: integer labels.
        classes: number of classes.
        validate: whether to look; None: on CPU tensors only, and never under compile.

    Raises:
        ValueError: a label is out of range.
    """
    if looks(labels, validate) and labels.numel():
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= classes:
            raise ValueError(
                f"expected labels from 0 to {classes - 1} ({classes} classes), got labels from "
                f"{low} to {high}"
            )


def looks(values: Tensor, validate: bool | None) -> bool:
    """Whether values are looked at: where `validate` says nothing, on CPU tensors in eager mode."""
    if validate is None:
        return values.device.type == "cpu" and not torch.compiler.is_compiling()
    return validate
