"""Properties that hold whatever the numbers: every preset, norm, dtype, shape, layout, structure.

Gradients are prescribed, so that the rows a network rarely gives come as they are: all tied, all
zero, subnormal, huge, NaN and infinite.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hostile_numbers import DTYPES, FINITE, NONFINITE, Drawn, draws, hostile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from toy_models import ORDERS, NeverCalled

from torchfgsm import Recipe, attack, fgsm, perturb
from torchfgsm.core.engine import run
from torchfgsm.core.limits import Call
from torchfgsm.models.features import Features

DUAL = {"linf": 1.0, "l2": 2.0, "l1": math.inf}

pytestmark = pytest.mark.usefixtures("one_thread")


bounded = settings(
    max_examples=500,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def moved(
    drawn: Drawn,
    xs: Sequence[Tensor],
    grads: Sequence[Tensor],
    recipe: Recipe | None = None,
    generator: torch.Generator | None = None,
) -> list[Tensor]:
    """The adversarial features for gradients that are the same at every turn."""
    recipe, features = recipe or drawn.recipe, Features.take_apart(drawn.put(xs))
    call = Call.of(recipe, features, generator=generator)
    return run(features, lambda turn, tensors: list(grads), recipe, call)


def groups(drawn: Drawn, tensors: Sequence[Tensor]) -> list[Tensor]:
    """What each norm is taken over: rows (examples, elements) in float64."""
    rows = [t.reshape(1 if _is_whole(drawn, t) else t.shape[0], -1).double() for t in tensors]
    return [torch.cat(rows, dim=1)] if drawn.recipe.joint else rows


def _is_whole(drawn: Drawn, tensor: Tensor) -> bool:
    return drawn.recipe.scalar_examples == "joint" and tensor.dim() == 1


def norm_of(rows: Tensor, order: float) -> Tensor:
    """Norms of rows, also of those whose squares are beyond float64."""
    largest = rows.abs().amax(1, keepdim=True)
    unit = torch.where(largest > 0, largest, 1.0)
    found: Tensor = torch.linalg.vector_norm(rows / unit, order, dim=1) * unit[:, 0]
    return found


def same(a: Tensor, b: Tensor) -> bool:
    """Whether all bits are equal, but for those of a NaN, which vary with torch's inner loops."""
    nan = torch.isnan(a)
    equal = (a == b) & (torch.signbit(a) == torch.signbit(b))
    return bool((equal | nan & torch.isnan(b)).all())


@bounded
@given(draws(FINITE))
def test_perturbations_stay_in_the_ball_and_the_bounds(drawn: Drawn) -> None:
    found = moved(drawn, drawn.xs, drawn.grads)
    eps = torch.finfo(drawn.dtype).eps
    # One rounding of each entry of the sum, and those of the perturbation itself.
    rounding = [torch.nextafter(a.abs(), torch.full_like(a, math.inf)) - a.abs() for a in found]
    deltas = [a.double() - x.double() for a, x in zip(found, drawn.xs, strict=True)]
    for delta, room in zip(groups(drawn, deltas), groups(drawn, rounding), strict=True):
        allowed = drawn.length * (1 + 2 * eps) + norm_of(room, ORDERS[drawn.norm])
        assert bool((norm_of(delta, ORDERS[drawn.norm]) <= allowed).all())
    if drawn.clip:
        high = torch.tensor(drawn.scale, dtype=drawn.dtype)
        assert all(bool(((a >= -high) & (a <= high)).all()) for a in found)
    for a, x in zip(found, drawn.xs, strict=True):
        assert a.dtype == x.dtype
        assert a.shape == x.shape
        assert bool(torch.isfinite(a).all())


@bounded
@given(draws(FINITE, scale=0.0, turns=1, clip=False))
def test_steps_maximise_the_linearised_loss(drawn: Drawn) -> None:
    deltas = moved(drawn, drawn.xs, drawn.grads)  # from 0, so that the sum rounds nothing
    eps = torch.finfo(drawn.dtype).eps
    for delta, grad in zip(groups(drawn, deltas), groups(drawn, drawn.grads), strict=True):
        largest = grad.abs().amax(1, keepdim=True)
        unit = torch.where(largest > 0, largest, 1.0)
        best = drawn.length * torch.linalg.vector_norm(grad / unit, DUAL[drawn.norm], dim=1)
        gained = (delta * (grad / unit)).sum(1)
        assert bool((gained <= best * (1 + 4 * eps)).all())
        if drawn.norm == "l2" and drawn.recipe.guard > 0:
            # The originals' guard shortens steps along small gradients, and squares overflow.
            wide = torch.float64 if drawn.dtype == torch.float64 else torch.float32
            squares = grad.to(wide).square().sum(1)
            above = (squares >= drawn.recipe.guard) & torch.isfinite(2 * squares)
        else:
            above = torch.ones_like(best, dtype=torch.bool)
        # Entries of a step below the smallest normal number may be lost: they add next to nothing.
        lost = torch.finfo(drawn.dtype).smallest_normal * grad.shape[1]
        assert bool((gained >= best * (1 - 4 * eps) - lost)[above].all())
        zero = largest[:, 0] == 0
        assert bool((delta[zero] == 0).all())


@bounded
@given(draws((*FINITE, *NONFINITE)), st.sampled_from(("", "nan", "inf")))
def test_no_row_touches_its_neighbours(drawn: Drawn, broken: str) -> None:
    xs = [x.clone() for x in drawn.xs]
    if broken:  # the first example's own entries, which a caller may let pass unseen
        for x in xs:
            x[0] = float(broken)
    together = moved(drawn, xs, drawn.grads)
    if drawn.whole_batch:
        return
    for i in range(len(drawn.rows)):
        one = slice(i, i + 1)
        alone = moved(drawn, [x[one] for x in xs], [g[one] for g in drawn.grads])
        assert all(same(a[one], b) for a, b in zip(together, alone, strict=True))


@bounded
@given(draws((*FINITE, *NONFINITE), preset="nsl") | draws((*FINITE, *NONFINITE), preset="native"))
def test_entries_that_are_not_finite_do_not_move(drawn: Drawn) -> None:
    found = moved(drawn, drawn.xs, drawn.grads)
    for a, x, grad in zip(found, drawn.xs, drawn.grads, strict=True):
        assert bool(torch.isfinite(a).all())
        bad = ~torch.isfinite(grad)
        assert torch.equal(a[bad], x[bad])


@bounded
@given(draws((*FINITE, *NONFINITE)), st.booleans())
def test_two_runs_have_the_same_bits_whatever_the_layout(drawn: Drawn, random_start: bool) -> None:
    recipe = drawn.recipe
    if random_start:
        recipe = dataclasses.replace(recipe, random_start="uniform")
    before = [x.clone() for x in drawn.xs]

    def once(xs: Sequence[Tensor], grads: Sequence[Tensor]) -> list[Tensor]:
        return moved(drawn, xs, grads, recipe, torch.Generator().manual_seed(drawn.seed))

    first, second = once(drawn.xs, drawn.grads), once(drawn.xs, drawn.grads)
    plain = once([x.contiguous() for x in before], [g.contiguous() for g in drawn.grads])
    for a, b, c, x, kept in zip(first, second, plain, drawn.xs, before, strict=True):
        assert same(a, b)
        assert same(a, c)
        assert torch.equal(x, kept)
        assert a.data_ptr() != x.data_ptr()


class _Prescribed(torch.autograd.Function):
    """A score of 0 per example whose gradient is what it was given."""

    @staticmethod
    def forward(ctx: Any, *given: Tensor) -> Tensor:
        half = len(given) // 2
        ctx.grads = given[half:]
        return given[0].new_zeros(given[0].shape[0])

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        return (*ctx.grads, *[None] * len(ctx.grads))


@bounded
@given(draws((*FINITE, *NONFINITE)))
def test_attacks_on_models_give_what_the_gradient_says(drawn: Drawn) -> None:
    def model(*inputs: Any) -> Tensor:
        (given,) = inputs if drawn.structure != "list" else (list(inputs),)
        xs = list(given.values()) if drawn.structure == "dict" else given
        xs = [given] if drawn.structure == "tensor" else xs
        output: Tensor = _Prescribed.apply(*xs, *drawn.grads)
        return output

    labels = torch.zeros(len(drawn.rows))
    found = attack(
        model, drawn.put(drawn.xs), labels, recipe=drawn.recipe, loss_fn=lambda output, y: output
    )
    expected = moved(drawn, drawn.xs, drawn.grads)
    apart = Features.take_apart(found).tensors
    assert type(found) is type(drawn.put(drawn.xs))
    assert all(same(a, b) for a, b in zip(apart, expected, strict=True))


@bounded
@given(draws(FINITE, preset="native", turns=1, clip=False))
def test_the_step_alone_is_the_attack_given_the_gradient(drawn: Drawn) -> None:
    x, grad = drawn.put(drawn.xs), drawn.put(drawn.grads)
    found = perturb(x, grad, eps=drawn.length, norm=drawn.norm)
    expected = moved(drawn, drawn.xs, drawn.grads)
    apart = Features.take_apart(found).tensors
    assert all(same(a, b) for a, b in zip(apart, expected, strict=True))


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0), (2, 3, 0)])
def test_nothing_to_perturb_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="x must be a non-empty batch"):
        fgsm(NeverCalled(), torch.zeros(shape), 0, eps=0.1)
    with pytest.raises(ValueError, match="feature 'b' must be a non-empty batch"):
        fgsm(NeverCalled(), {"a": torch.zeros(2, 3), "b": torch.zeros(shape)}, 0, eps=0.1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_drawn_is_as_hostile_as_it_says(dtype: torch.dtype) -> None:
    info = torch.finfo(dtype)
    generator = torch.Generator().manual_seed(0)
    rows = {k: hostile(k, (3, 5), dtype, generator).double() for k in (*FINITE, *NONFINITE)}
    assert 0 < float(rows["subnormal"].abs().min()) < info.smallest_normal
    assert float(rows["subnormal"].abs().max()) < info.smallest_normal
    assert float(rows["huge"].abs().min()) == info.max
    assert float(rows["tied"].abs().min()) == float(rows["tied"].abs().max()) > 0
    sizes = rows["mixed"].abs()
    assert float(sizes.max() / sizes.min()) > 1e6
    assert [k for k in NONFINITE if bool(torch.isfinite(rows[k]).all())] == []
