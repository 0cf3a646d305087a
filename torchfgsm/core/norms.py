"""What each norm means: the direction of a step, the projection to a ball, a random start.

This is the reference in plain torch. Results depend on the values alone: sums run as a fixed tree
of elementwise additions, so that strides, threads and the way a batch is split change no bit.
Half-precision input is reduced in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

Radius = float | Tensor
Bound = float | Tensor | None


def _wide(tensor: Tensor) -> Tensor:
    """The tensor in the dtype in which it is reduced."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _rows(tensor: Tensor) -> Tensor:
    """Each example as one row, (N, elements), in the dtype of reductions."""
    return _wide(tensor).reshape(tensor.shape[0], -1)


def _joint_rows(tensors: Sequence[Tensor]) -> Tensor:
    rows = [_rows(tensor) for tensor in tensors]
    return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)


def _like(column: Tensor, tensor: Tensor) -> Tensor:
    """One number per example, (N,), in a shape that broadcasts over the example."""
    return column.reshape(-1, *[1] * (tensor.dim() - 1))


def tree_sum(rows: Tensor) -> Tensor:
    """Row sums as a fixed tree of elementwise additions.

    Args:
        rows: (N, elements).

    Returns:
        (N,). The same bits whatever the strides, the threads and the other rows; the error grows
        with the logarithm of the number of elements.
    """
    while rows.shape[1] > 1:
        half = (rows.shape[1] + 1) // 2
        paired = rows[:, : rows.shape[1] - half] + rows[:, half:]
        # An odd count leaves the middle element without a partner; it joins the next round.
        rows = (
            paired if rows.shape[1] % 2 == 0 else torch.cat((paired, rows[:, half - 1 : half]), 1)
        )
    return rows.reshape(rows.shape[0]) if rows.shape[1] else rows.new_zeros(rows.shape[0])


def l2_norm(tensors: Sequence[Tensor], guard: float) -> Tensor:
    """The joint L2 norm of each example, its square floored by `guard`, shape (N,)."""
    squares = tree_sum(_joint_rows(tensors).square())
    return torch.sqrt(torch.clamp(squares, min=guard))


def _linf_direction(grads: Sequence[Tensor], guard: float, nan_has_sign: bool) -> list[Tensor]:
    signs = [torch.sign(grad).detach() for grad in grads]
    if nan_has_sign:
        return signs
    # TensorFlow's sign of NaN is NaN, torch's is 0.
    return [torch.where(torch.isnan(g), g.detach(), s) for g, s in zip(grads, signs, strict=True)]


def _l2_direction(grads: Sequence[Tensor], guard: float, nan_has_sign: bool) -> list[Tensor]:
    if guard == 0:
        return _scaled_l2_direction(grads)
    norm = l2_norm(grads, guard)
    return [(_wide(grad) / _like(norm, grad)).to(grad.dtype) for grad in grads]


def _scaled_l2_direction(grads: Sequence[Tensor]) -> list[Tensor]:
    """Without a guard: scaled by the largest entry first, so that no square can under- or overflow.

    Dividing by a power of two is exact, so the direction has the accuracy of the plain formula.
    """
    largest = _joint_rows(grads).detach().abs().amax(dim=1)
    # The power of two below the largest entry, exactly; 2 ** exponent alone may be out of range.
    power = largest / (2 * torch.frexp(largest).mantissa)
    power = torch.where((largest > 0) & torch.isfinite(largest), power, 1.0)
    scaled = [_wide(grad) / _like(power, grad) for grad in grads]
    norm = l2_norm(scaled, 0.0)
    directions = []
    for grad, unit in zip(grads, scaled, strict=True):
        length = _like(norm, grad)
        directions.append(torch.where(length == 0, 0.0, unit / length).to(grad.dtype))
    return directions


def _l1_direction(grads: Sequence[Tensor], guard: float, nan_has_sign: bool) -> list[Tensor]:
    """The step goes into the entry of largest magnitude, split evenly among ties."""
    sizes = _joint_rows(grads).detach().abs()
    largest = sizes.amax(dim=1)
    ties = (sizes == largest[:, None]).sum(dim=1)
    directions = []
    for grad in grads:
        wide = _wide(grad.detach())
        is_largest = wide.abs() == _like(largest, grad)
        share = torch.sign(wide) * is_largest / _like(ties, grad)
        # A row with NaN has no largest entry: 0 / 0, as in the originals.
        directions.append(share.to(grad.dtype))
    return directions


def clipped(tensor: Tensor, low: Bound, high: Bound) -> Tensor:
    """The tensor within bounds, each of which may be None, a number or a tensor.

    Where the bounds cross the upper one wins. The derivative at a bound is 1, as TensorFlow's;
    torch.clamp's is 0, 1/2 or 1, by version and by kind of bound, so that it serves where no
    derivative is taken.
    """
    differentiable = torch.is_grad_enabled() and tensor.requires_grad
    if not differentiable and not isinstance(low, Tensor) and not isinstance(high, Tensor):
        return tensor if low is None and high is None else torch.clamp(tensor, low, high)
    if low is not None:
        tensor = torch.where(tensor < low, low, tensor)
    if high is not None:
        tensor = torch.where(tensor > high, high, tensor)
    return tensor


def _linf_project(deltas: Sequence[Tensor], radii: Sequence[Radius], guard: float) -> list[Tensor]:
    return [clipped(delta, -radius, radius) for delta, radius in zip(deltas, radii, strict=True)]


def _l2_project(deltas: Sequence[Tensor], radii: Sequence[Radius], guard: float) -> list[Tensor]:
    norm = l2_norm(deltas, guard)
    projected = []
    for delta, radius in zip(deltas, radii, strict=True):
        length = _like(norm, delta)
        scale = torch.where(length <= radius, 1.0, radius / length)
        projected.append((_wide(delta) * scale).to(delta.dtype))
    return projected


def _l1_project(deltas: Sequence[Tensor], radii: Sequence[Radius], guard: float) -> list[Tensor]:
    """Projection to the L1 ball by sorting (Duchi et al. 2008, doi 10.1145/1390156.1390191)."""
    rows = _joint_rows(deltas)
    radius = radii[0]
    # One number for all examples, or one per example.
    limit = _wide(radius).reshape(-1, 1) if isinstance(radius, Tensor) else radius
    sizes = rows.abs()
    sorted_sizes = sizes.sort(dim=1, descending=True).values
    surplus = sorted_sizes.cumsum(dim=1) - limit
    counts = torch.arange(1, rows.shape[1] + 1, device=rows.device, dtype=rows.dtype)
    kept = (sorted_sizes * counts > surplus).sum(dim=1, keepdim=True).clamp(min=1)
    threshold = surplus.gather(1, kept - 1) / kept
    inside = tree_sum(sizes)[:, None] <= limit
    shrunk = torch.sign(rows) * torch.relu(sizes - threshold)
    return _split(torch.where(inside, rows, shrunk), deltas)


def _split(rows: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    parts = torch.split_with_sizes(rows, [tensor[0].numel() for tensor in like], dim=1)
    return [
        part.reshape(tensor.shape).to(tensor.dtype)
        for part, tensor in zip(parts, like, strict=True)
    ]


def _uniform(tensor: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.rand(tensor.shape, dtype=tensor.dtype, device=tensor.device, generator=generator)


def _linf_random(
    like: Sequence[Tensor], generator: torch.Generator | None, biased: bool
) -> list[Tensor]:
    return [_uniform(tensor, generator).mul_(2).sub_(1) for tensor in like]


def _l2_random(
    like: Sequence[Tensor], generator: torch.Generator | None, biased: bool
) -> list[Tensor]:
    """Uniform in the ball: a Gaussian direction at a radius whose volume is uniform."""
    rows = torch.cat([_rows(tensor) for tensor in like], dim=1)
    noise = torch.randn(rows.shape, dtype=rows.dtype, device=rows.device, generator=generator)
    length = l2_norm([noise], 0.0)[:, None]
    radius = _uniform(noise[:, :1], generator) ** (1.0 / noise.shape[1])
    return _split(noise * radius / length, like)


def _l1_random(
    like: Sequence[Tensor], generator: torch.Generator | None, biased: bool
) -> list[Tensor]:
    """Laplace noise scaled as in `_l2_random`; CleverHans' TensorFlow draw is off centre by 1."""
    rows = torch.cat([_rows(tensor) for tensor in like], dim=1)
    noise = torch.empty_like(rows).exponential_(generator=generator)
    noise = (
        noise - torch.empty_like(rows).exponential_(generator=generator) + (1.0 if biased else 0.0)
    )
    radius = _uniform(noise[:, :1], generator) ** (1.0 / noise.shape[1])
    return _split(noise * radius / tree_sum(noise.abs())[:, None], like)


@dataclass(frozen=True)
class NormRule:
    """One norm's behaviour over the features of an example.

    Attributes:
        direction: (gradients, guard, nan_has_sign) -> the point of the unit ball with the largest
            inner product with each example's gradient.
        project: (perturbations, radii, guard) -> the nearest perturbations within the ball.
        random: (like, generator, biased) -> a random point of the unit ball per example.
    """

    direction: Callable[[Sequence[Tensor], float, bool], list[Tensor]]
    project: Callable[[Sequence[Tensor], Sequence[Radius], float], list[Tensor]]
    random: Callable[[Sequence[Tensor], torch.Generator | None, bool], list[Tensor]]


NORMS: Mapping[str, NormRule] = MappingProxyType(
    {
        "linf": NormRule(_linf_direction, _linf_project, _linf_random),
        "l2": NormRule(_l2_direction, _l2_project, _l2_random),
        "l1": NormRule(_l1_direction, _l1_project, _l1_random),
    }
)


def sees_length(norm: str, guard: float) -> bool:
    """Whether a direction depends on the length of the gradient, and not on its direction alone."""
    return NORMS[norm].direction is _l2_direction and guard > 0


def direction(
    grads: Sequence[Tensor],
    norm: str,
    *,
    guard: float = 0.0,
    joint: bool = True,
    nan_has_sign: bool = True,
) -> list[Tensor]:
    """The direction of steepest ascent within the unit ball, for each example.

    Args:
        grads: Gradients of the features, each (N, ...).
        norm: "linf", "l2" or "l1".
        guard: Floor under the squared L2 norm; 0 scales the gradient instead.
        joint: Take the norm over all features of an example together.
        nan_has_sign: The sign of NaN is 0 (torch) rather than NaN (TensorFlow).

    Returns:
        Directions in the gradients' shapes and dtypes. L2 is within 3 units in the last place of
        the float64 value; L-inf and L1 are exact. A zero gradient has a zero direction.
    """
    rule = NORMS[norm].direction
    if joint:
        return rule(grads, guard, nan_has_sign)
    return [rule([grad], guard, nan_has_sign)[0] for grad in grads]


def project(
    deltas: Sequence[Tensor],
    radii: Sequence[Radius],
    norm: str,
    *,
    guard: float = 0.0,
    joint: bool = True,
) -> list[Tensor]:
    """Perturbations moved to the nearest point of the ball around 0.

    Args:
        deltas: Perturbations of the features, each (N, ...).
        radii: For each feature a number, or a tensor that broadcasts over each example.
        norm: "linf", "l2" or "l1".
        guard: Floor under the squared L2 norm.
        joint: Take the norm over all features of an example together.

    Returns:
        Projected perturbations in the same shapes and dtypes.
    """
    rule = NORMS[norm].project
    if joint:
        return rule(deltas, radii, guard)
    return [rule([delta], [radius], guard)[0] for delta, radius in zip(deltas, radii, strict=True)]


def random_in_ball(
    like: Sequence[Tensor],
    radii: Sequence[Radius],
    norm: str,
    *,
    joint: bool = True,
    biased: bool = False,
    generator: torch.Generator | None = None,
) -> list[Tensor]:
    """A random point of the ball around 0 for each example.

    Args:
        like: Tensors whose shapes, dtypes and devices are taken, each (N, ...).
        radii: For each tensor a number, or a tensor that broadcasts over each example.
        norm: "linf", "l2" or "l1".
        joint: Draw in the ball over all features of an example together.
        biased: Under L1, the off-centre draw of CleverHans' TensorFlow ports.
        generator: Source of randomness; torch's global one by default.

    Returns:
        Perturbations, uniform in the ball unless `biased`.
    """
    rule = NORMS[norm].random
    drawn = (
        rule(like, generator, biased)
        if joint
        else [rule([tensor], generator, biased)[0] for tensor in like]
    )
    return [point * radius for point, radius in zip(drawn, radii, strict=True)]
