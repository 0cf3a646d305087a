"""What the tests of traps share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from torchfgsm import Recipe
from torchfgsm.explanation.result import Trap
from torchfgsm.explanation.traps.finding import find_traps
from torchfgsm.libraries.configuration import Configuration

LINF = Recipe(step=0.1, labels="given")
L2 = Recipe(step=0.1, labels="given", norm="l2", guard=1e-12)
IDENTITY = nn.Identity()  # the input is the logits: their gradient is softmax - one-hot


def side(recipe: Recipe | Configuration) -> Configuration:
    return recipe if isinstance(recipe, Configuration) else Configuration(recipe=recipe)


def traps(
    model: Any,
    x: Any,
    y: Any,
    a: Recipe | Configuration,
    b: Recipe | Configuration | None = None,
    **arguments: Any,
) -> dict[str, Trap]:
    """The traps by name; one configuration on both sides unless b is given."""
    arguments = {"model_output": "logits", **arguments}
    found = find_traps(model, x, y, side(a), side(a if b is None else b), **arguments)
    assert len({(trap.name, trap.side) for trap in found}) == len(found)
    return {trap.name: trap for trap in found}


def rows(*values: list[float], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(values, dtype=dtype)


def labels(*values: int) -> Tensor:
    return torch.tensor(values)
