"""Recipes by name, numpy arrays and Keras' own methods: refused with the way out, or they work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from toy_models import batch, mlp

from torchfgsm import (
    Recipe,
    Weighting,
    adversarial_loss,
    adversarial_step,
    attack,
    capture,
    evaluate,
    fgsm,
    perturb,
    pgd,
)
from torchfgsm.cleverhans import tf2
from torchfgsm.cleverhans import torch as torch_port
from torchfgsm.cleverhans.v3 import FastGradientMethod
from torchfgsm.losses import SparseCategoricalCrossentropy
from torchfgsm.nsl.configs import AdvNeighborConfig, AdvRegConfig
from torchfgsm.nsl.keras import AdversarialRegularization

X, Y = batch()
X_ARRAY: Any = X.numpy()
Y_ARRAY: Any = Y.numpy()
RECIPE, WEIGHTING = Recipe(step=0.1), Weighting.from_nsl(0.2)


def called(_: Any) -> Any:
    raise AssertionError("the model was called")


TAKES_A_RECIPE: dict[str, Callable[[Any], Any]] = {
    "attack": lambda recipe: attack(called, X, Y, recipe=recipe),
    "evaluate": lambda recipe: evaluate(called, [(X, Y)], recipe=recipe),
    "capture": lambda recipe: capture(called, X, Y, recipe=recipe),
    "loss": lambda recipe: adversarial_loss(called, X, Y, recipe=recipe, weighting=WEIGHTING),
    "step": lambda recipe: adversarial_step(called, X, Y, recipe=recipe, weighting=WEIGHTING),
}


@pytest.mark.parametrize("name", TAKES_A_RECIPE)
def test_what_is_no_recipe_names_the_call_that_makes_one(name: str) -> None:
    for given, way in (
        ("nsl", "'nsl': give torchfgsm.Recipe.nsl()"),
        ("cleverhans_tf2", "give torchfgsm.Recipe.cleverhans_tf2(eps="),
        ("foolbox", "'foolbox': give torchfgsm.Recipe("),
        ({"step": 0.1}, "got dict: give torchfgsm.Recipe(**recipe)"),
        (Recipe.nsl, "call it"),
        (None, "got NoneType: give torchfgsm.Recipe("),
    ):
        with pytest.raises(TypeError) as caught:
            TAKES_A_RECIPE[name](given)
        assert way in str(caught.value)


@pytest.mark.parametrize("library", ["nsl", "cleverhans3", "cleverhans_tf2", "cleverhans_torch"])
def test_the_calls_that_are_named_are_there(library: str) -> None:
    with pytest.raises(TypeError) as caught:
        attack(called, X, Y, recipe=library)  # type: ignore[arg-type]
    call = str(caught.value).split("give ")[1].replace("torchfgsm.", "").replace("...", "0.1")
    assert isinstance(eval(call, {"Recipe": Recipe}), Recipe)


@pytest.mark.parametrize("train", [adversarial_loss, adversarial_step])
def test_a_number_is_no_weighting(train: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=r"got float: give torchfgsm\.Weighting\.from_nsl"):
        train(called, X, Y, recipe=RECIPE, weighting=0.2)


ARRAYS: dict[str, tuple[Callable[[], Any], str]] = {
    "fgsm": (lambda: fgsm(called, X_ARRAY, Y, eps=0.1), "torch.as_tensor(x)"),
    "pgd": (lambda: pgd(called, X_ARRAY, Y, eps=0.1), "torch.as_tensor(x)"),
    "whole numbers": (lambda: fgsm(called, X_ARRAY.astype(int), Y, eps=0.1), "torch.as_tensor(x)"),
    "labels": (lambda: fgsm(called, X, Y_ARRAY, eps=0.1), "torch.as_tensor(y)"),
    "a list of numbers": (lambda: fgsm(called, X.tolist(), Y, eps=0.1), "torch.as_tensor(x)"),
    "a feature": (
        lambda: fgsm(called, {"a": X, "b": X_ARRAY}, Y, eps=0.1), "torch.as_tensor(x['b'])"),
    "one of a list": (lambda: fgsm(called, [X, X_ARRAY], Y, eps=0.1), "torch.as_tensor(x[1])"),
    "perturb": (lambda: perturb(X_ARRAY, X, eps=0.1), "torch.as_tensor(x)"),
    "gradient": (lambda: perturb(X, X_ARRAY, eps=0.1), "torch.as_tensor"),
    "training": (
        lambda: adversarial_loss(called, X_ARRAY, Y, recipe=RECIPE, weighting=WEIGHTING),
        "torch.as_tensor(x)"),
    "evaluate": (
        lambda: evaluate(called, [(X_ARRAY, Y_ARRAY)], recipe=RECIPE), "torch.as_tensor(batch[0])"),
    "evaluate a dict": (
        lambda: evaluate(called, [{"x": X_ARRAY, "label": Y}], recipe=RECIPE),
        "torch.as_tensor(batch['x'])"),
    "tf2": (lambda: tf2.fast_gradient_method(called, X_ARRAY, 0.1, np.inf), "torch.as_tensor(x)"),
    "tf2, labels": (
        lambda: tf2.projected_gradient_descent(called, X, 0.1, 0.1, 2, np.inf, y=Y_ARRAY),
        "torch.as_tensor(y)"),
    "torch port": (
        lambda: torch_port.projected_gradient_descent(called, X_ARRAY, 0.1, 0.1, 2, np.inf),
        "torch.as_tensor(x)"),
    "torch port, no step": (
        lambda: torch_port.fast_gradient_method(called, X_ARRAY, 0, np.inf), "torch.as_tensor(x)"),
    "v3": (lambda: FastGradientMethod(mlp()).generate(X_ARRAY), "torch.as_tensor(x)"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARRAYS)
def test_numpy_arrays_are_refused_before_the_model_is_called(name: str) -> None:
    call, way = ARRAYS[name]
    with pytest.raises(TypeError) as caught:
        call()
    assert way in str(caught.value)


def test_arrays_that_are_not_perturbed_reach_the_model_as_they_are() -> None:
    seen, words, places = [], np.array(["a"] * 6), np.arange(6)
    network = mlp().eval()

    def model(x: dict[str, Any]) -> Any:
        seen.append((x["words"], x["places"]))
        return network(x["x"])

    found = fgsm(model, {"x": X, "words": words, "places": places}, Y, eps=0.1)
    assert seen[0][0] is words
    assert seen[0][1] is places
    assert torch.equal(found["x"], fgsm(network, X, Y, eps=0.1))


def test_batches_of_evaluate_may_be_tuples_and_lists() -> None:
    pair, listed = (evaluate(mlp(), [b], recipe=RECIPE) for b in ((X, Y), [X, Y]))
    assert pair == listed
    for loader, says in (([(X, Y, Y)], "for x, y, *_ in loader"), ((X, Y), "is [(x, y)]")):
        with pytest.raises(TypeError) as caught:
            evaluate(mlp(), loader, recipe=RECIPE)
        assert says in str(caught.value)


def regularized(model: nn.Module | None = None) -> AdversarialRegularization:
    config = AdvRegConfig(adv_neighbor_config=AdvNeighborConfig(adv_step_size=0.1))
    loss = SparseCategoricalCrossentropy(from_logits=True)
    return AdversarialRegularization(model or mlp(), adv_config=config, loss=loss)


def test_a_batch_of_nsl_may_hold_arrays_as_in_keras_but_is_a_dict() -> None:
    model = regularized()
    tensors, arrays = {"x": X, "label": Y}, {"x": X_ARRAY, "label": Y_ARRAY}
    assert torch.equal(model(arrays).loss, model(tensors).loss)
    assert torch.equal(model.perturb_on_batch(arrays)["x"], model.perturb_on_batch(tensors)["x"])
    for call in (model, model.perturb_on_batch):
        wrong: list[Any] = [(X, Y), X, [X, Y]]
        for given in wrong:
            with pytest.raises(TypeError, match="dict of features and labels"):
                call(given)


def test_methods_of_keras_name_what_does_their_work() -> None:
    model = regularized()
    for name, says in (
        ("fit", "model(batch).loss.backward()"),
        ("train_on_batch", "optimizer.step()"),
        ("evaluate", "torchfgsm.evaluate(model.base_model, loader"),
        ("predict", "model.base_model(x)"),
        ("save_weights", "state_dict()"),
    ):
        with pytest.raises(AttributeError) as caught:
            getattr(model, name)
        assert says in str(caught.value)
        assert not hasattr(model, name)
    with pytest.raises(AttributeError, match="no attribute 'fits'"):
        _ = model.fits
    for arguments, keywords in ((("adam",), {}), ((), {"optimizer": "adam", "loss": "mse"})):
        with pytest.raises(TypeError, match="give loss= and loss_weights= where the model is made"):
            model.compile(*arguments, **keywords)


def test_the_loop_that_fit_names_trains() -> None:
    model, loader = regularized(), [{"x": X, "label": Y}] * 20
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    before = float(model(loader[0]).loss.detach())
    for data in loader:
        optimizer.zero_grad()
        model(data).loss.backward()
        optimizer.step()
    assert float(model(loader[0]).loss.detach()) < before


@pytest.mark.skipif(
    torch.__version__ < "2.10", reason="torch before 2.10 fails itself where a with block is left"
)
def test_compile_is_that_of_torch() -> None:
    model, expected = regularized(), regularized()
    model.load_state_dict(expected.state_dict())
    model.compile(backend="eager")
    found = model({"x": X, "label": Y}).loss
    torch.testing.assert_close(found, expected({"x": X, "label": Y}).loss)
