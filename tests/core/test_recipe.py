"""Recipes: the libraries' defaults, what is refused, differences."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from torchfgsm import Recipe, nsl

# semantics.md, sections 1, 2 and 5: what each library does at its own defaults.
NSL = {
    "labels": "given",
    "targeted": False,
    "model_output": "logits",
    "reduction": "mean",
    "nonfinite": "zero",
    "zero_gradient": "stay",
    "missing_gradient": "stay",
    "clip_grad": False,
    "norm": "l2",
    "guard": 1e-12,
    "joint": True,
    "scalar_examples": "each",
    "step": 0.001,
    "iterations": 1,
    "epsilon": None,
    "order": "project_clip",
    "random_start": "none",
    "clip_min": None,
    "clip_max": None,
    "one_sided_clip": "allowed",
    "crossed_clip": "max",
    "through_perturbation": False,
    "model_mode": "eval",
}
CLEVERHANS3 = {
    **NSL,
    "labels": "predicted",
    "ties": "shared",
    "reduction": "sum",
    "nonfinite": "propagate",
    "norm": "linf",
    "joint": False,
    "step": 0.3,
    "order": "clip_project_clip",
    "one_sided_clip": "refused",
    "crossed_clip": "min",
    "through_perturbation": True,
}
TF2 = {**CLEVERHANS3, "ties": "first", "step": 0.1, "model_output": "with_head"}
TORCH = {
    **TF2,
    "reduction": "mean",
    "nonfinite": "ignore",
    "scalar_examples": "joint",
    "crossed_clip": "refuse",
    "through_perturbation": False,
    "model_mode": "keep",
}
# What CleverHans refuses or has no case of: a feature without a gradient.
for row in (CLEVERHANS3, TF2, TORCH):
    row["missing_gradient"] = "refuse"


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (Recipe.nsl(), NSL),
        (Recipe.cleverhans3(), CLEVERHANS3),
        (Recipe.cleverhans_tf2(0.1, np.inf), TF2),
        (Recipe.cleverhans_torch(0.1, np.inf), TORCH),
    ],
    ids=["nsl", "cleverhans3", "cleverhans-tf2", "cleverhans-torch"],
)
def test_preset_holds_the_librarys_defaults(recipe: Recipe, expected: dict[str, Any]) -> None:
    found = dataclasses.asdict(recipe)
    assert {name: found[name] for name in expected} == expected
    unnamed = {name: value for name, value in found.items() if name not in expected}
    assert set(unnamed) <= {"ties", "random_radius"}


def test_nsl_defaults_are_those_of_its_config() -> None:
    parameters = inspect.signature(Recipe.nsl).parameters
    config = {field.name: field.default for field in dataclasses.fields(nsl.AdvNeighborConfig)}
    assert {name: p.default for name, p in parameters.items()} == {
        name: value for name, value in config.items() if name != "feature_mask"
    }


@pytest.mark.parametrize(
    ("recipe", "start", "radius"),
    [
        (Recipe.nsl(0.01, random_init=True, pgd_iterations=3), "uniform", None),
        (Recipe.cleverhans3(nb_iter=10), "biased_l1", None),
        (Recipe.cleverhans3(nb_iter=10, rand_init=False), "none", None),
        (Recipe.cleverhans3(nb_iter=10, rand_init_eps=0.2), "biased_l1", 0.2),
        (Recipe.cleverhans_tf2(0.3, 2, 0.05, 10), "none", None),
        (Recipe.cleverhans_tf2(0.3, 2, 0.05, 10, rand_init=True), "biased_l1", None),
        (Recipe.cleverhans_torch(0.3, 2, 0.05, 10), "cube", None),
        (Recipe.cleverhans_torch(0.3, 2, 0.05, 10, rand_minmax=0.1), "cube", 0.1),
        (Recipe.cleverhans_torch(0.3, 2, 0.05, 10, rand_init=False), "none", None),
        (Recipe.cleverhans3(rand_init=True), "none", None),  # one step starts at the input
    ],
)
def test_random_start_of_each_library(recipe: Recipe, start: str, radius: float | None) -> None:
    assert recipe.random_start == start
    assert recipe.random_radius == radius


def test_cleverhans_iterates_only_when_iterations_are_given() -> None:
    once = Recipe.cleverhans3(eps=0.2)
    assert (once.step, once.iterations, once.epsilon) == (0.2, 1, None)
    iterated = Recipe.cleverhans3(eps=0.2, nb_iter=10)
    assert (iterated.step, iterated.iterations, iterated.epsilon) == (0.05, 10, 0.2)
    none = Recipe.cleverhans3(nb_iter=0)
    assert (none.iterations, none.epsilon) == (0, 0.3)


def test_nsl_takes_a_step_at_least_but_none_after_a_random_start() -> None:
    assert Recipe.nsl(pgd_iterations=0).iterations == 1
    assert Recipe.nsl(pgd_iterations=0, random_init=True).iterations == 0
    assert Recipe.nsl(pgd_iterations=4, pgd_epsilon=0.1).iterations == 4


@pytest.mark.parametrize(
    ("word", "norm"),
    [
        ("infinity", "linf"),
        ("l2", "l2"),
        ("l1", "l1"),
        (nsl.NormType.INFINITY, "linf"),
        (nsl.NormType.L1, "l1"),
    ],
)
def test_nsl_norms(word: object, norm: str) -> None:
    assert Recipe.nsl(adv_grad_norm=word).norm == norm


@pytest.mark.parametrize("word", ["L3", "-inf", 3, -np.inf, True, None, ["l2"]])
def test_nsl_refuses_other_norms(word: object) -> None:
    with pytest.raises(ValueError, match="'l1', 'l2', 'infinity'"):
        Recipe.nsl(adv_grad_norm=word)


@pytest.mark.parametrize(
    ("order", "norm"), [(np.inf, "linf"), (2, "l2"), (2.0, "l2"), (1, "l1"), (np.int64(1), "l1")]
)
def test_cleverhans_norms(order: object, norm: str) -> None:
    assert Recipe.cleverhans3(ord=order).norm == norm
    assert Recipe.cleverhans_tf2(0.1, order).norm == norm
    assert Recipe.cleverhans_torch(0.1, order).norm == norm


@pytest.mark.parametrize("order", ["fro", "l3", 3, None, -np.inf, True, [2]])
def test_cleverhans_refuses_other_norms(order: object) -> None:
    makes: list[Callable[[], Recipe]] = [
        lambda: Recipe.cleverhans3(ord=order),
        lambda: Recipe.cleverhans_tf2(0.1, order),
        lambda: Recipe.cleverhans_torch(0.1, order),
    ]
    for make in makes:
        with pytest.raises(ValueError, match=r"numpy\.inf, 1 or 2"):
            make()


def test_cleverhans_refuses_iterated_l1_and_torch_negative_lengths() -> None:
    makes: list[Callable[[], Recipe]] = [
        lambda: Recipe.cleverhans3(ord=1, nb_iter=2),
        lambda: Recipe.cleverhans_tf2(0.1, 1, 0.1, 2),
        lambda: Recipe.cleverhans_torch(0.1, 1, 0.1, 2),
    ]
    for make in makes:
        with pytest.raises(NotImplementedError, match=r"torchfgsm\.pgd"):
            make()
    with pytest.raises(ValueError, match=r"eps must be greater than or equal to 0, got -0\.1"):
        Recipe.cleverhans_torch(-0.1, 2)
    with pytest.raises(ValueError, match="eps_iter must be"):
        Recipe.cleverhans_torch(0.1, 2, -0.1, 2)
    assert Recipe.cleverhans_tf2(-0.1, 2).step == -0.1  # descends, as in the original
    assert Recipe.nsl(-0.1).step == -0.1


@pytest.mark.parametrize(
    ("choices", "exception", "match"),
    [
        ({"norm": "max"}, ValueError, "Recipe.norm must be one of 'linf', 'l2', 'l1', got 'max'"),
        ({"norm": ["l2"]}, ValueError, "got \\['l2'\\]"),
        ({"labels": "true"}, ValueError, "Recipe.labels"),
        ({"model_mode": "train"}, ValueError, "Recipe.model_mode"),
        ({"order": None}, ValueError, "Recipe.order"),
        ({"step": float("nan")}, ValueError, "Recipe.step must be finite"),
        ({"step": "1"}, TypeError, "Recipe.step must be a number or None, got str"),
        ({"step": True}, TypeError, "got bool"),
        ({"epsilon": -1.0}, ValueError, r"Recipe.epsilon must be at least 0\.0, got -1"),
        ({"epsilon": float("inf")}, ValueError, "Recipe.epsilon must be finite"),
        ({"random_radius": -1.0}, ValueError, "Recipe.random_radius"),
        ({"guard": -1.0}, ValueError, "Recipe.guard"),
        ({"clip_min": float("nan")}, ValueError, "Recipe.clip_min must be finite"),
        ({"clip_min": np.zeros(3)}, TypeError, "tensors are given to the call"),
        ({"clip_min": 1.0, "clip_max": 0.0}, ValueError, r"clip_min 1\.0 is above clip_max 0\.0"),
        ({"iterations": -1}, ValueError, "at least 0, got -1"),
        ({"iterations": 1.5}, TypeError, "float"),
    ],
)
def test_recipe_refuses(choices: dict[str, Any], exception: type[Exception], match: str) -> None:
    with pytest.raises(exception, match=match):
        Recipe(**{"step": 0.1, **choices})


def test_every_choice_is_checked() -> None:
    words = {
        field.name: field.type
        for field in dataclasses.fields(Recipe)
        if str(field.type).startswith(("Literal", "Norm"))
    }
    assert len(words) == 14
    for name in words:
        choice: dict[str, Any] = {name: "something else"}
        with pytest.raises(ValueError, match=f"Recipe.{name} must be one of"):
            Recipe(step=0.1, **choice)


def test_bounds_may_be_infinite_and_crossed_where_the_original_takes_them() -> None:
    assert Recipe(step=0.1, clip_min=float("-inf")).clip_min == float("-inf")
    assert Recipe.nsl(clip_value_min=1.0, clip_value_max=0.0).crossed_clip == "max"
    assert Recipe.cleverhans3(clip_min=1.0, clip_max=0.0).crossed_clip == "min"
    with pytest.raises(ValueError, match="is above clip_max"):
        Recipe.cleverhans_torch(0.1, 2, clip_min=1.0, clip_max=0.0)


def test_recipe_is_frozen_keyword_only_hashable_and_comparable() -> None:
    recipe = Recipe(step=0.1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.step = 0.2  # type: ignore[misc]
    with pytest.raises(TypeError, match="positional"):
        Recipe("given")  # type: ignore[call-arg]
    assert Recipe(step=0.1) == recipe
    assert len({recipe, Recipe(step=0.1), Recipe(step=0.2)}) == 2
    assert dataclasses.replace(recipe, norm="l1").norm == "l1"


def test_no_field_takes_a_model_a_loss_or_labels() -> None:
    names = {field.name for field in dataclasses.fields(Recipe)}
    assert names.isdisjoint({"model", "loss_fn", "y", "mask", "weights"})


def test_diff_lists_the_fields_that_differ_in_order() -> None:
    recipe = Recipe.nsl()
    assert recipe.diff(recipe) == {}
    other = dataclasses.replace(recipe, step=0.3, norm="linf", labels="predicted")
    assert list(recipe.diff(other).items()) == [
        ("labels", ("given", "predicted")),
        ("norm", ("l2", "linf")),
        ("step", (0.001, 0.3)),
    ]
    assert other.diff(recipe)["step"] == (0.3, 0.001)
    apart = Recipe.cleverhans3().diff(Recipe.cleverhans_tf2(0.3, np.inf))
    assert set(apart) == {"ties", "model_output"}


def test_a_range_of_one_value_is_a_range() -> None:
    recipe = Recipe(step=0.1, clip_min=0.5, clip_max=0.5)
    assert (recipe.clip_min, recipe.clip_max) == (0.5, 0.5)
