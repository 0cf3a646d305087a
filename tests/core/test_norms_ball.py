"""Projections to the balls of the three norms, and random points in them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from toy_models import noise, size_of

from torchfgsm.core import norms

NORMS = ("linf", "l2", "l1")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
GUARD = 1e-12


def t(values: object, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(values, dtype=dtype)


# Projections


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", NORMS)
def test_projection_leaves_the_inside_and_reaches_the_ball(norm: str, dtype: torch.dtype) -> None:
    inside = t([[0.125, -0.25, 0.0]], dtype)
    (found,) = norms.project([inside], [0.5], norm)
    assert torch.equal(found, inside)
    assert found.dtype == dtype
    outside = t([[3.0, -1.0, 0.5]], dtype)
    (moved,) = norms.project([outside], [0.5], norm)
    assert moved.dtype == dtype
    precision = 4 * torch.finfo(dtype).eps
    assert float(size_of(moved, norm)) == pytest.approx(0.5, rel=precision)


@pytest.mark.parametrize("norm", NORMS)
def test_projection_to_radius_0_is_the_centre(norm: str) -> None:
    assert norms.project([t([[3.0, -1.0]])], [0.0], norm)[0].abs().tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(
    ("row", "radius", "expected"),
    [
        ([3.0, -1.0, 0.0], 2.0, [2.0, 0.0, 0.0]),
        ([2.0, -2.0, 0.0], 1.0, [0.5, -0.5, 0.0]),
        ([3.0, 2.0, 1.0], 3.0, [2.0, 1.0, 0.0]),
        ([1.0, 1.0, 1.0], 1.5, [0.5, 0.5, 0.5]),
    ],
)
def test_l1_projection_in_closed_form(
    row: list[float], radius: float, expected: list[float]
) -> None:
    (found,) = norms.project([t([row], torch.float64)], [radius], "l1")
    torch.testing.assert_close(found[0], t(expected, torch.float64))


def test_l1_projection_is_nearest_by_bisection() -> None:
    rows = noise(20, 7, dtype=torch.float64)
    (found,) = norms.project([rows], [1.3], "l1")
    low, high = torch.zeros(20, 1, dtype=torch.float64), rows.abs().amax(1, keepdim=True)
    for _ in range(60):  # the threshold that leaves a norm of exactly the radius
        middle = (low + high) / 2
        above = torch.relu(rows.abs() - middle).sum(1, keepdim=True) > 1.3
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    nearest = torch.sign(rows) * torch.relu(rows.abs() - low)
    inside = rows.abs().sum(1, keepdim=True) <= 1.3
    torch.testing.assert_close(found, torch.where(inside, rows, nearest), atol=1e-12, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_projection_takes_a_radius_per_example_and_is_joint(norm: str) -> None:
    a, b = noise(3, 2, dtype=torch.float64) * 9, noise(3, 4, seed=1, dtype=torch.float64) * 9
    radii = torch.tensor([0.1, 1.0, 100.0], dtype=torch.float64)
    found = norms.project([a, b], [radii[:, None], radii[:, None]], norm)
    reached = size_of(torch.cat(found, dim=1), norm)
    torch.testing.assert_close(reached[:2], radii[:2])
    assert torch.equal(found[0][2], a[2])
    apart = norms.project([a, b], [1.0, 1.0], norm, joint=False)
    torch.testing.assert_close(size_of(apart[1], norm), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("norm", NORMS)
def test_images_have_a_radius_each(norm: str) -> None:
    images, radii = noise(3, 2, 4, 4) * 9, torch.tensor([0.5, 1.0, 2.0])
    (found,) = norms.project([images], [radii.reshape(3, 1, 1, 1)], norm)
    torch.testing.assert_close(size_of(found, norm), radii.double())


@pytest.mark.parametrize("low", [None, -1.0, t([-1.0])])
@pytest.mark.parametrize("high", [None, 1.0, t([1.0])])
def test_bounds_may_be_numbers_and_tensors(low: norms.Bound, high: norms.Bound) -> None:
    x = t([-3.0, 0.5, 3.0])
    expected = [-3.0 if low is None else -1.0, 0.5, 3.0 if high is None else 1.0]
    assert norms.clipped(x, low, high).tolist() == expected
    assert norms.clipped(x.requires_grad_(), low, high).tolist() == expected


@pytest.mark.parametrize("norm", NORMS)
def test_projection_has_derivative_1_at_the_bound(norm: str) -> None:
    delta = torch.tensor([[0.5, 0.0]], requires_grad=True)
    (projected,) = norms.project([delta], [0.5], norm, guard=GUARD)
    (slope,) = torch.autograd.grad(projected[0, 0], delta)
    assert slope.tolist() == [[1.0, 0.0]]


# Random starts


def draw(norm: str, *shape: int, biased: bool = False, radius: float = 1.0) -> Tensor:
    like = torch.zeros(shape, dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    (found,) = norms.random_in_ball([like], [radius], norm, biased=biased, generator=generator)
    return found


@pytest.mark.parametrize("norm", NORMS)
def test_random_points_are_uniform_in_the_ball(norm: str) -> None:
    points = draw(norm, 20000, 3, radius=0.5)
    volume = (size_of(points, norm) / 0.5) ** 3
    assert float(volume.max()) <= 1 + 1e-12
    # Uniform on [0, 1]: mean 1/2 and variance 1/12; six standard errors.
    assert float(volume.mean()) == pytest.approx(0.5, abs=6 * (1 / 12 / 20000) ** 0.5)
    assert float(volume.var()) == pytest.approx(1 / 12, abs=0.004)
    assert float(points.mean(0).abs().max()) < 0.02
    # No direction is preferred: uniform in the ball is symmetric under exchange of the axes.
    spread = points.var(0)
    assert float(spread.max() / spread.min()) < 1.06


def test_random_l2_point_is_isotropic_and_l1_is_laplace() -> None:
    l2, l1 = (draw(norm, 20000, 2) for norm in ("l2", "l1"))
    # The mean of |cos| is 2/pi on a circle; on the L1 sphere |x| / norm is uniform: 1/2.
    assert float((l2[:, 0].abs() / size_of(l2, "l2")).mean()) == pytest.approx(0.6366, abs=0.013)
    assert float((l1[:, 0].abs() / size_of(l1, "l1")).mean()) == pytest.approx(0.5, abs=0.013)


def test_biased_l1_draw_is_off_centre_and_inside() -> None:
    biased = draw("l1", 20000, 3, biased=True, radius=0.5)
    assert float(size_of(biased, "l1").max()) <= 0.5 + 1e-12
    assert float(biased.mean(0).min()) > 0.04
    assert torch.equal(draw("l2", 50, 3, biased=True), draw("l2", 50, 3))
    # Laplace noise with mean 1 is below 0 with a probability of exp(-1) / 2; six standard errors.
    assert float((draw("l1", 20000, 1, biased=True) < 0).double().mean()) == pytest.approx(
        math.exp(-1) / 2, abs=0.0165
    )


def test_by_default_draws_are_centred() -> None:
    def drawn(**choice: bool) -> Tensor:
        generator = torch.Generator().manual_seed(3)
        like = [torch.zeros(9, 2)]
        return norms.random_in_ball(like, [1.0], "l1", generator=generator, **choice)[0]

    assert torch.equal(drawn(), drawn(biased=False))
    assert not torch.equal(drawn(), drawn(biased=True))


@pytest.mark.parametrize("norm", NORMS)
def test_random_points_are_joint_over_features_and_take_a_generator(norm: str) -> None:
    like = [torch.zeros(500, 2), torch.zeros(500, 3, 1)]

    def points(joint: bool) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        drawn = norms.random_in_ball(like, [1.0, 1.0], norm, joint=joint, generator=generator)
        return torch.cat([point.flatten(1) for point in drawn], dim=1)

    assert torch.equal(points(True), points(True))
    assert float(size_of(points(True), norm).max()) <= 1 + 1e-5
    outside = bool((size_of(points(False), norm) > 1.01).any())
    assert outside == (norm != "linf")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", NORMS)
def test_random_points_keep_the_dtype(norm: str, dtype: torch.dtype) -> None:
    like = torch.zeros(50, 20, dtype=dtype)
    (found,) = norms.random_in_ball([like], [torch.full((50, 1), 0.5, dtype=dtype)], norm)
    assert found.dtype == dtype
    assert found.shape == like.shape
    assert bool(torch.isfinite(found).all())
    assert float(size_of(found, norm).max()) <= 0.5 * (1 + 20 * torch.finfo(dtype).eps)
