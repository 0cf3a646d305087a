"""Gradients of float16 models: scaled example by example, so that they do not round to 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torchfgsm.core.gradient import input_gradient

_SMALLEST_EXPONENT = -120
_SMALL = -4  # power of two above which slopes are left alone


def may_underflow(output: Any, inputs: Sequence[Tensor]) -> bool:
    """Whether a backward pass from this output to these inputs computes in float16."""
    if torch.compiler.is_compiling() or not isinstance(output, Tensor):
        return False
    if output.dtype is torch.float16 or any(t.dtype is torch.float16 for t in inputs):
        return output.requires_grad
    return autocasts(output) and output.requires_grad


def autocasts(output: Tensor) -> bool:
    """Whether autocast to float16 is on where the output lies."""
    kind = output.device.type
    return torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) is torch.float16


def scaled_gradient(
    loss_at: Callable[[Tensor], Tensor],
    output: Tensor,
    inputs: Sequence[Tensor],
    *,
    widen: bool,
    by_example: bool,
    scale_back: bool,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> list[Tensor | None]:
    """The gradient of a loss by the inputs, where float16 would lose it.

    The loss's gradient at the output, of at most 1 and often of 1e-8, is taken in float32 and
    scaled up by powers of two to about 1 before it goes through the model: as large as that of an
    example that is classified wrongly, so that nothing overflows that did not before.

    Args:
        loss_at: From an output to the scalar loss.
        output: The model's output (N, ...).
        inputs: What it was computed from.
        widen: Give `loss_at` the output in float32.
        by_example: A factor for each example, which changes no direction where examples do not see
            each other; otherwise one for the batch.
        scale_back: Divide the gradients again, where their size matters.
        create_graph: As in `input_gradient`.
        retain_graph: As in `input_gradient`.

    Returns:
        As `input_gradient`; scaled by positive factors unless `scale_back`.
    """
    seen = output.float() if widen else output
    loss = loss_at(seen)
    (slopes,) = input_gradient(loss, [seen], create_graph=create_graph, retain_graph=retain_graph)
    if slopes is None:
        return [None] * len(inputs)
    factor = _factor(slopes.detach(), by_example=by_example)
    found = input_gradient(
        output,
        inputs,
        slopes=(slopes * factor).to(output.dtype),
        create_graph=create_graph,
        retain_graph=retain_graph,
    )
    if not scale_back:
        return found
    sized = factor.flatten()
    return [
        g if g is None else (g / sized.reshape(-1, *[1] * (g.dim() - 1))).to(g.dtype) for g in found
    ]


def _factor(slopes: Tensor, *, by_example: bool) -> Tensor:
    """Powers of two that bring the largest slope of each example, or of all, into [0.5, 1).

    Slopes that are no smaller than 1/16 are left as they are, to the bit.
    """
    size = slopes.float().abs()
    largest = size.flatten(1).amax(1) if by_example and size.dim() > 1 else size
    largest = largest if by_example else size.amax().reshape(1)
    largest = torch.where(torch.isfinite(largest), largest, 1.0)
    exponent = torch.frexp(largest).exponent.clamp(min=_SMALLEST_EXPONENT)
    exponent = torch.where(exponent <= _SMALL, exponent, 0)
    factor = torch.ldexp(torch.ones_like(largest), -exponent)
    return factor.reshape([-1, *[1] * (slopes.dim() - 1)] if slopes.dim() else [])
