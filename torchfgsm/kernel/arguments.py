"""Tensors of one call as the kernels read them: addresses, strides, and the struct that holds them.

An example is one run of memory, in the same order in every tensor. Contiguous and channels_last
batches are such; what is laid out differently is copied into the order of x first.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torchfgsm.kernel.plan import Input, Launch

NORMS = {"linf": 0, "l1": 1, "l2": 2}
# The bits of `Rule` in arithmetic.h.
ZERO_NONFINITE, NAN_HAS_NO_SIGN, CLIP_GRAD, CLIP_FIRST, LOW_WINS, PROJECT = 1, 2, 4, 8, 16, 32
ALIGNED = 16  # bytes of the widest access
STAT_BYTES = 32
# What each input is given as a number or a tensor, in this order, and the number that stands for
# none (a step there always is).
OPERANDS = {"step": 0.0, "radius": math.inf, "low": -math.inf, "high": math.inf, "mask": 1.0}
_RADIUS = list(OPERANDS).index("radius")


class _Operand(ctypes.Structure):
    """`Operand` in perturb.cu."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("row_stride", ctypes.c_longlong),
        ("column_stride", ctypes.c_longlong),
        ("value", ctypes.c_double),
    )


class Args(ctypes.Structure):
    """`Args` in perturb.cu, field by field."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "grad", "origin", "out")),
        *((name, _Operand) for name in OPERANDS),
        ("directions", ctypes.c_void_p),
        ("projections", ctypes.c_void_p),
        ("rows", ctypes.c_longlong),
        ("columns", ctypes.c_longlong),
        ("guard", ctypes.c_double),
        *((name, ctypes.c_int) for name in ("norm", "rules", "group", "cluster", "lane_bits")),
        *((name, ctypes.c_int) for name in ("parts", "all_parts", "first_part", "projecting")),
    )


@dataclass(frozen=True)
class Rules:
    """The choices of a call that are the same for all of its inputs; see `torchfgsm.Recipe`."""

    norm: str
    nonfinite: str
    clip_grad: bool
    guard: float
    joint: bool
    order: str
    crossed_clip: str

    def bits(self, *, projects: bool) -> int:
        """The bits of `Rule` in arithmetic.h."""
        return (
            ZERO_NONFINITE * (self.nonfinite == "zero")
            | NAN_HAS_NO_SIGN * (self.nonfinite == "propagate")
            | CLIP_GRAD * self.clip_grad
            | CLIP_FIRST * (self.order == "clip_project_clip")
            | LOW_WINS * (self.crossed_clip == "min")
            | PROJECT * projects
        )


@dataclass(frozen=True)
class Numbers:
    """What one input is given as numbers, or as tensors in place of them.

    Attributes:
        step: Length of a step.
        radius: Radius of the ball; infinite: none.
        low: Lower bound; infinite: none.
        high: Upper bound; infinite: none.
        mask: Factor on the gradient.
    """

    step: float
    radius: float
    low: float
    high: float
    mask: float


def radius_of(numbers: Numbers, tensors: Sequence[Tensor | None]) -> float | Tensor | None:
    """The radius of an input's ball, or None where there is no ball."""
    tensor = tensors[_RADIUS]
    number = None if numbers.radius == OPERANDS["radius"] else numbers.radius
    return number if tensor is None else tensor


class Prepared:
    """One input, ready for launches.

    Args:
        x: Where the step starts (N, ...).
        grad: The gradient, same shape and dtype.
        origin: The clean input, same shape and dtype; may be x.
        numbers: Step, radius, bounds and mask as numbers.
        tensors: The same as tensors that broadcast to x, None where the number counts.
        rules: The choices.
    """

    def __init__(
        self,
        x: Tensor,
        grad: Tensor,
        origin: Tensor,
        numbers: Numbers,
        tensors: Sequence[Tensor | None],
        rules: Rules,
    ) -> None:
        starts_there = origin.data_ptr() == x.data_ptr() and origin.stride() == x.stride()
        given = [x, grad, origin]
        x = x if examples_are_runs(x) else x.contiguous()
        self.out = torch.empty_like(x)
        grad = in_order_of(x, grad)
        origin = x if starts_there else in_order_of(x, origin)
        rows = x.shape[0]
        self._given = given[0]
        self._kept = [x, grad, origin]
        # Whether a call with tensors of the same strides finds all of them as they are.
        self.as_given = x is given[0] and grad is given[1] and (starts_there or origin is given[2])
        operands = {
            name: self._operand(x, value, tensor)
            for name, value, tensor in zip(OPERANDS, _held(numbers, x.dtype), tensors, strict=True)
        }
        projects = radius_of(numbers, tensors) is not None
        self.args = Args(
            x=x.data_ptr(),
            grad=grad.data_ptr(),
            origin=origin.data_ptr(),
            out=self.out.data_ptr(),
            rows=rows,
            columns=x.numel() // rows,
            guard=rules.guard,
            norm=NORMS[rules.norm],
            rules=rules.bits(projects=projects),
            **operands,
        )
        self.shrinks = projects and rules.norm == "l2"
        self.seen = self._as_seen(rules, projects, operands, numbers)

    def _operand(self, x: Tensor, value: float, tensor: Tensor | None) -> _Operand:
        if tensor is None:
            return _Operand(None, 0, 0, value)
        data, row_stride, column_stride = _addressed(x, tensor)
        self._kept.append(data)  # until the launch, the only one that knows it by address
        return _Operand(data.data_ptr(), row_stride, column_stride, 0.0)

    def _as_seen(
        self, rules: Rules, projects: bool, operands: dict[str, _Operand], numbers: Numbers
    ) -> Input:
        args = self.args
        by_column = [o.data for o in operands.values() if o.column_stride]
        plain = (
            args.origin == args.x
            and not projects
            and not rules.clip_grad
            and numbers.mask == OPERANDS["mask"]
            and all(o.data is None for o in operands.values())
        )
        addresses = (args.x, args.grad, args.origin, args.out, *by_column)
        aligned = all(address % ALIGNED == 0 for address in addresses)
        size = self.out.element_size()
        # A flat kernel may cut a vector across examples; all others begin each example anew.
        flat = plain and rules.norm == "linf"
        wide = aligned and (flat or args.columns * size % ALIGNED == 0)
        return Input(str(self.out.dtype)[6:], args.rows, args.columns, wide, plain)

    def launched(self, launch: Launch, parts: int) -> Args:
        """The struct for one launch, with `parts` of an example over all inputs."""
        args = self.args
        args.parts, args.all_parts = launch.parts, parts
        args.first_part, args.projecting = launch.first_part, launch.projecting
        args.group, args.cluster = launch.group, launch.cluster
        args.lane_bits = (launch.group * launch.cluster).bit_length() - 1
        return args

    def result(self) -> Tensor:
        """The output, in the strides that `torch.empty_like` gives for the input."""
        given = self._given
        return self.out if examples_are_runs(given) else torch.empty_like(given).copy_(self.out)


def _held(numbers: Numbers, dtype: torch.dtype) -> list[float]:
    """Bounds as the dtype holds them, to which torch compares and clips; factors as they are."""

    def held(value: float) -> float:
        half = dtype in (torch.float16, torch.bfloat16)
        return float(torch.tensor(value, dtype=dtype)) if half else value

    bounds = (numbers.radius, numbers.low, numbers.high)
    return [numbers.step, *map(held, bounds), numbers.mask]


def examples_are_runs(tensor: Tensor) -> bool:
    """Whether the examples lie one after the other in memory, each without gaps."""
    if tensor.is_contiguous():
        return True
    count = 1
    order = sorted(range(1, tensor.dim()), key=tensor.stride) if tensor.dim() > 1 else []
    for dim in (*order, 0):
        if tensor.shape[dim] != 1:
            if tensor.stride(dim) != count:
                return False
            count *= tensor.shape[dim]
    return True


def in_order_of(x: Tensor, tensor: Tensor) -> Tensor:
    """The tensor, which has the shape of x, with its elements in the same order in memory."""
    sizes = zip(x.shape, x.stride(), tensor.stride(), strict=True)
    if all(size == 1 or ours == theirs for size, ours, theirs in sizes):
        return tensor
    return torch.empty_like(x).copy_(tensor)


def _addressed(x: Tensor, tensor: Tensor) -> tuple[Tensor, int, int]:
    """A tensor that broadcasts to x, and its strides from example to example and within one."""
    columns = x.numel() // x.shape[0]
    missing = x.dim() - tensor.dim()
    tensor = tensor.reshape(*[1] * missing, *tensor.shape)
    by_row = tensor.shape[0] > 1
    if tensor.numel() == tensor.shape[0]:  # one number for each example, or for all of them
        return tensor, tensor.stride(0) if by_row else 0, 0
    if by_row:
        return in_order_of(x, tensor.expand_as(x)), columns, 1
    return in_order_of(x[:1], tensor.expand_as(x[:1])), 0, 1
