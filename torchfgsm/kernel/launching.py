"""One call of the op on a GPU: tensors prepared, launches planned, kernels launched in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from torchfgsm.kernel.arguments import STAT_BYTES, Args, Numbers, Prepared, Rules
from torchfgsm.kernel.plan import CTYPES, Device, Launch, plan


class Launcher(Protocol):
    """Where kernels run: a GPU, or the emulator of the tests."""

    @property
    def device(self) -> Device:
        """What plans must know of it."""

    def launch(self, launch: Launch, args: Args) -> None:
        """Runs one kernel, in order with all others."""


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
    if rules.norm == "linf":
        return None
    if rules.joint and len(dtypes) > 1:
        return f"a norm over inputs of several dtypes has no kernel, got {sorted(dtypes)}"
    radii = [given[_RADIUS] for given in tensors]
    if rules.norm == "l1" and (
        any(radius is not None for radius in radii)
        or any(given.radius != float("inf") for given in numbers)
    ):
        return "projection to an L1 ball sorts, which torch does"
    if any(_is_by_element(*pair) for pair in zip(x, radii, strict=True)):
        return "an L2 ball has one radius for each example, got one for each element"
    return None


_RADIUS = 1  # its place among step, radius, low, high and mask


def _is_by_element(x: Tensor, radius: Tensor | None) -> bool:
    if radius is None:
        return False
    by_example = radius.shape[0] if radius.dim() == x.dim() else 1
    return radius.numel() != by_example


def perturb(
    x: Sequence[Tensor],
    grad: Sequence[Tensor],
    origin: Sequence[Tensor],
    numbers: Sequence[Numbers],
    tensors: Sequence[Sequence[Tensor | None]],
    rules: Rules,
    launcher: Launcher,
) -> list[Tensor]:
    """One turn of an attack by the kernels; see `torchfgsm.reference.turn`.

    Args:
        x: Where the step starts, for each input (N, ...).
        grad: Gradients, same shapes and dtypes.
        origin: The clean inputs, likewise; may be x.
        numbers: For each input step, radius, bounds and mask as numbers.
        tensors: For each input the same five as tensors, None where the number counts.
        rules: The choices.
        launcher: Where the kernels run.

    Returns:
        The moved inputs.
    """
    prepared = [
        Prepared(*given, rules) for given in zip(x, grad, origin, numbers, tensors, strict=True)
    ]
    groups = [prepared] if rules.joint else [[one] for one in prepared]
    for group in groups:
        _run(group, rules, launcher)
    return [one.result() for one in prepared]


def _run(group: Sequence[Prepared], rules: Rules, launcher: Launcher) -> None:
    planned = plan(
        tuple(one.seen for one in group),
        rules.norm,
        any(one.shrinks for one in group),
        launcher.device,
    )
    directions = projections = 0
    if planned.parts:
        rows = group[0].seen.rows
        room = rows * planned.parts * STAT_BYTES
        # Freed after the launches are queued; the allocator gives it to no other stream before.
        sums = torch.empty(2 * room, dtype=torch.uint8, device=group[0].out.device)
        directions = sums.data_ptr()
        projections = directions + room
    for launch in planned.launches:
        source = group[launch.source]
        launcher.launch(launch, source.launched(launch, planned.parts, directions, projections))
