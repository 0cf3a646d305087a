"""The native attacks: properties that hold for every model, and what they accept."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from toy_models import Counting, Linear, batch, mlp, noisy, score, size_of

from torchfgsm import Recipe, attack, fgsm, perturb, pgd

NORMS = ("linf", "l2", "l1")
# Property pairs


@pytest.mark.parametrize("norm", NORMS)
def test_fgsm_climbs_the_loss_by_a_step_of_length_eps(norm: str) -> None:
    model, (x, y) = mlp(), batch()
    adversarial = fgsm(model, x, y, eps=0.01, norm=norm)
    torch.testing.assert_close(size_of(adversarial - x, norm), torch.full((6,), 0.01).double())
    loss = nn.CrossEntropyLoss(reduction="none")
    assert bool((loss(model(adversarial), y) > loss(model(x), y)).all())


@pytest.mark.parametrize("norm", NORMS)
def test_eps_0_is_the_identity_without_aliasing(norm: str) -> None:
    model, (x, y) = mlp(), batch()
    for adversarial in (
        fgsm(model, x, y, eps=0, norm=norm),
        pgd(model, x, y, eps=0.0, norm=norm),
        perturb(x, torch.ones_like(x), eps=0, norm=norm),
    ):
        assert torch.equal(adversarial, x)
        assert adversarial.data_ptr() != x.data_ptr()


@pytest.mark.parametrize("norm", NORMS)
def test_row_of_a_batch_is_the_batch_of_one(norm: str) -> None:
    model, (x, y) = mlp(), batch()
    whole = pgd(model, x, y, eps=0.3, iterations=3, norm=norm, random_start=False)
    for i in range(len(x)):
        alone = pgd(
            model, x[i : i + 1], y[i : i + 1], eps=0.3, iterations=3, norm=norm, random_start=False
        )
        torch.testing.assert_close(alone[0], whole[i], rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_targeted_step_is_the_opposite_of_the_untargeted(norm: str) -> None:
    model, (x, y) = mlp(), batch()
    away = fgsm(model, x, y, eps=0.1, norm=norm) - x
    towards = fgsm(model, x, y, eps=0.1, norm=norm, targeted=True) - x
    torch.testing.assert_close(towards, -away, rtol=0, atol=1e-15)


@pytest.mark.parametrize("norm", NORMS)
def test_permuted_batch_gives_the_permuted_result(norm: str) -> None:
    model, (x, y) = mlp(), batch()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    permuted = fgsm(model, x[order], y[order], eps=0.1, norm=norm)
    expected = fgsm(model, x, y, eps=0.1, norm=norm)[order]
    torch.testing.assert_close(permuted, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("norm", NORMS)
def test_one_feature_dict_and_list_equal_the_tensor(norm: str) -> None:
    model, (x, y) = mlp(), batch()
    expected = fgsm(model, x, y, eps=0.1, norm=norm, clip_max=0.7)
    in_list = fgsm(model, [x], y, eps=0.1, norm=norm, clip_max=0.7)
    in_dict = fgsm(lambda d: model(d["only"]), {"only": x}, y, eps=0.1, norm=norm, clip_max=0.7)
    assert torch.equal(in_list[0], expected)
    assert torch.equal(in_dict["only"], expected)


@pytest.mark.parametrize("norm", NORMS)
def test_fgsm_is_pgd_with_one_step(norm: str) -> None:
    model, (x, y) = mlp(), batch()
    kwargs: dict[str, Any] = {"norm": norm, "clip_min": 0.25, "clip_max": 0.7}
    once = pgd(model, x, y, eps=9, step_size=0.1, iterations=1, random_start=False, **kwargs)
    assert torch.equal(once, fgsm(model, x, y, eps=0.1, **kwargs))


def test_perturb_is_fgsm_given_the_gradient() -> None:
    model, (x, y) = mlp(), batch()
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(nn.functional.cross_entropy(model(leaf), y) * len(x), leaf)
    for norm in NORMS:
        expected = fgsm(model, x, y, eps=0.1, norm=norm, clip_min=0.3)
        found = perturb(x, grad, eps=0.1, norm=norm, clip_min=0.3)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_perturb_has_the_rules_of_the_gradient() -> None:
    x = torch.tensor([[0.0, 1.0, 0.5, 0.5]])
    grad = torch.tensor([[-3.0, 4.0, 4.0, math.nan]])
    row: dict[str, Any] = {"eps": 0.5, "norm": "l2"}
    torch.testing.assert_close(
        perturb(x, grad, **row, clip_min=0.0, clip_max=1.0, clip_grad=True),
        torch.tensor([[0.0, 1.0, 1.0, 0.5]]),
    )
    assert perturb(x, grad, **row, nonfinite="propagate").isnan().all()
    assert perturb(x, grad, eps=0.5, nonfinite="ignore").tolist() == [[-0.5, 1.5, 1.0, 0.5]]
    tiny = torch.tensor([[0.0, 0.0, 1e-9, 0.0]])
    assert perturb(x, tiny, **row, guard=1e-12)[0, 2] == pytest.approx(0.5 + 0.5e-3)
    assert perturb(x, tiny, **row)[0, 2] == 1.0


# PGD


@pytest.mark.parametrize("norm", NORMS)
def test_pgd_stays_in_ball_and_range_and_is_stronger(norm: str) -> None:
    model, (x, y) = mlp(), batch()
    eps = {"linf": 0.05, "l2": 0.1, "l1": 0.2}[norm]
    loss = nn.CrossEntropyLoss(reduction="none")
    found = pgd(model, x, y, eps=eps, norm=norm, iterations=20, random_start=False)
    assert bool((size_of(found - x, norm) <= eps * (1 + 1e-12)).all())
    single = fgsm(model, x, y, eps=eps, norm=norm)
    assert bool((loss(model(found), y) >= loss(model(single), y) - 1e-4).all())
    tight = pgd(model, x, y, eps=0.5, norm=norm, clip_min=0.3, clip_max=0.7)
    assert 0.3 <= float(tight.min()) <= float(tight.max()) <= 0.7


@pytest.mark.parametrize("norm", NORMS)
def test_pgd_random_start_is_drawn_from_the_generator(norm: str) -> None:
    model, (x, y) = mlp(), batch()

    def run(seed: int | None) -> Tensor:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        found: Tensor = pgd(
            model, x, y, eps=0.5, step_size=1e-9, iterations=1, norm=norm, generator=generator
        )
        return found

    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))
    assert bool((size_of(run(0) - x, norm) <= 0.5 + 1e-8).all())
    assert float(size_of(run(0) - x, norm).max()) > 0.1
    torch.manual_seed(7)
    first = run(None)
    assert not torch.equal(first, run(None))
    torch.manual_seed(7)
    assert torch.equal(first, run(None))


def test_pgd_default_step_crosses_the_ball() -> None:
    linear, (x, _) = Linear(torch.ones(4).double()), batch()
    for iterations in (1, 3, 10):
        found = pgd(linear, x, 0, eps=0.2, iterations=iterations, loss_fn=score)
        torch.testing.assert_close(found - x, torch.full((6, 4), 0.2).double())


def test_a_new_start_every_time_although_dropout_is_put_back() -> None:
    model, (x, y) = noisy(), batch(torch.float32)
    recipe = Recipe.cleverhans_torch(0.5, math.inf, 1e-6, 1)
    assert not torch.equal(attack(model, x, y, recipe=recipe), attack(model, x, y, recipe=recipe))


# How often, and what for


def test_forward_passes_are_as_few_as_can_be() -> None:
    model, (x, y) = Counting(mlp()), batch()

    def count(**kwargs: Any) -> int:
        model.calls.clear()
        attack(model, x, kwargs.pop("y", None), recipe=Recipe(step=0.1, **kwargs))
        return len(model.calls)

    assert count(y=y) == 1
    assert count() == 1  # the predicted labels come from the same forward pass
    assert count(iterations=5, epsilon=0.2) == 5
    assert count(iterations=5, epsilon=0.2, random_start="uniform", y=y) == 5
    assert count(iterations=5, epsilon=0.2, random_start="uniform") == 6  # labels of the clean x
    assert count(iterations=0) == 0


def test_weight_gradients_are_never_computed() -> None:
    class Spy(torch.autograd.Function):
        needed: list[bool] = []  # noqa: RUF012 - the test looks at it

        @staticmethod
        def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
            ctx.save_for_backward(weight)
            return x * weight

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
            (weight,) = ctx.saved_tensors
            return grads[0] * weight, grads[0]

    weight = nn.Parameter(torch.tensor([1.0, 2.0, 3.0, 4.0]).double())

    def touched(grad: Tensor) -> None:
        Spy.needed.append(True)

    weight.register_hook(touched)  # type: ignore[no-untyped-call]
    model, (x, y) = mlp(), batch()
    for parameter in model.parameters():
        parameter.register_hook(touched)  # type: ignore[no-untyped-call]

    def spied(z: Tensor) -> Tensor:
        output: Tensor = model(Spy.apply(z, weight))
        return output

    fgsm(spied, x, y, eps=0.1)
    pgd(spied, x, y, eps=0.1)
    assert Spy.needed == []
    spied(x).sum().backward()  # type: ignore[no-untyped-call]
    assert len(Spy.needed) == 5  # the spy sees what it should


# Any shape


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    norm=st.sampled_from(NORMS),
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    eps=st.floats(0, 10, allow_subnormal=False),
    iterations=st.integers(1, 3),
    clipped=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_shape_stays_in_ball_and_range(
    norm: str, shape: list[int], eps: float, iterations: int, clipped: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator, dtype=torch.float64)
    weight = torch.randn(shape[1:], generator=generator, dtype=torch.float64)
    bounds: dict[str, Any] = {"clip_min": 0.0, "clip_max": 1.0} if clipped else {}
    found = pgd(
        lambda z: (z * weight).reshape(shape[0], -1).sum(1).sin(),
        x,
        0,
        eps=eps,
        iterations=iterations,
        norm=norm,
        loss_fn=score,
        generator=generator,
        **bounds,
    )
    assert found.shape == x.shape
    rows = (found - x).reshape(shape[0], -1)
    assert bool((size_of(rows, norm) <= eps * (1 + 1e-9) + 1e-12).all())
    if clipped:
        assert bool(((found >= 0) & (found <= 1)).all())


# A mask holds for the random start too


@pytest.mark.parametrize("iterations", [0, 3])
@pytest.mark.parametrize("start", ["uniform", "cube", "biased_l1"])
@pytest.mark.parametrize("norm", NORMS)
def test_no_random_start_moves_what_the_mask_keeps(norm: Any, start: Any, iterations: int) -> None:
    model, (x, y) = mlp(), batch()
    recipe = Recipe(norm=norm, step=0.05, epsilon=0.1, iterations=iterations, random_start=start)
    mask = torch.tensor([1.0, 0.5, 0.0, 0.0])
    moved = attack(model, x, y, recipe=recipe, mask=mask) - x
    assert bool((moved[:, 2:] == 0).all())
    assert float(moved.abs().amax(1).min()) > 0


def test_masks_of_a_start_are_kept_by_feature_and_by_number() -> None:
    inner, (x, y) = mlp(), batch()

    def model(a: Tensor, b: Tensor) -> Tensor:
        output: Tensor = inner(torch.cat([a, b], 1))
        return output

    recipe = Recipe(step=0.05, epsilon=0.1, iterations=2, random_start="uniform")
    given = [x[:, :2], x[:, 2:]]
    for masks in ([1.0, 0.0], [1.0, torch.zeros(6, 1)], [None, 0.0]):
        left, right = attack(model, given, y, recipe=recipe, mask=masks)
        assert torch.equal(right, given[1])
        assert bool((left != given[0]).all())
