"""What a model says of its own output: logits or probabilities, and where its classes are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


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
    """

    values: Literal["logits", "probabilities", "unknown"] = "unknown"
    head: Literal["softmax", "sigmoid"] | None = None
    class_dim: int = 1


def form_of(model: Any) -> OutputForm | None:
    """The form that a model states, also from inside DataParallel, DDP or `torch.compile`."""
    while model is not None:
        form = getattr(model, "output_form", None)
        if isinstance(form, OutputForm):
            return form
        model = getattr(model, "_orig_mod", None) or getattr(model, "module", None)
    return None
