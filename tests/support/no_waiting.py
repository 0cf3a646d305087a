"""A mode in which waiting for the device fails, as a capture would."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class NoWaiting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses what copies a number from the device to the host."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls ``func``."""
        assert "_local_scalar_dense" not in str(func), func
        return func(*args, **(kwargs or {}))
