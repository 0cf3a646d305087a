"""What an explanation takes, what it refuses, and what it leaves alone."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from toy_models import Counting, NeverCalled, TwoInputs, batch, mlp, noisy

from torchfgsm import Recipe, Weighting, attack
from torchfgsm.explanation.explaining import explain
from torchfgsm.libraries.configuration import Configuration
from torchfgsm.translation import translate

pytestmark = pytest.mark.usefixtures("one_thread")

GIVEN = Recipe(labels="given", step=0.1)


def test_structured_features_and_batches() -> None:
    model, (x, y) = TwoInputs(), batch()
    inputs = {"a": x[:, :2].clone(), "b": x[:, 2:].clone(), "kind": torch.arange(6)}
    a = Recipe(labels="given", step=0.1, norm="l2")
    b = dataclasses.replace(a, joint=False)
    found = explain(model, inputs, y, a=a, b=b, epsilons=())
    assert set(found.inputs) == {"a", "b", "kind"}
    assert set(found.a.perturbations) == {"a", "b"}
    # Jointly the two are 0.1 long, alone each is.
    for side, length in ((found.a, 0.1), (found.b, 0.1 * math.sqrt(2))):
        both = np.concatenate([side.perturbations["a"], side.perturbations["b"]], axis=1)
        assert np.linalg.norm(both, axis=1) == pytest.approx(np.full(6, length))
    listed = explain(
        lambda p, q: model({"a": p, "b": q, "kind": inputs["kind"]}),
        [inputs["a"], inputs["b"]], y, a=a, b=b, epsilons=(),
    )  # fmt: skip
    assert np.array_equal(listed.a.perturbations["0"], found.a.perturbations["a"])


def test_batches_are_those_that_an_attack_sees() -> None:
    model, (x, y) = mlp(), batch(size=7)
    recipe = Recipe.nsl(adv_step_size=0.1)
    recipe = dataclasses.replace(recipe, guard=10.0)  # a mean shows everywhere
    found = explain(model, x, y, a=recipe, b=GIVEN, batch_size=3, epsilons=())
    parts = [attack(model, x[i : i + 3], y[i : i + 3], recipe=recipe) for i in (0, 3, 6)]
    assert np.array_equal(found.a.perturbations["x"], (torch.cat(parts) - x).numpy())
    whole = explain(model, x, y, a=recipe, b=GIVEN, epsilons=())
    assert found.clean_loss == pytest.approx(whole.clean_loss)
    assert not np.array_equal(found.a.perturbations["x"], whole.a.perturbations["x"])


def test_loss_of_the_callers_own_and_outputs_without_classes() -> None:
    x, _ = batch()
    weight = torch.arange(1.0, 5.0, dtype=torch.float64)
    found = explain(
        lambda x: {"score": (x * weight).sum(1)},
        x,
        torch.zeros(6, dtype=torch.float64),
        a=GIVEN,
        b=dataclasses.replace(GIVEN, step=0.2),
        loss_fn=lambda output, y: output["score"] - y,
        epsilons=(),
    )
    assert found.total.loss == pytest.approx(0.1 * 10)
    assert found.a.predictions.size == 0
    assert math.isnan(found.a.accuracy)


@pytest.mark.parametrize("training", [True, False])
def test_no_trace_is_left(training: bool) -> None:
    model, (x, y) = noisy(), batch(torch.float32)
    model.train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state, kept = torch.get_rng_state(), x.clone()
    modes = [module.training for module in model.modules()]
    a = Configuration.of("nsl", {"random_init": True, "model_mode": "keep_and_update"})
    first = explain(model, x, y, a=a, b="cleverhans3", epsilons=())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, kept)
    torch.rand(3)
    second = explain(model, x, y, a=a, b="cleverhans3", epsilons=())
    assert np.array_equal(first.a.perturbations["x"], second.a.perturbations["x"])
    assert first.effects == second.effects
    assert first.training == second.training


def test_draws_are_alike_so_that_a_field_without_effect_shows_none() -> None:
    model, (x, y) = noisy(), batch(torch.float32)
    a = Recipe(labels="given", step=0.1, random_start="uniform", model_mode="keep")
    found = explain(model, x, y, a=a, b=dataclasses.replace(a, ties="shared"), epsilons=())
    assert found.total.examples == 0
    other = explain(model, x, y, a=a, b=a, seed=1, epsilons=())
    assert not np.array_equal(other.a.perturbations["x"], found.a.perturbations["x"])


def test_loss_and_accuracy_are_measured_in_eval_mode() -> None:
    inner, (x, y) = noisy(), batch(torch.float32)
    model = Counting(inner)
    explain(model, x, y, a=GIVEN, b=GIVEN, epsilons=())
    assert model.calls == [False] * 4  # clean, attack, adversarial, traps
    assert inner[3].training


REFUSALS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no labels": ({"y": None}, ValueError, "y is missing"),
    "labels of another batch": ({"y": torch.zeros(5).long()}, ValueError, "side b.*one label per"),
    "negative labels": ({"y": -torch.ones(6).long()}, ValueError, "at least 0"),
    "labels that are no tensor": ({"y": [0] * 6}, TypeError, "must be a tensor"),
    "library": ({"a": "nls"}, ValueError, "did you mean 'nsl'"),
    "library without defaults": ({"a": "cleverhans-tf2"}, TypeError, "no default for eps, norm"),
    "side": ({"b": 3}, TypeError, "b must be a Configuration, a Recipe or a library's name, got"),
    "no step": ({"a": Recipe(step=None)}, ValueError, "side a has no length of a step"),
    "target": ({"target": torch.zeros(6).long()}, ValueError, "target= was given"),
    "no target": ({"b": Recipe(step=0.1, targeted=True)}, ValueError, "needs target="),
    "output": ({"model_output": "logit"}, ValueError, "model_output must be"),
    "batch size": ({"batch_size": 0}, ValueError, "batch_size must be an int of at least 1"),
    "epsilons": ({"epsilons": [0.1, -1.0]}, ValueError, "epsilons must be finite"),
    "weights": ({"sample_weight": torch.ones(3)}, ValueError, r"sample_weight of shape \(6,\)"),
    "weights of nobody": (
        {"sample_weight": torch.ones(6), "a": GIVEN}, ValueError, "neither side is NSL"),
    "nan": ({"x": torch.full((6, 4), math.nan)}, ValueError, "NaN or infinite"),
    "dtype": ({"x": torch.zeros(6, 4).double()}, ValueError, "cast one of them"),
    "clip of one side": (
        {"b": Recipe.cleverhans3(clip_min=0.0)}, ValueError, "side b.*to neither"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_come_before_the_model_is_called(name: str) -> None:
    given, kind, message = REFUSALS[name]
    x, y = batch(torch.float32)
    arguments = {"x": x, "y": y, "a": "nsl", "b": "cleverhans3", **given}
    if name == "labels of another batch":
        arguments["a"] = "cleverhans3"
        arguments["b"] = "nsl"
    with pytest.raises(kind, match=message):
        explain(NeverCalled(), arguments.pop("x"), arguments.pop("y"), **arguments)


def test_labels_that_are_no_class_are_refused_before_an_attack() -> None:
    model, (x, _) = Counting(mlp()), batch()
    with pytest.raises(ValueError, match="class"):
        explain(model, x, torch.full((6,), 9), a="cleverhans3", b=GIVEN)
    assert len(model.calls) == 1


def test_a_recipe_has_no_training_loss() -> None:
    model, (x, y) = mlp(), batch()
    recipe = Configuration(recipe=GIVEN, weighting=Weighting(1, 1))
    assert explain(model, x, y, a=recipe, b=GIVEN, epsilons=()).training is None
    assert explain(model, x, y, a=recipe, b="nsl", epsilons=()).training is not None


def test_settings_that_make_one_side_like_the_other() -> None:
    model, (x, y) = mlp(), batch()
    sides = (
        Configuration.of(
            "nsl", {"adv_step_size": 0.1, "clip_value_min": 0.0, "clip_value_max": 1.0}
        ),
        Configuration.of("cleverhans3", {"eps": 0.3}),
    )
    found = explain(model, x, y, a=sides[0], b=sides[1], epsilons=())
    assert [settings.side for settings in found.equal] == ["b", "a"]
    for settings, like in zip(found.equal, sides, strict=True):
        (other,) = (side for side in sides if side is not like)
        translation = translate(like, to=other.library)
        assert (settings.code, settings.reason) == (translation.code, "")
        assert settings.outside == translation.outside
        assert settings.conditions == translation.conditions
        same = explain(model, x, y, a=like, b=translation.target, epsilons=())
        assert same.total.relative_l2 < 1e-14
    iterated = {"eps": 0.2, "norm": 2, "eps_iter": 0.1, "nb_iter": 3, "clip_min": 0, "clip_max": 1}
    tf2 = Configuration.of("cleverhans-tf2", iterated)
    to_b, to_a = explain(model, x, y, a="nsl", b=tf2, epsilons=()).equal
    assert to_b.reason == ""
    assert "NSL projects to the ball and then clips" in to_a.reason
    assert to_a.code == ""
    for unnamed in (GIVEN, "nsl"):
        assert explain(model, x, y, a="nsl", b=unnamed, epsilons=()).equal == ()
