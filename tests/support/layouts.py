"""Tensors of equal values with other strides."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LAYOUTS = ("contiguous", "channels_last", "sliced", "transposed", "batch moved", "misaligned")


def laid_out(tensor: Tensor, layout: str) -> Tensor:
    """The same values with other strides; contiguous where the layout needs more dimensions.

    What lies between the values is NaN, so that reading it shows.
    """
    if layout == "misaligned":
        room = torch.full((tensor.numel() + 1,), math.nan, dtype=tensor.dtype)
        return room[1:].reshape(tensor.shape).copy_(tensor)
    if layout == "sliced":
        room = torch.full((*tensor.shape[:-1], 2 * tensor.shape[-1]), math.nan, dtype=tensor.dtype)
        return room[..., ::2].copy_(tensor)
    if tensor.dim() >= 2 and layout == "batch moved":
        return tensor.transpose(0, 1).contiguous().transpose(0, 1)
    if tensor.dim() == 4 and layout == "channels_last":
        return tensor.contiguous(memory_format=torch.channels_last)
    if tensor.dim() == 4 and layout == "transposed":
        return tensor.transpose(2, 3).contiguous().transpose(2, 3)
    return tensor.contiguous()
