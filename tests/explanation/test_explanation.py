"""What each field does: closed forms of a linear model, the path, and what is left alone."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy_models import batch, mlp

from torchfgsm import Recipe, attack
from torchfgsm.explanation import batch_attacks
from torchfgsm.explanation.explaining import explain
from torchfgsm.explanation.result import Explanation, FieldEffect
from torchfgsm.libraries.configuration import Configuration

pytestmark = pytest.mark.usefixtures("one_thread")

WEIGHT = torch.tensor([3.0, -1.0, 2.0, 0.5], dtype=torch.float64)
LENGTH = float(WEIGHT.norm())


def linear(size: float = 1.0) -> nn.Linear:
    """Two logits, w x and -w x: the gradient of class 0's loss is -2 p(1) w."""
    model = nn.Linear(4, 2, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(size * torch.stack([WEIGHT, -WEIGHT]))
    return model


def examples(wrong: int = 2, count: int = 6) -> tuple[Tensor, Tensor]:
    """Points of which the first `wrong` lie on the other side of the plane than their label."""
    side = torch.tensor([-1.0] * wrong + [1.0] * (count - wrong), dtype=torch.float64)
    return 0.1 * side[:, None] * WEIGHT / LENGTH, torch.zeros(count, dtype=torch.int64)


def single(a: Recipe, model: nn.Module | None = None, **change: Any) -> Explanation:
    x, y = examples()
    b = dataclasses.replace(a, **change)
    return explain(model or linear(), x, y, a=a, b=b, epsilons=())


def only_effect(explanation: Explanation) -> FieldEffect:
    (effect,) = explanation.effects
    return effect


GIVEN = Recipe(labels="given", step=0.1)
CLOSED_FORMS: dict[str, tuple[Recipe, dict[str, Any], dict[str, float]]] = {
    "step": (
        GIVEN,
        {"step": 0.4},
        {"sign_flips": 0, "relative_l2": 3, "cosine": 1, "examples": 6},
    ),
    # The sign vector against w / |w|: cos = |w|_1 / (|w|_2 sqrt(4)).
    "norm": (
        GIVEN,
        {"norm": "l2"},
        {
            "sign_flips": 0,
            "cosine": 6.5 / (LENGTH * 2),
            "relative_l2": math.sqrt(4 + 1 - 2 * 6.5 / LENGTH) / 2,
            "examples": 6,
        },
    ),
    # L1 moves the first entry alone; the others' signs become 0.
    "norm l1": (GIVEN, {"norm": "l1"}, {"sign_flips": 0.75, "cosine": 0.5, "examples": 6}),
    # Two of six examples turn round.
    "labels": (
        GIVEN,
        {"labels": "predicted"},
        {
            "sign_flips": 1 / 3,
            "relative_l2": 2 * math.sqrt(1 / 3),
            "cosine": 1 / 3,
            "examples": 2,
        },
    ),
    "iterations": (GIVEN, {"iterations": 3}, {"relative_l2": 2, "cosine": 1, "examples": 6}),
    "epsilon": (
        dataclasses.replace(GIVEN, iterations=3),
        {"epsilon": 0.15},
        {"sign_flips": 0, "relative_l2": 0.5, "cosine": 1, "examples": 6},
    ),
    "reduction without a guard": (
        dataclasses.replace(GIVEN, norm="l2"),
        {"reduction": "mean"},
        {"sign_flips": 0, "relative_l2": 0, "cosine": 1, "examples": 0},
    ),
    "ties": (GIVEN, {"ties": "shared"}, {"relative_l2": 0, "cosine": 1, "examples": 0}),
    "through_perturbation": (GIVEN, {"through_perturbation": True}, {"relative_l2": 0}),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_effect_of_a_field_on_a_linear_model(name: str) -> None:
    recipe, change, expected = CLOSED_FORMS[name]
    found = single(recipe, **change)
    effect = only_effect(found)
    assert effect.name in change
    assert effect.from_a == found.total
    assert effect.reason == ""
    for measured, value in expected.items():
        assert getattr(effect.from_a, measured) == pytest.approx(value, abs=1e-12)
    assert found.remainder == 0
    assert found.differs == (found.total.relative_l2 > 0)


def test_effects_of_loss_and_accuracy_on_a_linear_model() -> None:
    effect = only_effect(single(GIVEN, step=0.02))
    # Every point is 0.1 from the plane: a step of 0.1 carries the four right ones over it, one
    # of 0.02 does not (|w|_1 0.02 = 0.13 < 0.1 |w| = 0.378).
    assert effect.from_a is not None
    assert effect.from_a.accuracy == pytest.approx(4 / 6)
    margins = 0.1 * LENGTH * torch.tensor([-1.0] * 2 + [1.0] * 4, dtype=torch.float64)

    def loss(step: float) -> float:
        return float(nn.functional.softplus(-2 * (margins - 6.5 * step)).mean())

    assert effect.from_a.loss == pytest.approx(loss(0.02) - loss(0.1), abs=1e-12)


def test_guard_and_mean_on_gradients_that_are_almost_zero() -> None:
    model = linear(60.0)
    x, y = examples(wrong=0, count=2)
    x[1] = 0  # its gradient is large
    recipe = dataclasses.replace(GIVEN, norm="l2", guard=1e-12)
    found = explain(
        model, x, y, a=recipe, b=dataclasses.replace(recipe, reduction="mean"), epsilons=()
    )
    # |g| = 2 p(1) |w|, well below the guard's 1e-6: the perturbation shrinks with the batch.
    length = 2 * 60 * LENGTH / (1 + math.exp(2 * 60 * 0.1 * LENGTH))
    assert length < 1e-6
    lengths = [np.linalg.norm(side.perturbations["x"], axis=1) for side in (found.a, found.b)]
    assert lengths[0] == pytest.approx([0.1 * length / 1e-6, 0.1], rel=1e-6)
    assert lengths[1] == pytest.approx([0.05 * length / 1e-6, 0.1], rel=1e-6)
    assert found.total.examples == 1
    assert found.total.sign_flips == 0


def test_clip_order_and_random_start_have_effects_of_their_own() -> None:
    clipped = only_effect(single(GIVEN, clip_max=0.0))
    assert clipped.from_a is not None
    assert clipped.from_a.sign_flips > 0
    started = single(dataclasses.replace(GIVEN, step=0.01, epsilon=0.1), random_start="uniform")
    assert started.total.examples == 6


def test_model_output_is_a_field_like_others() -> None:
    a = Recipe(labels="given", step=0.1, norm="l2", guard=1e-12)
    b = dataclasses.replace(a, model_output="probabilities")
    x, y = examples()
    logits, probabilities = linear(40.0), nn.Sequential(linear(40.0), nn.Softmax(1))
    found = explain(logits, x, y, a=a, b=b, epsilons=())
    assert found.facts["model_output"] == "logits"
    # p of the wrong class is exp(-2 * 40 * .1 |w|) < 1e-7: clipped, no gradient, no move.
    assert (found.b.perturbations["x"][2:] == 0).all()
    assert (found.a.perturbations["x"] != 0).all()
    unsure = explain(linear(), x, y, a=a, b=b, epsilons=())
    taken = attack(nn.Sequential(linear(), nn.Softmax(1)), x, y, recipe=b) - x
    assert np.array_equal(unsure.b.perturbations["x"], taken.numpy())
    assert unsure.total.relative_l2 == pytest.approx(0, abs=1e-9)
    same = attack(probabilities, x, y, recipe=b) - x
    assert np.array_equal(found.b.perturbations["x"], same.numpy())
    mistaken = explain(probabilities, x, y, a=a, b=b, epsilons=())
    assert mistaken.facts["model_output"] == "probabilities"
    assert np.array_equal(mistaken.b.perturbations["x"], same.numpy())
    with pytest.warns(UserWarning, match="probabilities, not logits"):
        raw = attack(probabilities, x, y, recipe=a) - x
    assert np.array_equal(mistaken.a.perturbations["x"], raw.numpy())
    assert mistaken.a.accuracy == found.a.accuracy


def test_targets() -> None:
    # Two classes: to climb the loss of class 0 is to descend that of class 1.
    x, y = examples()
    b = dataclasses.replace(GIVEN, targeted=True)
    found = explain(linear(), x, y, a=GIVEN, b=b, target=1 - y, epsilons=())
    assert found.total.relative_l2 == pytest.approx(0, abs=1e-12)
    found = explain(linear(), x, y, a=GIVEN, b=b, target=y, epsilons=())
    assert found.total.sign_flips == 1
    assert found.total.cosine == -1


def test_fields_that_only_go_together_are_one_step_of_the_path() -> None:
    x, y = examples()
    a = dataclasses.replace(GIVEN, clip_min=-0.3, clip_max=-0.1)
    b = dataclasses.replace(GIVEN, clip_min=0.1, clip_max=0.3, step=0.2)
    found = explain(linear(), x, y, a=a, b=b, epsilons=())
    effects = {effect.name: effect for effect in found.effects}
    assert effects["clip_min"].from_a is None
    assert effects["clip_min"].from_b is not None
    assert effects["clip_min"].reason == "from a: clip_min 0.1 is above clip_max -0.1"
    assert effects["clip_max"].reason == "from b: clip_min 0.1 is above clip_max -0.1"
    assert [step.names for step in found.path] == [("step",), ("clip_min", "clip_max")]
    assert found.path[-1].values == ((-0.3, 0.1), (-0.1, 0.3))
    assert found.path[-1].left.relative_l2 == 0


def test_a_one_sided_clip_goes_with_the_rule_that_allows_it() -> None:
    x, y = examples()
    a = Configuration.of("cleverhans3", {"eps": 0.1, "labels": "given"})
    b = Configuration.of("nsl", {"adv_step_size": 0.1, "clip_value_min": 0.0})
    found = explain(linear(), x, y, a=a, b=b, epsilons=())
    (effect,) = (effect for effect in found.effects if effect.name == "clip_min")
    assert effect.from_a is None
    assert "clips to clip_min and clip_max or to neither" in effect.reason
    assert ("clip_min", "one_sided_clip") in [step.names for step in found.path]
    assert found.path[-1].left.relative_l2 == 0


def test_path_and_effects_are_the_attacks_of_the_changed_recipes() -> None:
    model, (x, y) = mlp(), batch()
    a = Configuration.of("nsl", {"adv_step_size": 0.05, "pgd_iterations": 3, "pgd_epsilon": 0.1})
    b = Configuration.of(
        "cleverhans3",
        {"eps": 0.2, "eps_iter": 0.1, "nb_iter": 2, "clip_min": 0.2, "clip_max": 0.8},
    )
    found = explain(model, x, y, a=a, b=b, epsilons=())

    def made(recipe: Recipe) -> Tensor:
        labels = y if recipe.labels == "given" else None
        generator = torch.Generator().manual_seed(0)
        moved: Tensor = attack(model, x, labels, recipe=recipe, generator=generator)
        return moved - x

    def away(recipe: Recipe, reference: Recipe) -> float:
        return float((made(recipe) - made(reference)).norm() / made(reference).norm())

    differing = a.recipe.diff(b.recipe)
    assert {effect.name for effect in found.effects} == set(differing)
    rest = made(b.recipe) - made(a.recipe)
    for effect in found.effects:
        values = differing[effect.name]
        assert effect.values == values
        forth = dataclasses.replace(a.recipe, **{effect.name: values[1]})
        back = dataclasses.replace(b.recipe, **{effect.name: values[0]})
        if effect.from_a is not None:
            rest -= made(forth) - made(a.recipe)
            assert effect.from_a.relative_l2 == pytest.approx(away(forth, a.recipe), abs=1e-12)
        if effect.from_b is not None:
            assert effect.from_b.relative_l2 == pytest.approx(away(back, b.recipe), abs=1e-12)
    whole = (made(b.recipe) - made(a.recipe)).norm()
    assert found.remainder == pytest.approx(float(rest.norm() / whole), abs=1e-9)
    here = a.recipe
    for step in found.path:
        after = dataclasses.replace(here, **{n: differing[n][1] for n in step.names})
        assert step.change.relative_l2 == pytest.approx(away(after, here), abs=1e-12)
        assert step.left.relative_l2 == pytest.approx(away(after, b.recipe), abs=1e-12)
        here = after
    assert here == b.recipe
    assert np.array_equal(found.a.perturbations["x"], made(a.recipe).numpy())
    assert np.array_equal(found.b.perturbations["x"], made(b.recipe).numpy())


def test_every_recipe_is_attacked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[Recipe] = []

    def counted(*args: Any, recipe: Recipe, **options: Any) -> Any:
        runs.append(recipe)
        return attack(*args, recipe=recipe, **options)

    monkeypatch.setattr(batch_attacks, "attack", counted)
    done: list[int] = []
    model, (x, y) = mlp(), batch()
    found = explain(model, x, y, a="nsl", b="cleverhans3", progress=lambda n, total: done.append(n))
    assert len(set(runs)) == len(runs) == found.facts["attacks"]
    assert done == list(range(1, len(runs) + 1))
    singles = {dataclasses.replace(Recipe.nsl(), **{n: v[1]})
               for n, v in Recipe.nsl().diff(Recipe.cleverhans3()).items()}  # fmt: skip
    assert singles <= set(runs)


def test_two_sides_alike_differ_in_nothing() -> None:
    model, (x, y) = mlp(), batch()
    found = explain(model, x, y, a="nsl", b="nsl")
    assert not found.differs
    assert found.effects == ()
    assert found.path == ()
    assert (found.total.relative_l2, found.total.examples, found.remainder) == (0, 0, 0)
