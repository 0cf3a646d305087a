"""The op `torchfgsm::perturb`: one turn of an attack, on CUDA by the kernels."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchfgsm.core import engine, step
from torchfgsm.core.limits import Call
from torchfgsm.core.recipe import Recipe
from torchfgsm.kernel import cubins, driver
from torchfgsm.kernel.arguments import OPERANDS, Rules
from torchfgsm.kernel.errors import KernelUnavailable
from torchfgsm.kernel.launching import perturb
from torchfgsm.kernel.plan import kernel_name

# For each input `numbers` and `tensors` have five entries: step, radius, lower and upper bound, and
# mask; a tensor counts in place of its number. An infinite radius is none, an infinite bound too.
_SCHEMA = (
    "perturb(Tensor[] x, Tensor[] grad, Tensor[] origin, float[] numbers, Tensor?[] tensors, "
    "str norm, str nonfinite, bool clip_grad, float guard, bool joint, str order, "
    "str crossed_clip) -> Tensor[]"
)
_ABSENT = tuple(OPERANDS.values())
_EACH = len(OPERANDS)
_CHOICES = tuple(field.name for field in dataclasses.fields(Rules))  # in the schema's order
_library: Any = torch.library.Library("torchfgsm", "DEF")  # type: ignore[no-untyped-call]
_library.define(_SCHEMA, tags=(torch.Tag.pt2_compliant_tag,))


def turn(
    x: Sequence[Tensor],
    origin: Sequence[Tensor],
    grads: Sequence[Tensor],
    recipe: Recipe,
    call: Call,
) -> list[Tensor]:
    """The features after one turn: `core.step.turn`, by the kernels where they serve.

    They serve CUDA tensors through which no derivative is taken.
    """
    differentiable = torch.is_grad_enabled() and any(
        tensor.requires_grad for tensor in (*x, *origin, *grads)
    )
    if not x or differentiable:
        return step.turn(x, origin, grads, recipe, call)
    whole = recipe.scalar_examples == "joint"
    given = [[t[None] if whole and t.dim() == 1 else t for t in ts] for ts in (x, grads, origin)]
    numbers, tensors = _apart(call)
    moved = torch.ops.torchfgsm.perturb.default(
        *given,
        numbers,
        tensors,
        *[getattr(recipe, name) for name in _CHOICES],
    )
    return [a.reshape(b.shape) for a, b in zip(moved, x, strict=True)] if whole else list(moved)


def _apart(call: Call) -> tuple[list[float], list[Tensor | None]]:
    """A call's numbers and tensors, as the op takes them."""
    numbers: list[float] = []
    tensors: list[Tensor | None] = []
    for entries in zip(call.steps, call.radii, call.lows, call.highs, call.masks, strict=True):
        for value, absent in zip(entries, _ABSENT, strict=True):
            tensors.append(value if isinstance(value, Tensor) else None)
            numbers.append(float(value) if isinstance(value, (int, float)) else absent)
    return numbers, tensors


def _together(numbers: Sequence[float], tensors: Sequence[Tensor | None]) -> Call:
    """The call that `_apart` took apart."""
    columns: list[Any] = []
    for place, absent in enumerate(_ABSENT):
        pairs = zip(numbers[place::_EACH], tensors[place::_EACH], strict=True)
        given = [number if tensor is None else tensor for number, tensor in pairs]
        columns.append([None if place and _is(value, absent) else value for value in given])
    steps, radii, lows, highs, masks = columns
    return Call(steps, radii, lows, highs, masks)


def _is(value: float | Tensor, number: float) -> bool:
    return not isinstance(value, Tensor) and value == number


def _on_cpu(
    x: list[Tensor],
    grad: list[Tensor],
    origin: list[Tensor],
    numbers: list[float],
    tensors: list[Tensor | None],
    *choices: Any,
) -> list[Tensor]:
    """The reference, with outputs in the strides that the op promises."""
    moved = step.turn(x, origin, grad, _recipe(*choices), _together(numbers, tensors))
    return [torch.empty_like(a).copy_(b) for a, b in zip(x, moved, strict=True)]


@functools.lru_cache(maxsize=64)
def _recipe(*choices: Any) -> Recipe:
    return Recipe(step=None, **dict(zip(_CHOICES, choices, strict=True)))


def _on_cuda(
    x: list[Tensor],
    grad: list[Tensor],
    origin: list[Tensor],
    numbers: list[float],
    tensors: list[Tensor | None],
    *choices: Any,
) -> list[Tensor]:
    """The kernels; the reference, with one warning, where they cannot be had."""
    index = x[0].device.index
    if index not in _failures:
        try:
            with torch.cuda.device(index):
                launcher = driver.gpu(index)
                moved = perturb(x, grad, origin, numbers, tensors, choices, launcher)
            if moved is not None:
                return moved
        except KernelUnavailable as error:
            _give_up(index, error)
    return _on_cpu(x, grad, origin, numbers, tensors, *choices)


def _fake(x: list[Tensor], *others: Any) -> list[Tensor]:
    return [torch.empty_like(tensor) for tensor in x]


def _batched(info: Any, in_dims: Any, *arguments: Any) -> tuple[list[Tensor], list[int]]:
    """Under vmap the examples of all its entries become one batch: each is moved by itself."""
    size = info.batch_size

    def merged(tensor: Any, dim: int | None, like: Tensor | None) -> Any:
        if tensor is None:
            return None
        moved = tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        if like is not None and moved.dim() <= like.dim():
            # It broadcasts to x: first to all of its dimensions, then to its examples.
            moved = moved.reshape(size, *[1] * (like.dim() + 1 - moved.dim()), *moved.shape[1:])
            moved = moved.expand(size, like.shape[0], *moved.shape[2:])
        return moved.flatten(0, 1)

    x, grad, origin, numbers, tensors, *choices = arguments
    first = [t if d is None else t.select(d, 0) for t, d in zip(x, in_dims[0], strict=True)]
    inputs = [
        [merged(t, d, None) for t, d in zip(given, dims, strict=True)]
        for given, dims in zip((x, grad, origin), in_dims[:3], strict=True)
    ]
    others = [
        merged(t, d, first[i // _EACH])
        for i, (t, d) in enumerate(zip(tensors, in_dims[4], strict=True))
    ]
    found = torch.ops.torchfgsm.perturb.default(*inputs, numbers, others, *choices)
    return [tensor.unflatten(0, (size, -1)) for tensor in found], [0] * len(found)


_SMALLEST = kernel_name("linf", "float", 1)
_failures: dict[int, str] = {}


def _give_up(index: int, error: KernelUnavailable) -> None:
    _failures[index] = str(error)
    warnings.warn(
        f"the native kernels do not run on cuda:{index}, plain torch operations do, with the same "
        f"results and slower: {error}. `torchfgsm env` shows more",
        UserWarning,
        stacklevel=2,
    )


def why_not(device: torch.device | None = None) -> str | None:
    """Why the native kernels do not serve a CUDA device.

    Args:
        device: The device; by default the current one.

    Returns:
        One sentence, or None where they serve, as far as compiling the smallest of them tells.
    """
    if not torch.cuda.is_available():
        if torch.version.cuda is None:
            return "this torch is built without CUDA"
        return "torch finds no CUDA device"
    index = torch.cuda.current_device() if device is None or device.index is None else device.index
    if index in _failures:
        return _failures[index]
    try:
        driver.load()
        cubins.get(_SMALLEST, driver.gpu(index).device.architecture)
    except KernelUnavailable as error:
        return str(error)
    return None


_library.impl("perturb", _on_cpu, "CPU")
_library.impl("perturb", _on_cuda, "CUDA")
torch.library.register_fake("torchfgsm::perturb", _fake, lib=_library)
torch.library.register_vmap("torchfgsm::perturb", _batched, lib=_library)
engine.BY_DEVICE["cuda"] = turn
