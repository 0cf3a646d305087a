"""Calls of `torchfgsm::perturb` on which kernels and reference are compared, and how.

The calls are drawn from all that the op takes, with a fixed seed. Gradients have rows of every
kind: plain, tied, zero, NaN and infinite, around the guard, at the ends of the dtype's range.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

import torch
from layouts import LAYOUTS, laid_out
from torch import Tensor

from torchfgsm.core import step as one_turn
from torchfgsm.kernel import op

INF = math.inf
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Ragged, of one element, of several blocks, of a cluster, and beyond what stays on the chip.
SHAPES = (
    (1, 1),
    (6,),
    (9, 1),
    (7, 10),
    (5, 24),
    (3, 37),
    (130, 8),
    (5, 3, 7, 9),
    (4, 784),
    (3, 3, 32, 32),
    (2, 5001),
    (2, 20000),
    (1, 3, 112, 112),
    (1, 80001),
)
BEYOND_THE_CHIP = (1, 320000)


@dataclass(frozen=True)
class Case:
    """One call.

    Attributes:
        name: For messages.
        x: Inputs; every list has one entry per input.
        grad: Gradients.
        origin: Clean inputs; x itself where the step starts there.
        numbers: Step, radius, bounds and mask of each input.
        tensors: The same as tensors, or None.
        rules: norm, nonfinite, clip_grad, guard, joint, order, crossed_clip.
    """

    name: str
    x: list[Tensor]
    grad: list[Tensor]
    origin: list[Tensor]
    numbers: list[float]
    tensors: list[Tensor | None]
    rules: tuple[Any, ...]

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The op's arguments."""
        return (self.x, self.grad, self.origin, self.numbers, self.tensors, *self.rules)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Case:
        """The same call elsewhere, or in another dtype."""

        def moved(tensor: Tensor) -> Tensor:
            # The strides, gaps and all, stay what they are.
            storage = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
            storage = storage.to(device=device, dtype=dtype or tensor.dtype)
            return storage.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

        x = [moved(t) for t in self.x]
        origin = [
            x[i] if a is b else moved(b)
            for i, (a, b) in enumerate(zip(self.x, self.origin, strict=True))
        ]
        grad = [moved(t) for t in self.grad]
        tensors = [None if t is None else moved(t) for t in self.tensors]
        return Case(self.name, x, grad, origin, self.numbers, tensors, self.rules)


def plain(
    norm: str,
    x: Tensor,
    grad: Tensor,
    origin: Tensor | None = None,
    *,
    radius: float = INF,
    nonfinite: str = "zero",
    guard: float = 1e-12,
) -> Case:
    """A call on one input with a step of 0.1, clipped to [0, 1], and little else."""
    rules = (norm, nonfinite, False, guard, True, "project_clip", "max")
    numbers = [0.1, radius, 0.0, 1.0, 1.0]
    name = f"{norm}, {tuple(x.shape)}, radius {radius}"
    return Case(name, [x], [grad], [x if origin is None else origin], numbers, [None] * 5, rules)


def drawn(count: int, *, seed: int = 0, dtypes: tuple[torch.dtype, ...] = DTYPES) -> list[Case]:
    """That many calls, the same ones for the same seed."""
    return [_draw(random.Random(1000 * seed + i), dtypes[i % len(dtypes)]) for i in range(count)]


def _draw(pick: random.Random, dtype: torch.dtype) -> Case:
    norm = pick.choice(("linf", "l2", "l1"))
    plain = pick.random() < 0.3  # what the tuned kernels take
    shape = pick.choice(SHAPES)
    if pick.random() < 0.02:
        shape = BEYOND_THE_CHIP
    inputs = 1 if plain or pick.random() < 0.8 else 2
    rules = (
        norm,
        pick.choice(("zero", "propagate", "ignore")),
        not plain and pick.random() < 0.3,
        pick.choice((0.0, 1e-12)),
        pick.random() < 0.7,
        pick.choice(("project_clip", "clip_project_clip")),
        pick.choice(("max", "min")),
    )
    generator = torch.Generator().manual_seed(pick.randrange(2**31))
    options = {
        "plain": plain,
        "ball": not plain and norm != "l1" and pick.random() < 0.6,
        "by_element": norm == "linf",
        "both_bounds": rules[2],
    }
    parts = [_one(pick, generator, dtype, shape, **options) for _ in range(inputs)]
    x, grad, origin = zip(*(part[0] for part in parts), strict=True)
    numbers = [value for part in parts for value in part[1]]
    tensors = [value for part in parts for value in part[2]]
    name = f"{inputs} of {dtype} {tuple(shape)}, {rules}, {'plain' if plain else numbers}"
    return Case(name, list(x), list(grad), list(origin), numbers, tensors, rules)


def _one(
    pick: random.Random,
    generator: torch.Generator,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    *,
    plain: bool,
    ball: bool,
    by_element: bool,
    both_bounds: bool,
) -> tuple[tuple[Tensor, Tensor, Tensor], list[float], list[Tensor | None]]:
    def uniform(*sizes: int) -> Tensor:
        return torch.rand(sizes, generator=generator, dtype=torch.float64)

    layout = pick.choice(LAYOUTS) if pick.random() < 0.4 else "contiguous"
    if plain and pick.random() < 0.2:
        layout = "misaligned"
    x = laid_out(uniform(*shape).to(dtype), layout)
    grad = laid_out(_gradient(generator, dtype, shape, pick.random() < 0.5), layout)
    if pick.random() < 0.2:
        grad = grad.contiguous()
    x.flatten()[::5].zero_()  # entries at the bounds, for clip_grad
    bounds = [(0.0, 1.0), (0.2, 0.7)] if both_bounds else [(-INF, INF), (0.0, 1.0), (0.2, INF)]
    numbers = [0.1, 0.13 if ball else INF, *pick.choice(bounds), 1.0]
    tensors: list[Tensor | None] = [None] * 5
    if plain:
        return (x, grad, x), numbers, tensors
    origin = x
    if pick.random() < 0.6:
        origin = laid_out((x + 0.1 * (uniform(*shape) - 0.5)).to(dtype), layout)
    for place, (scale, offset) in enumerate(((0.2, 0), (0.2, 0.01), (0.4, 0), (0.7, 0.3), (1, 0))):
        if pick.random() < 0.4 and (place != 1 or ball):
            sizes = pick.choice(_operand_shapes(shape, by_element or place != 1))
            tensors[place] = (uniform(*sizes) * scale + offset).to(dtype)
    if tensors[4] is not None:
        tensors[4] = torch.where(tensors[4] < 0.4, 0.0, tensors[4])
    elif pick.random() < 0.2:
        numbers[4] = 0.5
    return (x, grad, origin), numbers, tensors


def _operand_shapes(shape: tuple[int, ...], by_element: bool) -> list[tuple[int, ...]]:
    """Shapes that broadcast: one number, one for each example, element, channel or column."""
    ones = (1,) * (len(shape) - 1)
    found: list[tuple[int, ...]] = [(), (1,) * len(shape), (shape[0], *ones)]
    if by_element:
        found += [shape, shape[1:], (1, *shape[1:])]
        if len(shape) > 2:
            found += [(1, shape[1], *ones[1:]), (shape[0], *ones[:-1], shape[-1])]
    return found


def _gradient(
    generator: torch.Generator, dtype: torch.dtype, shape: tuple[int, ...], tied: bool
) -> Tensor:
    grad = torch.randn(shape, generator=generator, dtype=torch.float64)
    if tied:
        grad = (grad * 2).round()
    rows = grad.reshape(shape[0], -1)
    size = rows.norm(dim=1, keepdim=True).clamp(min=1e-30)
    info = torch.finfo(dtype)
    first = int(torch.randint(9, (), generator=generator))
    for i, row in enumerate(rows):
        kind = (first + i) % 9
        if kind == 1:
            row.zero_()
        elif kind == 2:
            row[0], row[-1] = math.nan, 3.0
        elif kind == 3:
            row[-1], row[0] = -INF, 2.0
        elif kind in (4, 5, 6):  # below, at and above the guard of 1e-6
            row *= 10.0 ** (kind - 5) * 1e-6 / size[i]
        elif kind == 7:
            row *= info.max / 8 if first % 2 else info.max**0.49
        elif kind == 8:
            row *= info.tiny
    return grad.clamp(-info.max, info.max).where(grad.isfinite(), grad).to(dtype)


def difference(case: Case, found: list[Tensor], expected: list[Tensor]) -> str | None:
    """What is wrong with a result; None if nothing is.

    L-inf and L1 must have the reference's bits. L2 must lie within 3 units in the last place of the
    value that the reference gives in float64 (of the larger of it and what it is computed from);
    of its own value where squares overflow in the dtype but not in float64.

    Args:
        case: The call.
        found: The kernels' result.
        expected: The reference's, in the case's own dtype.
    """
    exact = _in_float64(case, expected) if case.rules[0] == "l2" else expected
    for i, (ours, theirs, truth) in enumerate(zip(found, expected, exact, strict=True)):
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            return f"input {i}: {ours.shape} {ours.dtype} in place of {theirs.shape} {theirs.dtype}"
        if ours.stride() != theirs.stride():
            return f"input {i}: strides {ours.stride()} in place of {theirs.stride()}"
        if not torch.equal(ours.isnan(), theirs.isnan()):
            counts = int(ours.isnan().sum()), int(theirs.isnan().sum())
            return f"input {i}: NaN in {counts[0]} places and not in {counts[1]}"
        if case.rules[0] != "l2":
            wrong = (ours != theirs) & ~ours.isnan()
        else:
            largest = torch.stack([t.double().abs() for t in (case.x[i], case.origin[i], truth)])
            unit = torch.finfo(ours.dtype).eps * largest.nan_to_num(0, 0, 0).amax(0)
            unit = unit.clamp(min=torch.finfo(ours.dtype).smallest_normal)
            near = (ours.double() - truth).abs() <= 3 * unit
            wrong = ~near & (ours != theirs) & ~ours.isnan()
        if bool(wrong.any()):
            at = tuple(wrong.nonzero()[0].tolist())
            return (
                f"input {i}: {int(wrong.sum())} of {wrong.numel()} differ, the first at {at}: "
                f"{float(ours[at])!r} in place of {float(theirs[at])!r}, in float64 "
                f"{float(truth[at])!r}"
            )
    return None


def _in_float64(case: Case, expected: list[Tensor]) -> list[Tensor]:
    """The reference in float64, from the gradient as the case's own dtype conditions it."""
    recipe, call = op._recipe(*case.rules), op._together(case.numbers, case.tensors)
    grads = one_turn.conditioned(case.x, case.grad, recipe, call)
    tensors = [None if i % 5 == 4 else t for i, t in enumerate(case.tensors)]
    numbers = [1.0 if i % 5 == 4 else n for i, n in enumerate(case.numbers)]
    norm, _, _, *others = case.rules
    conditioned = Case(
        case.name, case.x, grads, case.origin, numbers, tensors, (norm, "ignore", False, *others)
    )
    found: list[Tensor] = torch.ops.torchfgsm.perturb(
        *conditioned.to("cpu", torch.float64).arguments
    )
    for i, (exact, own) in enumerate(zip(found, expected, strict=True)):
        those = grads if recipe.joint else grads[i : i + 1]
        squares = sum(g.double().square().reshape(g.shape[0], -1).sum(1) for g in those)
        overflows = torch.as_tensor(squares) > torch.finfo(torch.float32).max
        if recipe.guard > 0 and own.dtype != torch.float64:
            exact[overflows] = own[overflows].double()
    return found
