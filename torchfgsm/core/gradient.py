"""The gradient of the attack's loss with respect to the input, and its conditioning.

Gradients of float16 models are scaled example by example, so that they do not round to 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor


def leaf(tensor: Tensor) -> Tensor:
    """The tensor detached and requiring grad: where a gradient is taken."""
    if torch.compiler.is_compiling():
        from torchfgsm.core import dynamo_nodes

        return dynamo_nodes.leaf(tensor)
    return tensor.detach().requires_grad_()


def input_gradient(
    loss: Tensor,
    inputs: Sequence[Tensor],
    *,
    slopes: Tensor | None = None,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> list[Tensor | None]:
    """The gradient of a scalar loss with respect to each input; weight gradients are not computed.

    Args:
        loss: A scalar.
        inputs: Tensors that the loss may depend on; those that do not require grad get None.
        slopes: Where `loss` is no scalar, what its entries count; not while compiling.
        create_graph: Keep the gradient differentiable.
        retain_graph: Keep the graph of `loss` for another backward pass.

    Returns:
        One gradient per input in its shape and dtype; None where no path leads to the loss.
    """
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    if not wanted or not loss.requires_grad:
        return [None] * len(inputs)
    take: Callable[..., tuple[Tensor | None, ...]] = torch.autograd.grad
    options: dict[str, Any] = {"create_graph": create_graph, "retain_graph": retain_graph}
    if torch.compiler.is_compiling():
        from torchfgsm.core import dynamo_nodes

        take = dynamo_nodes.grad
    elif slopes is not None:
        options["grad_outputs"] = slopes
    found = iter(take(loss, wanted, allow_unused=True, **options))
    return [next(found) if tensor.requires_grad else None for tensor in inputs]


def connected(loss: Tensor, inputs: Sequence[Tensor]) -> list[Tensor | None]:
    """The inputs from which a path leads to the loss; None in place of the others.

    It looks at autograd's graph alone, so that a missing gradient is known before a backward pass
    has added others to the parameters.
    """
    left = {id(tensor) for tensor in inputs}
    stack, seen = [loss.grad_fn], {loss.grad_fn}
    while stack and left:
        node = stack.pop()
        if node is None:
            continue
        left.discard(id(getattr(node, "variable", None)))  # only a leaf's node has one
        following = [after for after, _ in node.next_functions if after not in seen]
        seen.update(following)
        stack += following
    return [None if id(tensor) in left else tensor for tensor in inputs]


def refuse_underivable(tensors: Sequence[Tensor]) -> None:
    """Refuses tensors whose graph holds a backward pass that has no derivative of its own.

    Backpropagated, they would fail in torch's words, far from the attack.

    Raises:
        RuntimeError: Naming the operation and the way out.
    """
    stack = [tensor.grad_fn for tensor in tensors]
    seen = set(stack)
    while stack:
        node = stack.pop()
        if node is None:
            continue
        if "NotImplemented" in node.name():
            raise RuntimeError(
                "this recipe's gradient through the L2 perturbation needs second derivatives, and "
                "an operation of the model has none. For attention run it, forward and backward, "
                "under torch.nn.attention.sdpa_kernel(SDPBackend.MATH); for recurrent layers on "
                "CUDA under torch.backends.cudnn.flags(enabled=False); or give "
                "dataclasses.replace(recipe, through_perturbation=False)"
            )
        following = [after for after, _ in node.next_functions if after not in seen]
        seen.update(following)
        stack += following


def condition(
    grad: Tensor,
    *,
    nonfinite: Literal["zero", "propagate", "ignore"],
    mask: Tensor | float | None = None,
    clip_grad: bool = False,
    x: Tensor | None = None,
    clip_min: float | Tensor | None = None,
    clip_max: float | Tensor | None = None,
) -> Tensor:
    """The gradient as the direction is computed from it.

    Args:
        grad: Gradient of one feature (N, ...).
        nonfinite: "zero" replaces NaN and infinite entries by 0, as NSL's `_compute_gradient`.
        mask: Factor on the gradient, broadcast to its shape (NSL's `apply_feature_mask`).
        clip_grad: Entries at a bound whose step points out of the range count as 0
            (CleverHans' `zero_out_clipped_grads`).
        x: Where the gradient was taken; needed with `clip_grad`.
        clip_min: Lower bound of the range; needed with `clip_grad`.
        clip_max: Upper bound of the range; needed with `clip_grad`.

    Returns:
        The conditioned gradient, same shape and dtype.
    """
    if nonfinite == "zero":
        grad = torch.nan_to_num(grad, 0.0, 0.0, 0.0)
    if mask is not None:
        grad = grad * mask
    if clip_grad and x is not None and clip_min is not None and clip_max is not None:
        leaves = ((x <= clip_min) & (grad < 0)) | ((x >= clip_max) & (grad > 0))
        grad = torch.where(leaves, 0.0, grad)
    return grad


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
