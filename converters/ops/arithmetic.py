"""Arithmetic, comparisons and logic, element by element."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchfgsm.converters.ops.registry import Build, Built, Function, NotHere, constant


def divide(x: Tensor, y: Tensor) -> Tensor:
    """Returns x / y; integers are rounded towards 0."""
    whole = not (x.is_floating_point() or y.is_floating_point())
    return torch.div(x, y, rounding_mode="trunc" if whole else None)


class _ZeroKept(torch.autograd.Function):
    """A function whose infinite derivative passes a gradient of 0 on as 0, as TensorFlow's do."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kind: str) -> Tensor:
        ctx.kind = kind
        y = torch.sqrt(x) if kind == "sqrt" else torch.reciprocal(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,), (y,) = gradients, ctx.saved_tensors
        product = gradient / (2 * y) if ctx.kind == "sqrt" else -gradient * y * y
        return torch.where(gradient == 0, 0.0, product), None


def square_root(x: Tensor) -> Tensor:
    """Returns the square root; its gradient at 0 is 0, not NaN, where nothing depends on it.

    So the length of a zero vector behind a maximum or a mask has a gradient, as in TensorFlow.
    """
    return _zero_kept(x, "sqrt")


def reciprocal(x: Tensor) -> Tensor:
    """Returns 1 / x; its gradient at 0 is as that of :func:`square_root`."""
    return _zero_kept(x, "reciprocal")


def _zero_kept(x: Tensor, kind: str) -> Tensor:
    y: Tensor = _ZeroKept.apply(x, kind)
    return y


def total(*tensors: Tensor) -> Tensor:
    """Returns the sum of the tensors, which broadcast."""
    return functools.reduce(operator.add, tensors)


def mean(*tensors: Tensor) -> Tensor:
    """Returns the mean of the tensors, which broadcast."""
    return total(*tensors) / len(tensors)


def power(x: Tensor, exponent: Tensor) -> Tensor:
    """Returns x ** exponent in x's dtype.

    As in TensorFlow, the derivative by the exponent is 0 where x is not positive.
    """
    if not exponent.requires_grad:
        return torch.pow(x, exponent).to(x.dtype)
    positive = x > 0
    inside = torch.pow(torch.where(positive, x, 1.0), exponent)
    return torch.where(positive, inside, torch.pow(x, exponent.detach()))


def constant_power(x: Tensor, *, exponent: float) -> Tensor:
    """Returns x ** exponent in x's dtype."""
    return torch.pow(x, exponent).to(x.dtype)


def infinite(x: Tensor, *, negative: bool, positive: bool) -> Tensor:
    """Returns where ``x`` is infinite, on the sides that count."""
    if negative and positive:
        return torch.isinf(x)
    return torch.isposinf(x) if positive else torch.isneginf(x) & negative


def _plain(function: Callable[..., Tensor]) -> Build:
    def build(node: Any, graph: Any) -> Built:
        if node.attributes.get("broadcast"):  # until opset 6, along an axis
            raise NotHere
        return Function(function), node.input_values

    return build


def _power(node: Any, graph: Any) -> Built:
    if node.attributes.get("broadcast"):
        raise NotHere
    try:
        exponent = constant(node, graph, 1)
    except NotHere:
        return Function(power), node.input_values
    if isinstance(exponent, list):
        return Function(power), node.input_values
    return Function(constant_power, exponent=exponent), node.input_values[:1]


def _modulo(node: Any, graph: Any) -> Built:
    function = torch.fmod if node.attributes.get("fmod") else torch.remainder
    return Function(function), node.input_values


def _infinite(node: Any, graph: Any) -> Built:
    sides = {s: bool(node.attributes.get(f"detect_{s}", 1)) for s in ("negative", "positive")}
    return Function(infinite, **sides), node.input_values


_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Add": torch.add,
    "And": torch.logical_and,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Div": divide,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "IsNaN": torch.isnan,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Log": torch.log,
    "Mean": mean,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "Reciprocal": reciprocal,
    "Round": torch.round,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Sqrt": square_root,
    "Sub": torch.sub,
    "Sum": total,
    "Tan": torch.tan,
    "Where": torch.where,
    "Xor": torch.logical_xor,
}

BUILDERS: dict[str, Build] = {
    **{operation: _plain(function) for operation, function in _FUNCTIONS.items()},
    "IsInf": _infinite,
    "Mod": _modulo,
    "Pow": _power,
}
