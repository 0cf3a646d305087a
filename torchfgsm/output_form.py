"""What a model says of its own output: logits or probabilities, and where its classes are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor


@dataclass(frozen=True)
class OutputForm:
    """The form of a model's one output.

    A model states it in an attribute `output_form`; converted models do. Any other output has
    torch's layout: its classes in dim 1.

    Attributes:
        values: "logits"; "probabilities"; "unknown" where nothing tells.
        head: What makes probabilities of the logits: "softmax", one class of several; "sigmoid",
            each number its own yes or no; None where nothing tells.
        class_dim: The dimension of the classes; -1 is the last one, as Keras has it.
        cut: Whether the head stood at the end of the original and was cut off in conversion.
    """

    values: Literal["logits", "probabilities", "unknown"] = "unknown"
    head: Literal["softmax", "sigmoid"] | None = None
    class_dim: int = 1
    cut: bool = False


def form_of(model: Any) -> OutputForm | None:
    """The form that a model states, also from inside DataParallel, DDP or `torch.compile`."""
    while model is not None:
        form = getattr(model, "output_form", None)
        if isinstance(form, OutputForm):
            return form
        model = getattr(model, "_orig_mod", None) or getattr(model, "module", None)
    return None


def puts_head_back(model: Any, model_output: str) -> OutputForm | None:
    """The form of a model whose head was cut off and that a recipe wants back; else None.

    Args:
        model: The model.
        model_output: The recipe's field: "with_head" wants it.
    """
    form = form_of(model) if model_output == "with_head" else None
    return form if form is not None and form.cut else None


def as_taken(output: Any, form: OutputForm | None) -> Any:
    """The output with the head of `puts_head_back`.

    One number for each example stays a logit: the libraries that take a head's output for logits
    take a softmax of it, which is constant over one class, and there is nothing to follow.
    """
    if form is None or not isinstance(output, Tensor):
        return output
    if output.dim() < 2 or output.shape[form.class_dim] == 1:
        return output
    return output.softmax(form.class_dim) if form.head == "softmax" else output.sigmoid()
