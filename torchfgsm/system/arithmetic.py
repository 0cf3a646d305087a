"""Arithmetic of torch in which results compare: float32 as float32, the same bits each time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Runs a block with float32 as float32 and the same bits each time, on a GPU too.

    Without TF32, which moves the gradients of convolutions by about 1e-3, and with cuDNN's
    deterministic algorithms, chosen without timing them. torch's settings are put back afterwards.
    In the block torch 2.9 and later refuses to read the older `allow_tf32`.
    """
    switches = [
        *tf32_switches().values(),
        (torch.backends.cudnn, "deterministic", True),
        (torch.backends.cudnn, "benchmark", False),
    ]
    saved = [(holder, name, getattr(holder, name)) for holder, name, _ in switches]
    try:
        for holder, name, exact in switches:
            setattr(holder, name, exact)
        yield
    finally:
        for holder, name, value in saved:
            setattr(holder, name, value)


def tf32_switches() -> dict[str, tuple[Any, str, Any]]:
    """Operations -> what holds their TF32 setting, its name there, the value without TF32."""
    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul
    if hasattr(cudnn, "conv"):  # torch 2.9 and later, which warns of the older flags
        return {
            "convolutions": (cudnn.conv, "fp32_precision", "ieee"),
            "recurrent layers": (cudnn.rnn, "fp32_precision", "ieee"),
            "matrix products": (matmul, "fp32_precision", "ieee"),
        }
    return {
        "cuDNN": (cudnn, "allow_tf32", False),
        "matrix products": (matmul, "allow_tf32", False),
    }


def tf32_operations() -> list[str]:
    """The operations for which torch's settings allow TF32."""
    return [
        name
        for name, (holder, attribute, _) in tf32_switches().items()
        if getattr(holder, attribute) in ("tf32", True)
    ]
