"""The loss that a model is trained with: per example, weighted, averaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from torchfgsm import losses
from torchfgsm.model_gradient import LossFn, output_tensor


@dataclass(frozen=True)
class TrainingLoss:
    """A loss function with sample weights; called `(output, y)` it gives the scalar to train with.

    Attributes:
        loss_fn: `loss_fn(output, y)` -> scalar or losses (N, ...); None: cross-entropy.
        model_output: What the default loss takes the output for.
        sample_weight: (N,) or (N, 1), or None.
        values: Whether labels are looked at.
    """

    loss_fn: LossFn | None
    model_output: str
    sample_weight: Tensor | None
    values: bool

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
        return self.reduced(self.elements(output, y))

    def elements(self, output: Any, y: Any) -> Tensor:
        """What the loss function returns: losses (N, ...) without the weights, or a scalar."""
        if self.loss_fn is not None:
            found = self.loss_fn(output, y)
            if not isinstance(found, Tensor):
                raise TypeError(f"loss_fn must return a tensor, got {type(found).__name__}")
            return found
        tensor = output_tensor(output)
        default = (
            losses.probability_cross_entropy
            if self.model_output == "probabilities"
            else losses.cross_entropy
        )
        return default(tensor, y, validate=self.values)

    def reduced(self, elements: Tensor) -> Tensor:
        """The scalar of the losses.

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
        return elements.mean() if elements.dim() else elements
