"""No attack leaves a trace on the model, the random state or its input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from model_states import changes, state
from torch import Tensor, nn
from toy_models import TwoInputs, batch, mlp, noisy, one_hot

from torchfgsm import Recipe, attack, fgsm, nsl, perturb, pgd
from torchfgsm.cleverhans import tf2, v3
from torchfgsm.cleverhans import torch as cleverhans_torch
from torchfgsm.losses import SparseCategoricalCrossentropy

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]


def nsl_batch(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    keras = nsl.AdversarialRegularization(
        model, loss=SparseCategoricalCrossentropy(from_logits=True)
    )
    found: Tensor = keras.perturb_on_batch({"x": x, "label": y}, pgd_iterations=2)["x"]
    return found


def v3_attack(kind: type, **params: Any) -> Attack:
    def run(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        found: Tensor = kind(model).generate(x, y=one_hot(y, x.dtype), **params)
        return found

    return run


def with_recipe(**choices: Any) -> Attack:
    return lambda model, x, y: attack(model, x, y, recipe=Recipe(step=0.1, **choices))


ATTACKS: dict[str, Attack] = {
    "fgsm": lambda m, x, y: fgsm(m, x, y, eps=0.1),
    "fgsm eps 0": lambda m, x, y: fgsm(m, x, y, eps=0),
    "fgsm predicted": lambda m, x, y: fgsm(m, x, eps=0.1, norm="l2"),
    "fgsm clipped": lambda m, x, y: fgsm(m, x, y, eps=0.1, clip_min=0, clip_max=1),
    "pgd": lambda m, x, y: pgd(m, x, y, eps=0.1, random_start=False, norm="l1"),
    "pgd from elsewhere": lambda m, x, y: pgd(
        m, x, eps=0.1, generator=torch.Generator().manual_seed(0)
    ),
    "no iterations": with_recipe(iterations=0),
    "keep": with_recipe(model_mode="keep"),
    "keep, predicted, iterated": lambda m, x, y: attack(
        m, x, recipe=Recipe(step=0.1, iterations=3, epsilon=0.2, model_mode="keep")
    ),
    "perturb": lambda m, x, y: perturb(x, torch.ones_like(x), eps=0.1),
    "nsl": nsl_batch,
    "v3 FGM": v3_attack(v3.FastGradientMethod),
    "v3 FGM l2 clipped": v3_attack(v3.FastGradientMethod, ord=2, clip_min=0.0, clip_max=1.0),
    "v3 BIM": v3_attack(v3.BasicIterativeMethod, nb_iter=2),
    "v3 BIM 0": v3_attack(v3.BasicIterativeMethod, nb_iter=0),
    "v3 numpy": lambda m, x, y: torch.from_numpy(
        v3.FastGradientMethod(m).generate_np(x.numpy(), eps=0.0)
    ),
    "tf2 FGM": lambda m, x, y: tf2.fast_gradient_method(m, x, 0.1, 2),
    "tf2 PGD": lambda m, x, y: tf2.projected_gradient_descent(m, x, 0.1, 0.05, 2, math.inf),
    "torch FGM": lambda m, x, y: cleverhans_torch.fast_gradient_method(m, x, 0.1, math.inf),
    "torch FGM 0": lambda m, x, y: cleverhans_torch.fast_gradient_method(m, x, 0, 1),
    "torch PGD": lambda m, x, y: cleverhans_torch.projected_gradient_descent(
        m, x, 0.1, 0.05, 2, 2, rand_init=False
    ),
    "torch PGD 0": lambda m, x, y: cleverhans_torch.projected_gradient_descent(
        m, x, 0.1, 0.0, 2, 2
    ),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ATTACKS)
def test_attack_leaves_no_trace(name: str, training: bool) -> None:
    model, (x, y) = noisy(), batch(torch.float32)
    if not training:
        model.eval()
    parameters = dict(model.named_parameters())
    parameters["0.weight"].grad = torch.full_like(parameters["0.weight"], 7.0)
    parameters["5.bias"].requires_grad_(False)
    before, x_before, y_before = state(model), x.clone(), y.clone()
    version = x._version
    found = ATTACKS[name](model, x, y)
    assert changes(before, state(model)) == []
    assert torch.equal(x, x_before)
    assert x._version == version
    assert torch.equal(y, y_before)
    assert x.grad is None
    assert not x.requires_grad
    assert not found.requires_grad
    assert found.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()


def test_the_comparison_sees_what_a_training_pass_changes() -> None:
    model, (x, y) = noisy(), batch(torch.float32)
    before = state(model)
    nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
    model.eval()
    changed = changes(before, state(model))
    assert "rng" in changed
    assert "mode 3" in changed
    assert "mode 4" not in changed  # the frozen BatchNorm was in eval mode before
    assert "buffer 1.num_batches_tracked" in changed
    assert "buffer 4.running_mean" not in changed
    assert "grad 0.weight" in changed


@pytest.mark.parametrize("name", [n for n in ATTACKS if not n.startswith(("v3", "tf2"))])
def test_result_is_detached_also_from_an_input_that_requires_grad(name: str) -> None:
    model, (x, y) = noisy(), batch(torch.float32)
    x.requires_grad_()
    assert not ATTACKS[name](model, x, y).requires_grad
    assert x.grad is None


@pytest.mark.parametrize("keyword", ["eval", "keep", "keep_and_update"])
def test_model_mode_decides_what_the_model_sees(keyword: Any) -> None:
    model, (x, y) = noisy(), batch(torch.float32)
    seen: list[tuple[bool, bool]] = []
    model[3].register_forward_hook(lambda m, i, o: seen.append((m.training, model[4].training)))
    attack(model, x, y, recipe=Recipe(step=0.1, iterations=2, model_mode=keyword))
    assert seen == [(keyword != "eval", False)] * 2
    counter = dict(model.named_buffers())["1.num_batches_tracked"]
    assert int(counter) == (2 if keyword == "keep_and_update" else 0)


def test_modes_are_put_back_when_the_model_fails() -> None:
    for mode in ("eval", "keep"):
        model, (x, y) = noisy(), batch(torch.float32)
        model.append(nn.Linear(99, 1))  # does not fit
        before = state(model)
        with pytest.raises(RuntimeError):
            attack(model, x, y, recipe=Recipe(step=0.1, model_mode=mode))
        assert changes(before, state(model)) == []


def test_dropout_differs_between_iterations_but_the_state_is_put_back() -> None:
    model, (x, y) = nn.Sequential(nn.Dropout(0.5), mlp()), batch()
    outputs: list[Tensor] = []
    model[0].register_forward_hook(lambda m, i, o: outputs.append(o == 0))
    attack(model, x, y, recipe=Recipe(step=1e-9, iterations=2, model_mode="keep"))
    assert not torch.equal(outputs[0], outputs[1])
    torch.rand(1)
    attack(model, x, y, recipe=Recipe(step=1e-9, iterations=2, model_mode="keep"))
    assert not torch.equal(outputs[0], outputs[2])


def test_features_that_are_not_perturbed_are_copied_too() -> None:
    model, (x, y) = TwoInputs(), batch()
    inputs = {"a": x[:, :2].clone(), "b": x[:, 2:].clone(), "kind": torch.arange(6)}
    listed = [inputs["a"], inputs["b"], inputs["kind"]]

    def shared(found: Any) -> list[bool]:
        entries = found.values() if isinstance(found, dict) else found
        own = {tensor.data_ptr() for tensor in inputs.values()}
        return [tensor.data_ptr() in own for tensor in entries if isinstance(tensor, Tensor)]

    assert shared(fgsm(model, inputs, y, eps=0.1)) == [False] * 3
    assert (
        shared(fgsm(lambda a, b, k: model({"a": a, "b": b, "kind": k}), listed, y, eps=0))
        == [False] * 3
    )
    grads = {"a": inputs["a"] * 1, "b": inputs["b"] * 1}
    assert shared(perturb(inputs, grads, eps=0.1)) == [False] * 3
    keras = nsl.AdversarialRegularization(
        model, loss=SparseCategoricalCrossentropy(from_logits=True)
    )
    assert shared(keras.perturb_on_batch({**inputs, "label": y})) == [False] * 4
    with pytest.warns(UserWarning, match="nothing moves"):
        neighbor, _ = nsl.gen_adv_neighbor(inputs, torch.tensor(1.0), nsl.AdvNeighborConfig())
    assert shared(neighbor) == [False] * 3
