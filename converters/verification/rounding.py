"""Rounding as a second correct program would have it, to see what hangs on it.

Two programs sum a convolution's products in different orders, so that their results differ in the
last digits. Where two numbers tie but for these digits, as neighbours in an image of one colour do
before a maximum pool, their order is no property of the model, and neither is the gradient's place.

The derivative of a function that saturates is a difference of nearly equal numbers, such as
1 - t * t for t = tanh(x): where t is nearly 1, its last digit is the whole of the derivative.
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

# What saturates and has its derivative from its result, as tanh has 1 - t * t.
_FROM_RESULT = frozenset({"celu", "elu", "erf", "expm1", "sigmoid", "softmax", "softsign", "tanh"})
# What saturates and has its derivative from a number within it that is near 1, as p in p - 1.
_FROM_WITHIN = frozenset(
    {
        "gelu",
        "log_sigmoid",
        "log_softmax",
        "mish",
        "silu",
    }
)


class OtherRounding(TorchFunctionMode):
    """A context in which results are off by a random few units in the last place.

    Each sum of products is changed, and what saturates, with its derivative. The change of a result
    is relative: what is 0 stays 0, and what was not summed stays as it is, so that a kink that the
    inputs hit exactly is hit as before. What saturates changes by one factor throughout, so that
    equal numbers stay equal. Its derivative is changed by as much as the number that it comes from.

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
        """Calls the function, and changes what it returns where that rounds in its own way."""
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if not isinstance(result, Tensor) or not result.is_floating_point():
            return result
        saturates = name in _FROM_RESULT | _FROM_WITHIN
        if name in _SUMS or saturates:
            shape = result.shape if name in _SUMS else ()
            result = result * (1 + self._change(result, shape))
        if saturates:
            change = self._change(result, result.shape)
            if name in _FROM_RESULT:
                change = change * result.detach().abs().clamp(max=1)
            result = _OtherDerivative.apply(result, args[0], change)
        return result

    def _change(self, result: Tensor, shape: Sequence[int]) -> Tensor:
        """Returns random changes of numbers near 1, in the result's precision."""
        draw = torch.rand(shape, generator=self._generator, dtype=result.dtype)
        return UNITS * torch.finfo(result.dtype).eps * (2 * draw - 1)


class _OtherDerivative(torch.autograd.Function):
    """The function y of x as it is, with a derivative that is off by a given change."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, change: Tensor) -> Tensor:
        ctx.save_for_backward(change)
        return y.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,), (change,) = gradients, ctx.saved_tensors
        return gradient, gradient * change, None
