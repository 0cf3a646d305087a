"""Refuses inputs that a converted model does not take, before it runs.

Shapes and dtypes are Python values, so that a compiled model has no graph break here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from torchfgsm.converters.annotation import Port

_ONLY_INTEGERS = (
    "; the model computes with these as integers (as indices, say), so that no gradient leads to "
    "them and an attack cannot move them: attack what stands behind them, such as an embedding's "
    "output, or give another input as floating-point numbers"
)

_ONE_SIZE = "; the model takes batches of that one size alone: give it so many examples at a time"


def ordered_inputs(
    ports: Sequence[Port],
    inputs: Sequence[Any],
    dtype: torch.dtype | None,
    casts: Collection[str] = (),
) -> list[Tensor]:
    """Returns the inputs in the order of the ports, integers in the dtype that the model knows.

    Args:
        ports: the model's inputs.
        inputs: what the model was called with: a tensor for each port, or one mapping of them.
        dtype: the floating dtype in which the model computes, None where any will do.
        casts: names of integer inputs that the model makes floating-point before anything else:
            it takes them so, too, and gradients reach them.

    Raises:
        ValueError: their number, names, dtypes or shapes are not the model's.
        TypeError: an input is no tensor.
    """
    names = [port.name for port in ports]
    if len(inputs) == 1 and isinstance(inputs[0], Mapping):
        if set(inputs[0]) != set(names):
            raise ValueError(f"expected the inputs {names}, got {list(inputs[0])}")
        inputs = [inputs[0][name] for name in names]
    if len(inputs) != len(names):
        raise ValueError(f"expected {len(names)} inputs {names}, got {len(inputs)}")
    return [_checked(p, x, dtype, p.name in casts) for p, x in zip(ports, inputs, strict=True)]


def _checked(port: Port, x: Any, dtype: torch.dtype | None, cast: bool) -> Tensor:
    if not isinstance(x, Tensor):
        raise TypeError(f"input {port.name!r}: expected a tensor, got {type(x).__name__}")
    floating = port.dtype.startswith("float")
    given = x.is_floating_point()
    fits = _shape_fits(port, x)
    if cast and given and fits:
        return x
    wanted = dtype or x.dtype if floating else getattr(torch, port.dtype)
    if not fits or not _dtype_fits(x, wanted, floating):
        raise ValueError(
            f"input {port.name!r}: expected {described(port)} {_name(wanted)}, "
            f"got {tuple(x.shape)} {_name(x.dtype)}"
            + (_ONLY_INTEGERS if given and not floating and fits else "")
            + (_ONE_SIZE if not fits and _shape_fits(replace(port, batch=None), x) else "")
        )
    return x if floating else x.to(wanted)


def described(port: Port) -> str:
    """Returns a port's shape for people, such as "(N, 8, 8, 3)"."""
    if port.scalar:
        return "()"
    sizes = ", ".join("?" if n is None else str(n) for n in port.shape)
    batch = "N" if port.batch is None else port.batch
    return f"({batch}, {sizes})" if sizes else f"({batch},)"


def _shape_fits(port: Port, x: Tensor) -> bool:
    if not port.shape:
        return True  # a scalar, or a shape that the file does not tell
    if x.dim() != len(port.shape) + 1 or port.batch not in (None, x.shape[0]):
        return False
    return all(n is None or n == m for n, m in zip(port.shape, x.shape[1:], strict=True))


def _dtype_fits(x: Tensor, wanted: torch.dtype, floating: bool) -> bool:
    if floating:
        # Under autocast the operations choose their own dtype.
        return x.dtype == wanted or (
            x.is_floating_point() and torch.is_autocast_enabled(x.device.type)
        )
    return not x.is_floating_point() and (x.dtype == torch.bool) == (wanted == torch.bool)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
