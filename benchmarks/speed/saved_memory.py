"""How many bytes autograd keeps for backward: the memory of a training step on a CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn


class _Kept:
    """A tensor saved for backward; counts while autograd holds it."""

    def __init__(self, tensor: Tensor, account: SavedBytes) -> None:
        self.tensor = tensor
        self.account = account
        self.address = tensor.untyped_storage().data_ptr()
        account.add(self.address, tensor.untyped_storage().nbytes())

    def __del__(self) -> None:
        self.account.remove(self.address)


class SavedBytes:
    """Bytes of the distinct storages that are saved for backward at one time.

    Args:
        own: Tensors that do not count: parameters, buffers, the batch.

    Attributes:
        peak: The most bytes at any time.
    """

    def __init__(self, own: list[Tensor]) -> None:
        self.peak = 0
        self._own = {tensor.untyped_storage().data_ptr() for tensor in own}
        self._holders: Counter[int] = Counter()
        self._sizes: dict[int, int] = {}

    def add(self, address: int, size: int) -> None:
        """Counts one more holder of a storage."""
        if address in self._own:
            return
        self._holders[address] += 1
        self._sizes[address] = size
        self.peak = max(self.peak, sum(self._sizes.values()))

    def remove(self, address: int) -> None:
        """Counts one holder less; a storage without any is gone."""
        if address in self._own:
            return
        self._holders[address] -= 1
        if not self._holders[address]:
            del self._sizes[address]


def saved_mib(step: Callable[[], object], model: nn.Module, batch: list[Tensor]) -> float:
    """Peak MiB that a step keeps for backward, without parameters, buffers and the batch."""
    account = SavedBytes([*model.parameters(), *model.buffers(), *batch])

    def pack(tensor: Tensor) -> _Kept:
        return _Kept(tensor, account)

    def unpack(kept: _Kept) -> Tensor:
        return kept.tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        step()
    return account.peak / 2**20
