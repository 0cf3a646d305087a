"""The settings under which results are compared, before times are taken at torch's defaults."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact() -> Iterator[None]:
    """Convolutions and products in full float32, and the same ones on every run.

    TF32, which torch uses for convolutions, rounds gradients so coarsely that signs turn.
    """
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cudnn.deterministic, products.allow_tf32
    cudnn.allow_tf32, cudnn.deterministic, products.allow_tf32 = False, True, False
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.deterministic, products.allow_tf32 = before
