"""The loss that a model is trained with: per example, weighted, averaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchfgsm.core.model_gradient import LossFn, output_tensor
from torchfgsm.losses.labels import class_numbers
from torchfgsm.losses.output_form import OutputForm, is_binary
from torchfgsm.losses.per_example import DefaultLoss


@dataclass(frozen=True)
class TrainingLoss:
    """A loss function with sample weights; called `(output, y)` it gives the scalar to train with.

    Attributes:
        loss_fn: `loss_fn(output, y)` -> scalar or losses (N, ...); None: cross-entropy.
        model_output: What the default loss takes the output for.
        sample_weight: (N,) or (N, 1), or None.
        values: Whether labels are looked at.
        form: What the model states of its output.
        ignore_index: A label whose positions do not count in the mean.
    """

    loss_fn: LossFn | None
    model_output: str
    sample_weight: Tensor | None
    values: bool
    form: OutputForm | None = None
    ignore_index: int | None = None

    def check(self, batch_size: int) -> None:
        """Refuses weights that are not one number for each example.

        Raises:
            TypeError: Not a tensor.
            ValueError: Another shape.
        """
        weight = self.sample_weight
        if weight is None:
            return
        if not isinstance(weight, Tensor):
            raise TypeError(f"sample_weight must be a tensor, got {type(weight).__name__}")
        if weight.shape not in ((batch_size,), (batch_size, 1)):
            raise ValueError(
                f"expected sample_weight of shape ({batch_size},) or ({batch_size}, 1), one for "
                f"each example, got {tuple(weight.shape)}"
            )

    def __call__(self, output: Any, y: Any) -> Tensor:
        """The weighted mean of the losses; weights of any sum: it is divided by their number."""
        elements = self.elements(output, y)
        return self.reduced(elements, self.counting(output, y, elements))

    def elements(self, output: Any, y: Any) -> Tensor:
        """What the loss function returns: losses (N, ...) without the weights, or a scalar."""
        if self.loss_fn is not None:
            found = self.loss_fn(output, y)
            if not isinstance(found, Tensor):
                raise TypeError(f"loss_fn must return a tensor, got {type(found).__name__}")
            return found
        default = DefaultLoss(self.model_output, self.form, self.values, self.ignore_index)
        found = default(output_tensor(output), y)
        default.refuse_no_classes(output, y)
        return found

    def counting(self, output: Any, y: Any, elements: Tensor) -> Tensor | None:
        """Where losses count, in the shape of the losses, or of the labels for a scalar.

        None: everywhere, or the loss has averaged over the positions itself.
        """
        if self.ignore_index is None or not isinstance(y, Tensor):
            return None
        rows = isinstance(output, Tensor) and y.is_floating_point() and y.shape == output.shape
        if rows and not is_binary(output, self.form):
            y = class_numbers(y, output, self.form)
        mask: Tensor = y != self.ignore_index
        if not elements.dim():
            return mask
        return mask.reshape(elements.shape) if mask.numel() == elements.numel() else None

    def reduced(self, elements: Tensor, counting: Tensor | None = None) -> Tensor:
        """The scalar of the losses: their mean over what counts.

        Args:
            elements: The losses.
            counting: What `counting` says of them.

        Raises:
            ValueError: Weights and a loss that is a scalar already, or not one per example.
        """
        if self.sample_weight is not None:
            weight = self.sample_weight.flatten().to(elements)
            if not elements.dim() or elements.shape[0] != weight.shape[0]:
                raise ValueError(
                    "sample_weight needs losses per example: expected a loss_fn that returns "
                    f"({weight.shape[0]}, ...), such as one with reduction='none', got "
                    f"{tuple(elements.shape)}"
                )
            elements = elements * weight.reshape(-1, *[1] * (elements.dim() - 1))
        if not elements.dim():
            return elements
        if counting is None:
            return elements.mean()
        mean: Tensor = torch.where(counting, elements, 0.0).sum() / number(elements, counting)
        return mean


def number(elements: Tensor, counting: Tensor | None) -> Any:
    """By what the sum of the losses is divided: how many there are, or how many of them count."""
    return elements.numel() if counting is None else counting.sum().clamp(min=1)
