"""What a model gives, logits or probabilities: by what it states, is said to give, or gives."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from torchfgsm.core.model_gradient import output_tensor
from torchfgsm.losses.output_form import OutputForm, class_dim, is_binary, is_single_logit

# How far from 1 the sum of probabilities may be that a caller says to be such.
_NEARLY = 0.01


def kind_of_output(
    outputs: list[Any], form: OutputForm | None, said: str | None
) -> tuple[str, int]:
    """What a model gives, and how many examples refute what it was said to give.

    That it gives probabilities is believed where most rows are some. What the model states goes
    before all.

    Args:
        outputs: Its outputs on the clean batch.
        form: What the model states.
        said: What the caller says, "logits" or "probabilities"; None: nothing.
    """
    stated = None if form is None or form.values == "unknown" else form.values
    refuted = 0
    if said == "probabilities":
        tensors = [output_tensor(output) for output in outputs]
        near = torch.cat([_probable(output, form, _NEARLY) for output in tensors])
        sure = torch.cat([_probable(output, form, None) for output in tensors])
        refuted = len(sure) if stated == "logits" else int((~sure).sum())
        said = "logits" if 2 * int(near.sum()) < len(near) else said
    if stated or said:
        return str(stated or said), refuted
    looks = all(
        isinstance(output, Tensor) and bool(rows_of_probabilities(output, form).all())
        for output in outputs
    )
    return "probabilities" if looks else "logits", refuted


def rows_of_probabilities(
    output: Tensor, form: OutputForm | None = None, slack: float | None = None
) -> Tensor:
    """Examples whose outputs lie in [0, 1] and add up to 1, (N,); none of a single number.

    Args:
        output: The output (N, classes, ...), or in the form that the model states.
        form: What the model states.
        slack: How far the sum may be from 1; None: as far as rounding takes it.
    """
    if is_binary(output, form):
        return torch.zeros(output.shape[0], dtype=torch.bool, device=output.device)
    rows, dim = output.float(), class_dim(output, form)
    inside = ((rows >= 0) & (rows <= 1)).all(dim)
    # Rounding of the sum: up to a unit of the dtype for each class.
    rounding = max(1e-4, 4 * torch.finfo(output.dtype).eps)
    probable = inside & ((rows.sum(dim) - 1).abs() < (rounding if slack is None else slack))
    return probable.reshape(len(probable), -1).all(1)


def _probable(output: Tensor, form: OutputForm | None, slack: float | None) -> Tensor:
    """Examples that may be probabilities as they are said to be, each number by itself, (N,)."""
    if is_binary(output, form):
        return ((output >= 0) & (output <= 1)).reshape(len(output), -1).all(1)
    return rows_of_probabilities(output, form, slack)


class WithProbabilities(nn.Module):
    """A model of logits with a softmax behind it, or a sigmoid where it gives one number."""

    def __init__(self, model: Any, form: OutputForm) -> None:
        super().__init__()
        self.training = False
        self.model = model
        self.output_form = dataclasses.replace(form, values="probabilities", cut=False)
        if hasattr(model, "input_names"):
            self.input_names = model.input_names

    def forward(self, *inputs: Any) -> Tensor:
        """The probabilities."""
        output: Tensor = self.model(*inputs)
        if is_single_logit(output) or self.output_form.head == "sigmoid":
            return output.sigmoid()
        return output.softmax(dim=self.output_form.class_dim)
