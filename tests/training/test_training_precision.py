"""Adversarial training with scalers, autocast, checkpointing, compiled and frozen models."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_training import gradients, same
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from torchfgsm import Recipe, Weighting, adversarial_loss, adversarial_step

NSL = dataclasses.replace(Recipe.nsl(0.1), model_mode="keep_and_update")
KEPT = dataclasses.replace(Recipe.cleverhans3(eps=0.1), model_mode="keep")
WEIGHTING = Weighting.from_nsl(0.3)

pytestmark = pytest.mark.usefixtures("one_thread")


def network(dtype: torch.dtype = torch.float32, *, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    middle = nn.BatchNorm1d(16) if norm else nn.Identity()
    return nn.Sequential(
        nn.Linear(6, 16), middle, nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3)
    ).to(dtype)


def batch(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(8, 6, dtype=torch.float64, generator=generator).to(dtype)
    return x, torch.randint(3, (8,), generator=generator)


def faint_loss(output: Tensor, y: Tensor) -> Tensor:
    """So small that the guard under the L2 norm shortens the step, unless it is scaled up."""
    return F.cross_entropy(output, y) * 2.0**-20


def scaler(scale: float = 2.0**16) -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", init_scale=scale)


CASES: dict[str, dict[str, Any]] = {
    "NSL": {"recipe": NSL, "loss_fn": faint_loss},
    "own prediction": {"recipe": dataclasses.replace(KEPT, norm="l2", through_perturbation=False),
                       "loss_fn": faint_loss, "pass_y": False},
    "attack in eval mode": {"recipe": Recipe.nsl(0.1), "loss_fn": faint_loss},
    "adversarial only": {"recipe": NSL, "loss_fn": faint_loss, "weighting": Weighting(0.0, 1.0)},
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_scaler_changes_no_bit_of_the_attack_and_scales_both_halves(name: str) -> None:
    arguments = {"weighting": WEIGHTING, **CASES[name]}
    plain, scaled = network(norm=True), network(norm=True)
    x, y = batch()
    expected = adversarial_step(plain, x, y, **arguments)
    actual = adversarial_step(scaled, x, y, scaler=scaler(), **arguments)
    assert torch.equal(actual.adversarial, expected.adversarial)
    moved = torch.linalg.vector_norm(expected.adversarial - x, dim=1)
    assert bool((moved < 0.09).all())  # the guard bites: a scaled gradient would move by 0.1
    assert torch.equal(actual.loss, expected.loss)
    assert same({n: g * 2.0**16 for n, g in gradients(plain).items()}, gradients(scaled))


def test_a_scaler_unscales_clips_and_steps_as_always() -> None:
    plain, scaled, grad_scaler = network(), network(), scaler()
    x, y = batch()
    for _ in range(3):
        for model, used in ((plain, None), (scaled, grad_scaler)):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
            optimizer.zero_grad()
            for rows in (slice(0, 4), slice(4, 8)):
                adversarial_step(
                    model, x[rows], y[rows], recipe=NSL, weighting=WEIGHTING, scaler=used
                )
            if used is not None:
                used.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            if used is None:
                optimizer.step()
            else:
                used.step(optimizer)
                used.update()
    assert same(plain.state_dict(), scaled.state_dict())
    assert not same(plain.state_dict(), network().state_dict())


def test_gradients_that_are_unscaled_already_are_refused() -> None:
    model, grad_scaler = network(), scaler()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    arguments: dict[str, Any] = {"recipe": NSL, "weighting": WEIGHTING, "scaler": grad_scaler}
    adversarial_step(model, *batch(), **arguments)
    grad_scaler.unscale_(optimizer)
    before = gradients(model)
    with pytest.raises(ValueError, match=r"before scaler\.unscale_"):
        adversarial_step(model, *batch(), **arguments)
    assert same(gradients(model), before)
    grad_scaler.step(optimizer)
    grad_scaler.update()
    adversarial_step(model, *batch(), **arguments)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_scale_that_overflows_skips_the_step_and_spoils_no_statistics(norm: Any) -> None:
    recipe = dataclasses.replace(KEPT, norm=norm, through_perturbation=False)
    model, grad_scaler = network(norm=True), scaler(2.0**127)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    x, y = batch()
    adversarial_step(
        model, x, y, recipe=recipe, weighting=WEIGHTING, scaler=grad_scaler,
        loss_fn=lambda output, y: F.cross_entropy(output, y) * 1e3,
    )  # fmt: skip
    grad_scaler.step(optimizer)
    grad_scaler.update()
    assert grad_scaler.get_scale() == 2.0**126
    fresh = network(norm=True)
    for ours, before in zip(model.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(ours, before)
    assert all(bool(torch.isfinite(b).all()) for b in model.buffers())


AUTOCAST: dict[str, dict[str, Any]] = {
    "NSL": {"recipe": NSL},
    "attack in eval mode": {"recipe": Recipe.nsl(0.1)},
    "own prediction": {"recipe": KEPT, "pass_y": False},
    "own prediction, random start": {
        "recipe": dataclasses.replace(
            Recipe.cleverhans3(eps=0.1, nb_iter=2), model_mode="keep", norm="linf"),
        "pass_y": False},
}  # fmt: skip


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", AUTOCAST)
def test_autocast_keeps_the_dtype_and_comes_near_to_float32(
    name: str, dtype: torch.dtype, scaled: bool
) -> None:
    arguments = {"weighting": WEIGHTING, **AUTOCAST[name]}
    exact, model = network(norm=True), network(norm=True)
    x, y = batch()
    found = []
    model[3].register_full_backward_hook(lambda *_: found.append(torch.is_autocast_enabled("cpu")))
    generator = torch.Generator().manual_seed(3)
    adversarial_step(exact, x, y, generator=generator, **arguments)
    with torch.autocast("cpu", dtype):
        generator.manual_seed(3)
        used = scaler(2.0**8) if scaled else None
        result = adversarial_step(model, x, y, scaler=used, generator=generator, **arguments)
    assert result.output.dtype == dtype
    assert result.adversarial.dtype == x.dtype
    expected, actual = gradients(exact), gradients(model)
    assert actual.keys() == expected.keys() == dict(exact.named_parameters()).keys()
    divisor = 2.0**8 if scaled else 1.0
    left = torch.cat([g.flatten() / divisor for g in actual.values()])
    right = torch.cat([g.flatten() for g in expected.values()])
    assert float((left - right).norm() / right.norm()) < 0.05
    assert found[-1] is False  # a training pass; the attack's own may run in the context
    if name == "NSL":
        assert found == [False, False]


class Checkpointed(nn.Module):
    """A network whose middle is computed again in the backward pass."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.net, self.reentrant = network(torch.float64, norm=True), reentrant

    def forward(self, x: Tensor) -> Tensor:
        hidden = checkpoint(self.net[1:5], self.net[0](x), use_reentrant=self.reentrant)
        output: Tensor = self.net[5](hidden)
        return output


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("recipe", [NSL, KEPT])
def test_activation_checkpointing_changes_no_gradient(recipe: Recipe, reentrant: bool) -> None:
    model, plain = Checkpointed(reentrant), network(torch.float64, norm=True)
    x, y = batch(torch.float64)
    expected = adversarial_step(plain, x, y, recipe=recipe, weighting=WEIGHTING)
    actual = adversarial_step(model, x, y, recipe=recipe, weighting=WEIGHTING)
    assert torch.equal(actual.adversarial, expected.adversarial)
    assert same(gradients(model.net), gradients(plain))


def test_reentrant_checkpoints_refuse_a_gradient_of_the_attack_alone() -> None:
    arguments: dict[str, Any] = {"recipe": Recipe.nsl(0.1), "weighting": WEIGHTING}
    adversarial_step(Checkpointed(False), *batch(torch.float64), **arguments)
    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        adversarial_step(Checkpointed(True), *batch(torch.float64), **arguments)


def trained(model: Any, *, step: bool, recipe: Recipe) -> None:
    x, y = batch(torch.float64)
    if step:
        adversarial_step(model, x, y, recipe=recipe, weighting=WEIGHTING)
    else:
        losses = adversarial_loss(model, x, y, recipe=recipe, weighting=WEIGHTING)
        torch.autograd.backward(losses.loss)


@pytest.mark.parametrize("step", [True, False], ids=["step", "loss"])
@pytest.mark.parametrize("recipe", [NSL, Recipe.nsl(0.1)], ids=["shared", "eval"])
def test_a_compiled_model_has_the_gradients_of_the_eager_one(recipe: Recipe, step: bool) -> None:
    torch.compiler.reset()
    model, plain = network(torch.float64, norm=True), network(torch.float64, norm=True)
    compiled = torch.compile(model, backend="aot_eager")
    # Only the loss that shares the clean pass needs this: it keeps that graph for a second use.
    donated = step or recipe is not NSL
    with torch._functorch.config.patch(donated_buffer=donated):
        trained(compiled, step=step, recipe=recipe)
    trained(plain, step=step, recipe=recipe)
    expected, actual = gradients(plain), gradients(model)
    for name in expected:
        assert torch.allclose(actual[name], expected[name], rtol=1e-11, atol=1e-14), name
    assert same(dict(model.named_buffers()), dict(plain.named_buffers()))


@pytest.mark.parametrize("recipe", [NSL, KEPT, Recipe.nsl(0.1)], ids=["nsl", "keep", "eval"])
def test_what_is_frozen_stays_frozen(recipe: Recipe) -> None:
    model = network(norm=True).train()
    model[1].eval()
    model[0].requires_grad_(False)
    modes = [module.training for module in model.modules()]
    state = copy.deepcopy(model.state_dict())
    adversarial_step(model, *batch(), recipe=recipe, weighting=WEIGHTING)
    assert [module.training for module in model.modules()] == modes
    assert same(model.state_dict(), state)
    assert model[0].weight.grad is None
    assert not model[0].weight.requires_grad
    assert model[3].weight.grad is not None


def test_gradients_that_are_there_stay_and_are_added_to() -> None:
    model, fresh = network(torch.float64), network(torch.float64)
    before = {}
    for name, parameter in model.named_parameters():
        parameter.grad = torch.randn_like(parameter)
        before[name] = (parameter.grad, parameter.grad.clone())
    for called in (model, fresh):
        adversarial_step(called, *batch(torch.float64), recipe=NSL, weighting=WEIGHTING)
    added = gradients(fresh)
    for name, parameter in model.named_parameters():
        assert parameter.grad is before[name][0]
        assert torch.allclose(parameter.grad, before[name][1] + added[name], rtol=0, atol=1e-14)


@pytest.mark.parametrize("train", [adversarial_loss, adversarial_step])
def test_a_compiled_step_that_puts_the_mode_back_leaves_the_graph(train: Any) -> None:
    """Broken in its middle, autograd's graph would have no path from the input to the loss."""
    found = []
    for compiled in (False, True):
        model, (x, y) = network(), batch()

        def step(x: Tensor, y: Tensor, model: nn.Module = model) -> Tensor:
            result = train(model, x, y, recipe=KEPT, weighting=WEIGHTING)
            loss: Tensor = result.loss
            return loss

        torch.compiler.reset()
        run = torch.compile(step, backend="eager") if compiled else step
        loss = run(x, y)
        if train is adversarial_loss:
            torch.autograd.backward(loss)
        found.append((loss.detach(), gradients(model)))
    assert found[0][0] == found[1][0]
    assert same(found[0][1], found[1][1])
