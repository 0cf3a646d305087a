"""The loss where the caller gives none: what it takes an output for, and which labels fit it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from torchfgsm.losses import per_example
from torchfgsm.losses.labels import no_classes
from torchfgsm.losses.output_form import OutputForm


@dataclass(frozen=True)
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
        return per_example.elements(
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
