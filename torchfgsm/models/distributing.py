"""What data-parallel wrappers and gradient scalers need to know of a step in two halves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch.nn.parallel import DistributedDataParallel


def refuse_wrapper(model: Any, *, halves: bool, second_order: bool) -> None:
    """Refuses data-parallel wrappers that do not bear two forward passes.

    Args:
        model: The model, wrapped or not.
        halves: Whether each forward pass has a backward pass of its own.
        second_order: Whether the attack's gradient is differentiated again.

    Raises:
        TypeError: A model of DistributedDataParallel with a static graph, which would not reduce
            the gradients; a model sharded by FSDP2 where its parameters would be gone.
    """
    if not _distributed() or not isinstance(model, torch.nn.Module):
        return
    if getattr(_data_parallel(model), "static_graph", False):
        raise TypeError(
            "DistributedDataParallel(static_graph=True) counts one forward pass for each backward "
            "pass and would leave gradients of two forward passes unreduced: make the wrapper "
            "without static_graph"
        )
    if not halves and not second_order:
        return
    from torch.distributed.fsdp import FSDPModule

    if any(isinstance(module, FSDPModule) for module in model.modules()):
        if second_order:
            raise TypeError(
                "the model's parameters are sharded (FSDP2) and gone when this recipe's gradient "
                "through the L2 perturbation is taken: use "
                "dataclasses.replace(recipe, through_perturbation=False), or another wrapper"
            )
        raise TypeError(
            "the model's parameters are sharded (FSDP2): adversarial_step takes plain and "
            "DistributedDataParallel models; with FSDP2 use adversarial_loss(...).loss.backward()"
        )


@contextlib.contextmanager
def without_reduction(model: Any) -> Iterator[None]:
    """Keeps gradients to this process in the block; a later backward pass sends them all."""
    wrapper = _data_parallel(model) if _distributed() else None
    with contextlib.nullcontext() if wrapper is None else wrapper.no_sync():
        yield


def unwrapped(model: Any) -> Any:
    """The module in a DistributedDataParallel model, compiled or not; any other model as it is.

    An attack on it leaves the wrapper's count of forward and backward passes alone, and waits for
    no other process.
    """
    wrapper = _data_parallel(model) if _distributed() else None
    return model if wrapper is None else wrapper.module


def _distributed() -> bool:
    # While compiling, the wrapper is outside of what is compiled.
    available = torch.distributed.is_available() and not torch.compiler.is_compiling()
    return available and torch.distributed.is_initialized()


def _data_parallel(model: Any) -> DistributedDataParallel | None:
    """The wrapper whose gradients are reduced, also where torch.compile has wrapped it again."""
    from torch.nn.parallel import DistributedDataParallel

    wrapper = getattr(model, "_orig_mod", model)
    return wrapper if isinstance(wrapper, DistributedDataParallel) else None


def refuse_unscaled(scaler: torch.amp.GradScaler | None) -> None:
    """Refuses a scaler that has unscaled gradients to which scaled ones would be added.

    Raises:
        ValueError: `scaler.unscale_` was called since the last `scaler.update`.
    """
    if scaler is None or not scaler.is_enabled():
        return
    states = getattr(scaler, "_per_optimizer_states", {}).values()
    if any(getattr(state.get("stage"), "name", "READY") == "UNSCALED" for state in states):
        raise ValueError(
            "the scaler has unscaled the gradients since its last update, and this step would add "
            "scaled ones: call adversarial_step before scaler.unscale_, or scaler.update() first"
        )
