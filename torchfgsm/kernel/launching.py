"""One call of the op on a GPU: tensors prepared, launches planned, kernels launched in order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from torchfgsm.kernel.arguments import (
    ALIGNED,
    OPERANDS,
    STAT_BYTES,
    Args,
    Numbers,
    Prepared,
    Rules,
    radius_of,
)
from torchfgsm.kernel.plan import CTYPES, Device, Launch, Plan, plan

_MOST_REPEATED = 256  # kinds of calls that a thread remembers


class Launcher(Protocol):
    """Where kernels run: a GPU, or the emulator of the tests."""

    @property
    def device(self) -> Device:
        """What plans must know of it."""

    def bind(self, launch: Launch, args: Args) -> Callable[[], None]:
        """What runs one kernel, in order with all others, on the struct as it is then."""


def unsupported(
    x: Sequence[Tensor],
    numbers: Sequence[Numbers],
    tensors: Sequence[Sequence[Tensor | None]],
    rules: Rules,
) -> str | None:
    """Why no kernel serves a call, which then runs as the reference; None where they do.

    Args:
        x: The inputs.
        numbers: For each input step, radius, bounds and mask as numbers.
        tensors: For each input the same five as tensors, None where the number counts.
        rules: The choices.
    """
    dtypes = {str(tensor.dtype).removeprefix("torch.") for tensor in x}
    if dtypes - set(CTYPES):
        return f"there are kernels for {sorted(CTYPES)}, got {sorted(dtypes)}"
    if any(tensor.numel() == 0 for tensor in x):
        return "an empty input has nothing to launch"
    if rules.norm == "linf":
        return None
    if rules.joint and len({tensor.shape[0] for tensor in x}) > 1:
        return "a norm over inputs needs as many examples in each"
    if rules.joint and len(dtypes) > 1:
        return f"a norm over inputs of several dtypes has no kernel, got {sorted(dtypes)}"
    radii = [radius_of(*given) for given in zip(numbers, tensors, strict=True)]
    if rules.norm == "l1" and any(radius is not None for radius in radii):
        return "projection to an L1 ball sorts, which torch does"
    if any(_is_by_element(*pair) for pair in zip(x, radii, strict=True)):
        return "an L2 ball has one radius for each example, got one for each element"
    return None


def _is_by_element(x: Tensor, radius: float | Tensor | None) -> bool:
    if not isinstance(radius, Tensor):
        return False
    by_example = radius.shape[0] if radius.dim() == x.dim() else 1
    return radius.numel() != by_example


def perturb(
    x: Sequence[Tensor],
    grad: Sequence[Tensor],
    origin: Sequence[Tensor],
    numbers: Sequence[float],
    tensors: Sequence[Tensor | None],
    choices: tuple[Any, ...],
    launcher: Launcher,
) -> list[Tensor] | None:
    """One turn of an attack by the kernels; see `core.step.turn`.

    Args:
        x: Where the step starts, for each input (N, ...).
        grad: Gradients, same shapes and dtypes.
        origin: The clean inputs, likewise; may be x.
        numbers: For each input step, radius, bounds and mask as numbers.
        tensors: For each input the same five as tensors, None where the number counts.
        choices: The fields of `Rules`.
        launcher: Where the kernels run.

    Returns:
        The moved inputs; None where no kernel serves the call, see `unsupported`.

    Raises:
        ValueError: A gradient or origin of another shape, dtype or device than its input.
        KernelUnavailable: A kernel cannot be compiled, loaded or launched.
    """
    for what, others in (("grad", grad), ("origin", origin)):
        for given, other in zip(x, others, strict=True):
            _refuse_other_than(given, what, other)
    key = None
    if len(x) == 1 and all(tensor is None for tensor in tensors):
        key = _kind(x[0], grad[0], origin[0], tuple(numbers), choices, launcher)
        repeated = _here.repeated.get(key)
        if repeated is not None:
            return [repeated.run(x[0], grad[0], origin[0])]
    rules, each = Rules(*choices), len(OPERANDS)
    starts = range(0, len(numbers), each)
    by_input = [Numbers(*numbers[i : i + each]) for i in starts]
    operands = [tensors[i : i + each] for i in starts]
    if unsupported(x, by_input, operands, rules) is not None:
        return None
    inputs = zip(x, grad, origin, by_input, operands, strict=True)
    prepared = [Prepared(*one, rules) for one in inputs]
    for group in [prepared] if rules.joint else [[one] for one in prepared]:
        planned = _planned(group, rules, launcher)
        sums = _room(planned, group[0].out)
        for launch in planned.launches:
            args = group[launch.source].launched(launch, planned.parts)
            _point_to(args, sums)
            launcher.bind(launch, args)()
    if key is not None and prepared[0].as_given:
        _here.remember(key, _Repeated(prepared[0], planned, launcher))
    return [one.result() for one in prepared]


def _refuse_other_than(x: Tensor, what: str, other: Tensor) -> None:
    # The kernels read by address: another shape would be read beyond its end.
    if x is not other and (
        x.shape != other.shape or x.dtype != other.dtype or x.device != other.device
    ):
        raise ValueError(
            f"{what} must be as x: expected {tuple(x.shape)} {x.dtype} on {x.device}, got "
            f"{tuple(other.shape)} {other.dtype} on {other.device}"
        )


def _planned(group: Sequence[Prepared], rules: Rules, launcher: Launcher) -> Plan:
    shrinks = any(one.shrinks for one in group)
    return plan(tuple(one.seen for one in group), rules.norm, shrinks, launcher.device)


def _room(planned: Plan, like: Tensor) -> Tensor | None:
    """Memory for the sums of all parts, twice; freed when the launches that use it are queued.

    The allocator gives it to no other stream before they have run.
    """
    if not planned.parts:
        return None
    size = like.shape[0] * planned.parts * STAT_BYTES
    return torch.empty(2, size, dtype=torch.uint8, device=like.device)


def _point_to(args: Args, sums: Tensor | None) -> None:
    if sums is not None:
        args.directions = sums.data_ptr()
        args.projections = args.directions + sums.stride(0)


def _kind(
    x: Tensor,
    grad: Tensor,
    origin: Tensor,
    numbers: tuple[float, ...],
    choices: tuple[Any, ...],
    launcher: Launcher,
) -> Hashable:
    """All that a call's launches depend on but the addresses."""
    start, other, clean = x.data_ptr(), grad.data_ptr(), origin.data_ptr()
    return (
        x.shape,
        x.stride(),
        grad.stride(),
        origin.stride(),
        x.dtype,
        (start | other | clean) % ALIGNED,
        start == clean,
        numbers,
        choices,
        launcher,
    )


class _Repeated:
    """The launches of a call whose tensors need no copies; a call like it has other addresses."""

    def __init__(self, prepared: Prepared, planned: Plan, launcher: Launcher) -> None:
        self._planned = planned
        self._structs = [
            Args.from_buffer_copy(prepared.launched(launch, planned.parts))
            for launch in planned.launches
        ]
        pairs = zip(planned.launches, self._structs, strict=True)
        self._launches = [launcher.bind(launch, args) for launch, args in pairs]

    def run(self, x: Tensor, grad: Tensor, origin: Tensor) -> Tensor:
        """The moved input."""
        out = torch.empty_like(x)
        sums = _room(self._planned, out)
        for args in self._structs:
            args.x, args.grad, args.out = x.data_ptr(), grad.data_ptr(), out.data_ptr()
            args.origin = origin.data_ptr()
            _point_to(args, sums)
        for launch in self._launches:
            launch()
        return out


class _Here(threading.local):
    """What this thread has launched; another would change the addresses before the launch."""

    def __init__(self) -> None:
        self.repeated: dict[Hashable, _Repeated] = {}

    def remember(self, key: Hashable, call: _Repeated) -> None:
        if len(self.repeated) >= _MOST_REPEATED:
            self.repeated.clear()
        self.repeated[key] = call


_here = _Here()
