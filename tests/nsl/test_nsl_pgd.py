"""`torchfgsm.nsl`: iterated steps, random starts, the functions of `nsl.lib`, adversarial_loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from toy_models import batch, mlp

from torchfgsm import losses, nsl

WORDS = ("infinity", "l2", "l1")


def t(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def approx(rows: Any, tolerance: float = 1e-9) -> Any:
    return pytest.approx(rows, abs=tolerance)


# PGD


def run_pgd(
    x: Tensor, loss: Callable[[Tensor], Tensor], calls: list[Any] | None = None, **config: Any
) -> Tensor:
    def model(inputs: Tensor) -> Tensor:
        if calls is not None:
            calls.append(inputs)
        return inputs

    leaf = x.clone().requires_grad_()
    found, _ = nsl.gen_adv_neighbor(
        leaf,
        loss(leaf),
        nsl.AdvNeighborConfig(**config),
        pgd_model_fn=model,
        pgd_loss_fn=lambda labels, outputs: labels * loss(outputs),
        pgd_labels=1.0,
    )
    neighbors: Tensor = found.detach()
    return neighbors


ZEROS = torch.zeros(2, 3).double()


def test_pgd_without_a_ball_adds_up_and_with_one_is_projected() -> None:
    kwargs: dict[str, Any] = {"adv_step_size": 0.1, "adv_grad_norm": "infinity"}
    calls: list[Tensor] = []
    five = run_pgd(ZEROS, torch.sum, calls, pgd_iterations=5, **kwargs)
    torch.testing.assert_close(five, torch.full_like(ZEROS, 0.5))
    assert len(calls) == 4  # the first step follows the loss that was given
    ball = run_pgd(ZEROS, torch.sum, pgd_iterations=5, pgd_epsilon=0.25, **kwargs)
    assert ball.tolist() == torch.full_like(ZEROS, 0.25).tolist()
    once = run_pgd(ZEROS, torch.sum, adv_step_size=0.5, pgd_epsilon=0.2)
    torch.testing.assert_close(once.norm(dim=1), t([0.2, 0.2]))
    assert run_pgd(ZEROS, torch.sum, pgd_epsilon=0.0, pgd_iterations=3).abs().max() == 0


def test_pgd_projects_before_it_clips_and_clips_once() -> None:
    # One step (.8, .6): projected to .5 it is (.4, .3), then clipped to .35 it is (.35, .3);
    # clipped first, it would be (.35, .35) inside of the ball.
    x, slopes = torch.zeros(1, 2).double(), t([[4.0, 3.0]])
    config: dict[str, Any] = {"pgd_epsilon": 0.5, "adv_step_size": 1.0, "clip_value_max": 0.35}
    found = run_pgd(x, lambda z: (z * slopes).sum(), **config)
    assert found.tolist() == [approx([0.35, 0.3])]


def test_iterations_0_still_takes_one_step_unless_it_started_at_random() -> None:
    kwargs: dict[str, Any] = {"adv_step_size": 0.1, "adv_grad_norm": "infinity"}
    one = run_pgd(ZEROS, torch.sum, pgd_iterations=0, **kwargs)
    assert one.tolist() == torch.full_like(ZEROS, 0.1).tolist()
    calls: list[Tensor] = []
    many = torch.zeros(2000, 3).double()
    start = run_pgd(many, torch.sum, calls, pgd_iterations=0, random_init=True, **kwargs)
    assert calls == []
    assert 0.099 < float(start.abs().max()) <= 0.1
    assert float(start.mean().abs()) < 0.01


@pytest.mark.parametrize("word", WORDS)
def test_random_start_takes_real_steps_from_the_ball(word: str) -> None:
    many = torch.zeros(500, 2).double()
    order = {"infinity": float("inf"), "l2": 2, "l1": 1}[word]
    calls: list[Tensor] = []
    kwargs: dict[str, Any] = {"adv_step_size": 0.1, "adv_grad_norm": word, "random_init": True}
    found = run_pgd(many, torch.sum, calls, pgd_iterations=1, **kwargs)
    assert len(calls) == 1
    # Without a ball the step of .1 leaves from within .1: up to .2.
    lengths = torch.linalg.vector_norm(found, order, dim=1)
    assert 0.15 < float(lengths.max()) <= 0.2 + 1e-12
    if word != "l1":
        kwargs["pgd_epsilon"] = 0.3
        started = run_pgd(many, torch.sum, pgd_iterations=0, **kwargs)
        lengths = torch.linalg.vector_norm(started, order, dim=1)
        assert 0.25 < float(lengths.max()) <= 0.3 + 1e-12


def test_a_feature_without_gradient_returns_from_its_random_start() -> None:
    features = {name: torch.zeros(4, 2).double().requires_grad_() for name in ("live", "dead")}
    for iterations in (0, 1):
        found, _ = nsl.gen_adv_neighbor(
            features,
            torch.tensor(0.0),
            nsl.AdvNeighborConfig(random_init=True, adv_step_size=0.1, pgd_iterations=iterations),
            pgd_model_fn=lambda inputs: inputs["live"],
            pgd_loss_fn=lambda labels, outputs: outputs.sum(),
        )
        moved = {name: float(value.detach().abs().max()) for name, value in found.items()}
        assert moved["live"] > 0
        assert (moved["dead"] > 0) == (iterations == 0)


def test_pgd_model_gets_the_structure_of_the_features() -> None:
    seen: list[Any] = []
    leaf = {"a": t([[1.0]]).requires_grad_(), "n": torch.tensor([3])}

    def model(inputs: Any) -> Tensor:
        seen.append(inputs)
        output: Tensor = inputs["a"] * inputs["n"]
        return output

    nsl.gen_adv_neighbor(
        leaf,
        leaf["a"].sum(),
        nsl.AdvNeighborConfig(pgd_iterations=2),
        pgd_model_fn=model,
        pgd_loss_fn=lambda y, p: p.sum(),
    )
    assert list(seen[0]) == ["a", "n"]
    assert seen[0]["a"].tolist() == [[pytest.approx(1.001)]]


# The functions of nsl.lib


def test_functions_of_lib() -> None:
    rows = t([[3.0, 4.0], [0.0, 0.0]])
    assert nsl.normalize(rows, "l2").tolist() == [approx([0.6, 0.8]), [0.0, 0.0]]
    assert nsl.normalize(rows, "l1").tolist() == [approx([3 / 7, 4 / 7]), [0.0, 0.0]]
    assert nsl.normalize(rows, nsl.NormType.INFINITY).tolist() == [[0.75, 1.0], [0.0, 0.0]]
    assert nsl.normalize(1e-9 * rows, "l1", epsilon=1e-6).tolist()[0] == approx([3e-3, 4e-3])
    found = nsl.maximize_within_unit_norm({"a": rows[:1], "b": rows[:1]}, "l2")
    assert found["a"].tolist() == [approx([0.6 / 2**0.5, 0.8 / 2**0.5])]
    assert nsl.maximize_within_unit_norm(rows, nsl.NormType.L1).tolist() == [[0.0, 1.0], [0.0, 0.0]]
    ball = nsl.project_to_ball([rows, rows], 1.0, nsl.NormType.L2)
    assert ball[1].tolist() == [approx([0.6 / 2**0.5, 0.8 / 2**0.5]), [0.0, 0.0]]
    assert nsl.project_to_ball(rows, 1.0, nsl.NormType.INFINITY).tolist()[0] == [1.0, 1.0]
    inside = nsl.random_in_norm_ball({"a": rows, "b": rows}, 0.5, "l1")
    assert float((inside["a"].abs() + inside["b"].abs()).sum(1).max()) <= 0.5
    assert nsl.apply_feature_mask(rows, [1.0, 0.0]).tolist() == [[3.0, 0.0], [0.0, 0.0]]
    assert nsl.apply_feature_mask(rows) is rows


def test_config_takes_words_and_norm_types() -> None:
    assert nsl.AdvNeighborConfig(adv_grad_norm="l1").adv_grad_norm is nsl.NormType.L1
    assert nsl.AdvNeighborConfig(adv_grad_norm=nsl.NormType.L1).adv_grad_norm is nsl.NormType.L1
    assert nsl.NormType.all() == [nsl.NormType.L1, nsl.NormType.L2, nsl.NormType.INFINITY]
    config = nsl.make_adv_reg_config(multiplier=0.3, pgd_iterations=2, random_init=True)
    assert config.multiplier == 0.3
    assert config.adv_neighbor_config == nsl.AdvNeighborConfig(pgd_iterations=2, random_init=True)


def test_adversarial_loss_is_unscaled_and_works_where_grad_is_off() -> None:
    model, (x, y) = mlp(), batch()
    loss_fn = losses.SparseCategoricalCrossentropy(from_logits=True)
    config = nsl.make_adv_reg_config(multiplier=7.0, adv_step_size=0.1)
    leaf = x.clone().requires_grad_()
    clean = loss_fn(y, model(leaf))
    neighbors, _ = nsl.gen_adv_neighbor(leaf, clean, config.adv_neighbor_config)
    expected = loss_fn(y, model(neighbors.detach()))
    found = nsl.adversarial_loss(x, y, model, loss_fn, adv_config=config)
    torch.testing.assert_close(found, expected)
    again = nsl.adversarial_loss(leaf, y, model, loss_fn, adv_config=config, labeled_loss=clean)
    torch.testing.assert_close(again, expected)
    with torch.no_grad():
        quiet = nsl.adversarial_loss(x, y, model, loss_fn, adv_config=config)
    assert not quiet.requires_grad
    torch.testing.assert_close(quiet, expected.detach())


def test_the_mask_is_one_of_the_gradient_alone_as_in_the_original() -> None:
    """NSL 1.4.0 moves masked entries by its random start; `torchfgsm.attack` keeps them."""
    many = torch.zeros(200, 2).double()
    kwargs: dict[str, Any] = {"adv_step_size": 0.01, "pgd_epsilon": 0.1, "random_init": True}
    masked: dict[str, Any] = {"feature_mask": torch.tensor([1.0, 0.0]), "adv_grad_norm": "infinity"}
    started = run_pgd(many, torch.sum, pgd_iterations=2, **kwargs, **masked)
    assert 0.09 < float(started[:, 1].abs().max()) <= 0.1
