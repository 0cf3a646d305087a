"""All that an attack could leave behind on a model, and what of it changed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def state(model: nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = {"rng": torch.get_rng_state()}
    for name, module in model.named_modules():
        found[f"mode {name}"] = module.training
    for name, parameter in model.named_parameters():
        found[f"value {name}"] = parameter.detach().clone()
        found[f"grad {name}"] = None if parameter.grad is None else parameter.grad.clone()
        found[f"requires {name}"] = parameter.requires_grad
    for name, buffer in model.named_buffers():
        found[f"buffer {name}"] = buffer.clone()
    return found


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    assert before.keys() == after.keys()
    return [
        name
        for name, value in before.items()
        if not (
            torch.equal(value, after[name])
            if isinstance(value, Tensor) and isinstance(after[name], Tensor)
            else value is after[name]
        )
    ]
