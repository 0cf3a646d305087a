"""Every library's word for a norm is understood, and only the dialects keep to their own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from toy_models import batch, mlp

from torchfgsm import Recipe, fgsm, nsl, perturb, pgd
from torchfgsm.cleverhans import tf2, v3
from torchfgsm.cleverhans import torch as cleverhans_torch
from torchfgsm.cli.inputs.option_values import norm as norm_of_text
from torchfgsm.libraries.configuration import Configuration
from torchfgsm.translation import translate

WORDS: dict[str, tuple[Any, ...]] = {
    "linf": (
        "linf", "Linf", "L_inf", "l-inf", "inf", "INF", "infinity", "np.inf", "numpy.inf",
        "math.inf", "torch.inf", math.inf, np.float32(np.inf), nsl.NormType.INFINITY,
    ),
    "l2": ("l2", "L2", "l_2", "2", 2, 2.0, np.int64(2), nsl.NormType.L2),
    "l1": ("l1", "L1", "1", 1, np.float64(1), nsl.NormType.L1),
}  # fmt: skip
PAIRS = [(name, word) for name, words in WORDS.items() for word in words]


@pytest.mark.parametrize(("name", "word"), PAIRS)
def test_recipes_and_configurations_understand_it(name: str, word: Any) -> None:
    recipes = (
        Recipe(norm=word, step=1.0),
        Recipe.nsl(adv_grad_norm=word),
        Recipe.cleverhans3(ord=word),
        Recipe.cleverhans_tf2(0.1, word),
        Recipe.cleverhans_torch(0.1, word),
    )
    assert [recipe.norm for recipe in recipes] == [name] * 5
    assert recipes[0] == Recipe(norm=name, step=1.0)  # type: ignore[arg-type]
    own = {"linf": ("infinity", math.inf), "l2": ("l2", 2), "l1": ("l1", 1)}[name]
    for library, options in (
        ("nsl", {"adv_grad_norm": word}),
        ("cleverhans3", {"ord": word}),
        ("cleverhans-tf2", {"eps": 0.1, "norm": word}),
        ("cleverhans-torch", {"eps": 0.1, "norm": word}),
    ):
        found = Configuration.of(library, options)
        assert found.recipe.norm == name
        # Code and reports show the library's own word.
        (option,) = options.keys() - {"eps"}
        assert found.options[option] == own[library != "nsl"]
    if isinstance(word, str):
        assert norm_of_text(word) == name


@pytest.mark.parametrize(("name", "word"), PAIRS)
def test_attacks_understand_it(name: str, word: Any) -> None:
    model = mlp()
    x, y = batch(torch.float64)
    grad = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).reshape(x.shape)
    makes: tuple[Callable[[Any], torch.Tensor], ...] = (
        lambda norm: fgsm(model, x, y, eps=0.1, norm=norm),
        lambda norm: pgd(model, x, y, eps=0.1, iterations=2, norm=norm, random_start=False),
        lambda norm: perturb(x, grad, eps=0.1, norm=norm),
    )
    for make in makes:
        assert torch.equal(make(word), make(name))


def test_a_translation_writes_the_other_librarys_word() -> None:
    options = {"eps": 0.1, "norm": "L2", "labels": "given", "reduction": "mean"}
    found = translate(options, to="nsl", source="cleverhans-tf2")
    assert "adv_step_size=0.1" in found.code
    assert "adv_grad_norm" not in found.target.options  # L2 is NSL's default
    assert 'adv_grad_norm="infinity"' in translate(
        {"eps": 0.1, "norm": "np.inf"}, to="nsl", source="cleverhans-tf2"
    ).code  # fmt: skip


def test_dialects_refuse_others_words_and_name_their_own() -> None:
    x = torch.zeros(2, 3)
    for word, own in (("linf", "infinity"), (math.inf, "infinity"), (2, "l2"), ("L1", "l1")):
        with pytest.raises(ValueError, match=f"; use '{own}'$"):
            nsl.make_adv_reg_config(adv_grad_norm=word)
    calls: tuple[Callable[[Any], Any], ...] = (
        lambda norm: tf2.fast_gradient_method(lambda v: v, x, 0.1, norm),
        lambda norm: tf2.projected_gradient_descent(lambda v: v, x, 0.1, 0.1, 1, norm),
        lambda norm: cleverhans_torch.fast_gradient_method(lambda v: v, x, 0.1, norm),
        lambda norm: cleverhans_torch.projected_gradient_descent(lambda v: v, x, 0.1, 0.1, 1, norm),
        lambda norm: v3.FastGradientMethod(lambda v: v).generate(x, ord=norm),
        lambda norm: v3.ProjectedGradientDescent(lambda v: v).generate(x, ord=norm),
    )
    for call in calls:
        for word, own in (("infinity", "numpy.inf"), ("l2", "2")):
            with pytest.raises(ValueError, match=f"; use {own}$"):
                call(word)
        with pytest.raises(ValueError, match=r"got 'l3'$"):
            call("l3")
