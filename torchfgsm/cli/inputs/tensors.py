"""Rows of a file as tensors on a device, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any]


def inputs_of(rows: Array, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Rows of inputs in the dtype in which the model computes."""
    with np.errstate(over="ignore"):  # the attack refuses what became infinite
        values = rows.astype(np.float64 if dtype == torch.float64 else np.float32)
    return torch.from_numpy(values).to(device, dtype)


def labels_of(rows: Array, device: torch.device) -> Tensor:
    """Class numbers, or rows of probabilities."""
    if rows.dtype.kind != "f":
        rows = rows.astype(np.int64)
        rows = rows.reshape(-1) if rows.shape[1:] == (1,) else rows  # as Keras' data sets have them
    return torch.from_numpy(rows).to(device)


def array_of(values: Tensor) -> Array:
    """The values as numpy has them."""
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def device_of(name: str | None) -> torch.device:
    """The device that was asked for.

    Raises:
        ValueError: It is not there.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name} cannot be used: {error}") from None
    if device.type == "cuda":
        # The same bytes in every run.
        torch.backends.cudnn.deterministic = True
    return device
