"""Evaluation over processes: which examples a shard repeats, and sums over all shards."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchfgsm.models import distributing


def is_distributed() -> bool:
    """Whether this process is one of a group, as under torchrun."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def is_first() -> bool:
    """Whether this process speaks for its group."""
    return not is_distributed() or torch.distributed.get_rank() == 0


def undistributed(model: Any) -> Any:
    """The module in a `DistributedDataParallel` model, compiled or not.

    The wrapper's forward pass waits for every process; the module may be called unequally often.
    Its buffers become those of process 0, as in the wrapper's own forward pass.
    """
    module = distributing.unwrapped(model)
    if module is not model:
        wrapper = getattr(model, "_orig_mod", model)
        if wrapper.broadcast_buffers:
            for buffer in module.buffers():
                torch.distributed.broadcast(buffer.detach(), 0, group=wrapper.process_group)
    return module


class RepeatedExamples:
    """Finds the examples that a `DistributedSampler` repeats so that all shards have equal size.

    The sampler gives process r the places r, r + n, r + 2 n ... of the order of the whole set, to
    which the first examples are appended again: places from the set's size on are repetitions.
    """

    def __init__(self, loader: Any) -> None:
        """Takes the loader.

        Raises:
            ValueError: Examples are repeated, and the loader does not keep the sampler's order.
        """
        from torch.utils.data import BatchSampler, DistributedSampler

        batches = getattr(loader, "batch_sampler", None)
        samplers = (getattr(loader, "sampler", None), getattr(batches, "sampler", None))
        found: list[Any] = [s for s in samplers if isinstance(s, DistributedSampler)]
        self._sampler = found[0] if found else None
        self._seen = 0
        if self._sampler is None:
            return
        self._size = len(self._sampler.dataset)
        repeated = 0 if self._sampler.drop_last else self._sampler.total_size - self._size
        ordered = type(batches) is BatchSampler or batches is None
        if not repeated:
            self._sampler = None
        elif not ordered or not getattr(loader, "in_order", True):
            raise ValueError(
                f"the DistributedSampler repeats {repeated} of {self._size} examples, and the "
                "loader does not keep its order, so that they cannot be told: use a DataLoader "
                "with in_order=True and torch's own BatchSampler, or a sampler that repeats none"
            )

    def kept(self, count: int) -> Tensor | None:
        """The rows of the next batch, of `count` examples, that count; None: all of them."""
        first, self._seen = self._seen, self._seen + count
        if self._sampler is None:
            return None
        places = torch.arange(first, first + count)
        places = places * self._sampler.num_replicas + self._sampler.rank
        rows = (places < self._size).nonzero().flatten()
        return None if len(rows) == count else rows


def summed(values: Tensor) -> Tensor:
    """The sum of a tensor over all processes, on the CPU."""
    return _reduced(values, torch.distributed.ReduceOp.SUM) if is_distributed() else values


def largest(value: int) -> int:
    """The largest of a number over all processes."""
    if not is_distributed():
        return value
    return int(_reduced(torch.tensor(value), torch.distributed.ReduceOp.MAX))


def _reduced(values: Tensor, operation: Any) -> Tensor:
    nccl = "nccl" in torch.distributed.get_backend()
    device = torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
    moved = values.clone().to(device)
    torch.distributed.all_reduce(moved, operation)
    return moved.cpu()
