"""What torch.compile takes as one node each; imported only while it traces, for it loads dynamo.

Dynamo traces through `torch.autograd.grad` under a private flag alone, and refuses a training step
whose loss depends on a tensor that was made to require grad. It does not look into these nodes; the
compiler behind it does, and finds what the input's gradient needs and no gradient of a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def leaf(tensor: Tensor) -> Tensor:
    """The tensor detached and requiring grad."""
    return tensor.detach().requires_grad_()


def grad(
    loss: Tensor,
    inputs: Sequence[Tensor],
    *,
    create_graph: bool,
    retain_graph: bool | None,
    allow_unused: bool,
) -> tuple[Tensor | None, ...]:
    """As `torch.autograd.grad`; made of arguments alone, as a node must be."""
    return torch.autograd.grad(
        loss,
        inputs,
        create_graph=create_graph,
        retain_graph=retain_graph,
        allow_unused=allow_unused,
    )


@torch.compiler.disable  # type: ignore[untyped-decorator]
def eagerly(function: Callable[..., Any], arguments: Sequence[Any], named: dict[str, Any]) -> Any:
    """Calls a function outside of the graph, with all that it calls."""
    return function(*arguments, **named)


torch.compiler.allow_in_graph([leaf, grad])  # type: ignore[no-untyped-call]
