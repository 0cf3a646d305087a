"""What a model says of its own output: logits or probabilities, and where its classes are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

_WRAPPERS = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel", "AveragedModel")
# Autograd's nodes that change an output's shape, strides or dtype alone.
_SHAPES = (
    *("View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze", "Transpose", "Permute", "T"),
    *("Alias", "Clone", "ToCopy", "Select", "Slice", "Expand"),
)


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
        hidden: Whether Keras' losses, which look at the last operation, would not have found it.
    """

    values: Literal["logits", "probabilities", "unknown"] = "unknown"
    head: Literal["softmax", "sigmoid"] | None = None
    class_dim: int = 1
    cut: bool = False
    hidden: bool = False

    def probabilities(self, logits: Tensor) -> Tensor:
        """What the head makes of logits; without one they stay as they are."""
        if self.head is None:
            return logits
        return logits.sigmoid() if self.head == "sigmoid" else logits.softmax(self.class_dim)


def form_of(model: Any) -> OutputForm | None:
    """The form that a model states, also from inside DataParallel, DDP or `torch.compile`."""
    while model is not None:
        form = getattr(model, "output_form", None)
        if isinstance(form, OutputForm):
            return form
        model = _wrapped(model)
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
    return form.probabilities(output)


def forms_of(model: Any, count: int) -> list[OutputForm | None]:
    """The form of each of `count` outputs, None where the model states none."""
    inner = model
    while inner is not None:
        forms = getattr(inner, "output_forms", None)
        if isinstance(forms, tuple) and len(forms) == count:
            return list(forms)
        inner = _wrapped(inner)
    return [form_of(model)] if count == 1 else [None] * count


def _wrapped(model: Any) -> Any:
    """The model that a wrapper of torch calls; a part of another module is not its model."""
    if type(model).__name__ in _WRAPPERS:
        return model.module
    return getattr(model, "_orig_mod", None)


def is_single_logit(output: Tensor) -> bool:
    """Whether an output is one number per example, the logit of a binary model."""
    return output.dim() == 1 or (output.dim() == 2 and output.shape[1] == 1)


def is_binary(output: Tensor, form: OutputForm | None = None) -> bool:
    """Whether each number of an output is a yes or no of its own rather than one of classes.

    So is the one number of an example; behind a sigmoid each of several labels and each position;
    and each position where a model states that its classes lie where there is one place.
    """
    if form is None or is_single_logit(output):
        return is_single_logit(output)
    if form.head is None and -output.dim() <= form.class_dim < output.dim():
        return output.shape[form.class_dim] == 1
    return form.head == "sigmoid"


def class_dim(output: Tensor, form: OutputForm | None = None) -> int:
    """The dimension of the classes, counted from the front: torch's unless the model states one.

    Raises:
        ValueError: The stated dimension is none of an example.
    """
    dim = 1 if form is None else form.class_dim
    place = dim + output.dim() if dim < 0 else dim
    if not 0 < place < output.dim():
        raise ValueError(
            f"expected an output (N, ...) with its classes in dim {dim}, got shape "
            f"{tuple(output.shape)}"
        )
    return place


def made_by(output: Tensor) -> Literal["softmax", "sigmoid"] | None:
    """The operation that made an output of probabilities, where autograd's graph tells.

    As Keras looks at the operation behind an output. A compiled or scripted model hides it.
    """
    if torch.compiler.is_compiling():
        return None
    node = output.grad_fn
    while node is not None:
        name = type(node).__name__.partition("Backward")[0]
        if name == "Sigmoid":
            return "sigmoid"
        if name == "Softmax":
            return "softmax"
        if name not in _SHAPES:
            return None
        node = node.next_functions[0][0]
    return None


def gives_probabilities(output: Tensor, form: OutputForm | None, *, declared: bool) -> bool:
    """Whether the numbers of an output are probabilities, as far as anybody can tell.

    Args:
        output: The output.
        form: What the model states; it is believed first.
        declared: What the caller says of a model that states nothing.
    """
    if form is not None and form.values != "unknown":
        return form.values == "probabilities"
    return declared or made_by(output) is not None
