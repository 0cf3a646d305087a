"""`torchfgsm.cleverhans.v3`: the iterated attacks of CleverHans 3.1.0."""

from __future__ import annotations

import math

import pytest
import torch
from toy_models import Counting, batch, mlp, one_hot

from torchfgsm.cleverhans import v3

# Iterated


def test_basic_iterative_method_starts_at_x_and_madry_at_random() -> None:
    model, (x, y) = mlp(), batch()
    hot = one_hot(y)
    bim = v3.BasicIterativeMethod(model).generate(x, y=hot, nb_iter=1, eps_iter=0.05)
    torch.testing.assert_close(
        bim, v3.FastGradientMethod(model).generate(x, y=hot, eps=0.05), rtol=0, atol=1e-15
    )
    pgd = v3.ProjectedGradientDescent(model, default_rand_init=False).generate(x, y=hot)
    assert torch.equal(pgd, v3.BasicIterativeMethod(model).generate(x, y=hot))
    quiet = v3.MadryEtAl(model).generate(x, y=hot, rand_init=False)
    assert torch.equal(quiet, pgd)
    for kind in (v3.MadryEtAl, v3.ProjectedGradientDescent):
        start = kind(model).generate(x, y=hot, nb_iter=0) - x
        assert 0.25 < float(start.abs().max()) <= 0.3
        near = kind(model).generate(x, y=hot, nb_iter=0, rand_init_eps=0.01) - x
        assert 0 < float(near.abs().max()) <= 0.01


def test_iterations_0_leave_x_unchanged_without_a_random_start() -> None:
    model, (x, y) = Counting(mlp()), batch()
    found = v3.BasicIterativeMethod(model).generate(x, y=one_hot(y), nb_iter=0)
    assert torch.equal(found, x)
    assert found is not x
    assert model.calls == []


@pytest.mark.parametrize("order", [math.inf, 2])
def test_pgd_stays_in_the_ball_and_in_the_range(order: float) -> None:
    model, (x, y) = mlp(), batch()
    found = v3.MadryEtAl(model).generate(
        x, y=one_hot(y), ord=order, eps=0.2, eps_iter=0.1, clip_min=0.0, clip_max=1.0
    )
    lengths = torch.linalg.vector_norm(found - x, order, dim=1)
    assert float(lengths.max()) <= 0.2 + 1e-12
    assert 0.0 <= float(found.min()) <= float(found.max()) <= 1.0


def test_pgd_clips_before_it_projects() -> None:
    # A step of (.8, .6) is clipped to (.35, .35), which lies inside of the ball of radius .5;
    # NSL projects first and gets (.35, .3).
    found = v3.BasicIterativeMethod(lambda z: z).generate(
        torch.zeros(1, 2).double(),
        y=torch.tensor([[4.0, 3.0]]).double(),
        loss_fn=lambda labels, logits: (labels * logits).sum(1),
        ord=2,
        eps=1.0,
        eps_iter=1.0,
        nb_iter=1,
        clip_min=0.0,
        clip_max=0.35,
        sanity_checks=False,
    )
    torch.testing.assert_close(found, torch.tensor([[0.35, 0.35]]).double())


def test_pgd_takes_tensors_for_radius_and_step() -> None:
    model, (x, y) = mlp(), batch()
    eps = torch.linspace(0.05, 0.3, 6).double()[:, None]
    found = v3.BasicIterativeMethod(model).generate(
        x, y=one_hot(y), eps=eps, eps_iter=eps / 2, nb_iter=4
    )
    torch.testing.assert_close((found - x).abs().amax(1, keepdim=True), eps)


def test_labels_stay_those_of_the_clean_input() -> None:
    model, (x, _) = Counting(mlp()), batch()
    v3.BasicIterativeMethod(model).generate(x, eps=3.0, eps_iter=1.0, nb_iter=3)
    assert len(model.calls) == 3
    assert not any(model.calls)  # eval mode
