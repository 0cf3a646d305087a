"""Rounding as a second correct program would have it, to see what hangs on it.

Two programs sum a convolution's products in different orders, so that their results differ in the
last digits. Where two numbers tie but for these digits, as neighbours in an image of one colour do
before a maximum pool, their order is no property of the model, and neither is the gradient's place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

UNITS = 16
"""The change of a result, in units of its precision's epsilon."""

# What sums in an order of its own; other operations round each number alike on either side.
_SUMS = frozenset(
    {
        "__matmul__",
        "__rmatmul__",
        "addmm",
        "avg_pool1d",
        "avg_pool2d",
        "avg_pool3d",
        "baddbmm",
        "batch_norm",
        "bilinear",
        "bmm",
        "conv1d",
        "conv2d",
        "conv3d",
        "conv_transpose1d",
        "conv_transpose2d",
        "conv_transpose3d",
        "cumsum",
        "einsum",
        "group_norm",
        "instance_norm",
        "interpolate",
        "layer_norm",
        "linear",
        "log_softmax",
        "logsumexp",
        "matmul",
        "mean",
        "mm",
        "scaled_dot_product_attention",
        "softmax",
        "sum",
        "vector_norm",
    }
)


class OtherRounding(TorchFunctionMode):
    """A context in which each sum of products is off by a random few units in the last place.

    The change is relative: what is 0 stays 0, and what was not summed stays as it is, so that a
    kink that the inputs hit exactly is hit as before.

    Args:
        seed: of the random numbers, which are the context's own.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Calls the function, and changes what it returns where that is a sum."""
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name not in _SUMS or not isinstance(result, Tensor) or not result.is_floating_point():
            return result
        with torch.no_grad():
            draw = torch.rand(result.shape, generator=self._generator, dtype=result.dtype)
            factor = 1 + UNITS * torch.finfo(result.dtype).eps * (2 * draw - 1)
        return result * factor
