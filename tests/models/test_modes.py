"""The mode that models run in during an attack, and what is put back after it."""

from __future__ import annotations

import functools
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from model_states import changes, state
from torch import Tensor, nn
from toy_models import batch, mlp, noisy

from torchfgsm import (
    Recipe,
    Weighting,
    adversarial_loss,
    adversarial_step,
    attack,
    evaluate,
    fgsm,
    nsl,
)
from torchfgsm.cleverhans import tf2
from torchfgsm.losses import SparseCategoricalCrossentropy
from torchfgsm.models import modes
from torchfgsm.models.modules import modules_of

EVAL = Recipe(step=0.1)
KEEP = Recipe(step=0.1, model_mode="keep")
GRAPH = "in eval mode, as in training"


class Net(nn.Module):
    """BatchNorm and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(self.norm(x))
        return output


class FunctionalNorm(Net):
    """Normalises with the batch's statistics whatever its mode."""

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        moved = F.batch_norm(x, norm.running_mean, norm.running_var, training=True)
        output: Tensor = self.head(moved)
        return output


class Counts(nn.Module):
    """Counts its passes and drops out in every one."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        output: Tensor = self.layer(F.dropout(x))
        return output


class FrozenState(nn.Module):
    """Statistics and a seed in parameters that do not require grad, as Keras has them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.mean = nn.Parameter(torch.zeros(4), requires_grad=False)
        self.seed = nn.Parameter(torch.zeros(2, dtype=torch.int32), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.mean.copy_(0.9 * self.mean + 0.1 * x.detach().float().mean(0))
            self.seed.add_(1)
        output: Tensor = self.layer(x)
        return output


def exported() -> nn.Module:
    example = (batch(torch.float32)[0],)
    return torch.export.export(Net().train(), example).module()


def traced() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: nn.Module = torch.jit.trace(  # type: ignore[no-untyped-call]
            Net().train(), batch(torch.float32)[0], check_trace=False
        )
    return found


@pytest.mark.parametrize("recipe", [EVAL, KEEP], ids=["eval", "keep"])
@pytest.mark.parametrize("build", [exported, traced, FunctionalNorm])
def test_a_graph_in_training_mode_is_left_as_it_was_and_told(
    build: Callable[[], nn.Module], recipe: Recipe
) -> None:
    model, (x, y) = build(), batch(torch.float32)
    before = state(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            attack(model, x, y, recipe=recipe)
    assert changes(before, state(model)) == []
    told = [w for w in caught if GRAPH in str(w.message)]
    assert len(told) == (recipe is EVAL)
    assert all("running_mean" in str(w.message) for w in told)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("recipe", [EVAL, KEEP], ids=["eval", "keep"])
@pytest.mark.parametrize("build", [Counts, FrozenState])
def test_buffers_seeds_and_random_states_are_put_back(
    build: type[nn.Module], recipe: Recipe, training: bool
) -> None:
    model, (x, y) = build().train(training), batch(torch.float32)
    before = state(model)
    attack(model, x, y, recipe=recipe)
    assert changes(before, state(model)) == []
    attack(model, x, y, recipe=Recipe(step=0.1, model_mode="keep_and_update"))
    assert changes(before, state(model)) != []


def test_a_function_that_draws_leaves_the_random_state() -> None:
    x, y = batch()
    before = torch.get_rng_state()
    fgsm(lambda z: F.dropout(z)[:, :3], x, y, eps=0.1)
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_draws_on_after_each_attack() -> None:
    """An attack that is scored with the very draw that it was made with knows the defence."""
    seen: list[Tensor] = []

    class Drawing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(torch.rand(1))
            return x[:, :3] * 1.0

    x, y = batch()
    evaluate(Drawing(), [(x, y), (x, y)], recipe=EVAL)
    assert len({float(value) for value in seen}) == len(seen) == 6


def test_statistics_of_keep_are_put_back_between_the_passes_of_training() -> None:
    model, (x, y) = FrozenState().train(), batch(torch.float32)
    recipe = Recipe(step=0.1, iterations=3, epsilon=0.3, model_mode="keep")
    adversarial_step(model, x, y, recipe=recipe, weighting=Weighting(1, 0.2))
    assert model.seed.tolist() == [2, 2]  # the clean and the adversarial pass


# Callables


class Holder:
    """An object that calls a module."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, x: Tensor) -> Tensor:
        output: Tensor = self.model(x)
        return output

    def logits(self, x: Tensor) -> Tensor:
        return self(x)


GLOBAL = noisy()


def with_default(model: nn.Module) -> Any:
    return lambda x, model=model: model(x)


CALLABLES: dict[str, Callable[[nn.Module], Any]] = {
    "closure": lambda model: lambda x: model(x),
    "closure in a closure": lambda model: lambda x: next(model(z) for z in (x,)),
    "default": with_default,
    "bound forward": lambda model: model.forward,
    "bound call": lambda model: model.__call__,
    "partial": lambda model: functools.partial(model),
    "partial of a function": lambda model: functools.partial(lambda m, x: m(x), model),
    "object": Holder,
    "bound method of an object": lambda model: Holder(model).logits,
    "object in an object": lambda model: Holder(Holder(model)),  # type: ignore[arg-type]
    "list": lambda model: lambda x, models=(model,): next(m(x) for m in models),
}


@pytest.mark.parametrize("name", CALLABLES)
def test_modules_of_callables_are_attacked_in_eval_mode_without_a_trace(name: str) -> None:
    model, (x, y) = noisy(), batch(torch.float32)
    expected = fgsm(model, x, y, eps=0.1)
    before = state(model)
    called = CALLABLES[name](model)
    assert torch.equal(fgsm(called, x, y, eps=0.1), expected)
    assert evaluate(called, [(x, y)], recipe=EVAL) == evaluate(model, [(x, y)], recipe=EVAL)
    assert changes(before, state(model)) == []


def test_modules_behind_a_global_name_are_found() -> None:
    assert modules_of(lambda x: GLOBAL(x)) == list(GLOBAL.modules())
    assert modules_of(lambda x: torch.sin(x)) == []


def test_a_module_is_listed_once_and_parents_first() -> None:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.Sequential(shared, nn.ReLU()))
    found = modules_of(model)
    assert found[0] is model
    assert sorted(map(id, found)) == sorted(map(id, model.modules()))


def test_a_module_that_cannot_be_found_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, (x, y) = noisy(), batch(torch.float32)

    class Weak:
        def __call__(self, x: Tensor) -> Tensor:
            output: Tensor = sys.modules["hidden"].model(x)
            return output

    monkeypatch.setitem(sys.modules, "hidden", types.SimpleNamespace(model=hidden))
    called = Weak()
    with pytest.warns(UserWarning, match="a callable .* has no mode.*Sequential in training mode"):
        fgsm(called, x, y, eps=0.1)
    fgsm(called, x, y, eps=0.1)  # told once: warnings are errors here
    fgsm(lambda z: z[:, :3] * 2, x, y, eps=0.1)  # nothing of it has a mode


# Modules with a mode of their own


class Merging(nn.Module):
    """Merges an update into its weight for eval mode, as low-rank adapters do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = noisy()
        self.scale = nn.Parameter(torch.tensor([0.1, 0.7, 1.3]))
        self.noisy_head, self.calls = True, [False]

    def train(self, mode: bool = True) -> Merging:
        super().train(mode)
        if mode is not self.noisy_head:
            self.scale.data += 0.3 if not mode else -0.3
        self.noisy_head = mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(self.noisy_head)
        output: Tensor = self.inner(x) * self.scale
        return output


def state_of(model: Merging) -> bool:
    return model.noisy_head


def test_a_module_that_overrides_train_is_put_in_eval_mode_by_it() -> None:
    model, (x, y) = Merging(), batch(torch.float32)
    model.inner[4].eval()
    before = state(model)
    fgsm(model, x, y, eps=0.1)
    assert not model.calls[-1]
    assert model.noisy_head
    assert changes(before, state(model)) == []
    model.eval()
    before = state(model)
    fgsm(model, x, y, eps=0.1)
    assert not state_of(model)
    assert changes(before, state(model)) == []


def test_a_frozen_child_that_overrides_train_stays_frozen() -> None:
    child, (x, y) = Merging(), batch(torch.float32)

    class Parent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.child, self.mode = child, True

        def train(self, mode: bool = True) -> Parent:
            self.mode = mode
            super().train(mode)
            return self

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.child(x)
            return output

    parent = Parent()
    child.eval()
    fgsm(parent, x, y, eps=0.1)
    assert (parent.mode, parent.training) == (True, True)
    assert (child.noisy_head, child.training) == (False, False)


# TorchScript


def test_frozen_torchscript_is_attacked_as_the_module_before() -> None:
    model, (x, y) = mlp(torch.float32).eval(), batch(torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frozen = torch.jit.freeze(torch.jit.script(model))
    assert not hasattr(frozen, "training")
    for recipe in (EVAL, KEEP):
        found = attack(frozen, x, y, recipe=recipe)
        assert torch.equal(found, attack(model, x, y, recipe=recipe))
    assert evaluate(frozen, [(x, y)], recipe=EVAL) == evaluate(model, [(x, y)], recipe=EVAL)


def test_a_module_without_a_gradient_is_told_what_may_have_made_it() -> None:
    x, y = batch()
    with pytest.raises(ValueError, match=r"torch\.jit\.optimize_for_inference"):
        fgsm(lambda z: z.detach()[:, :3], x, y, eps=0.1)


# Parameters made in inference mode, second derivatives


def test_parameters_of_inference_mode_are_named_with_the_cure() -> None:
    with torch.inference_mode():
        model = mlp(torch.float32)
    x, y = batch(torch.float32)
    calls: list[Callable[[], Any]] = [
        lambda: fgsm(model, x, y, eps=0.1),
        lambda: evaluate(model, [(x, y)], recipe=EVAL),
        lambda: adversarial_step(model, x, y, recipe=EVAL, weighting=Weighting(1, 1)),
        lambda: tf2.fast_gradient_method(model, x, 0.1, 2),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"'0\.weight'.*inference_mode.*deepcopy"):
            call()


class Attention(nn.Module):
    """A head over one attention layer, in torch's fused form."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        found, _ = self.inner(x, x, x, need_weights=False)
        output: Tensor = self.head(found.mean(1))
        return output


def test_an_operation_without_second_derivative_is_refused_with_the_cure() -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    model, x, y = Attention(), torch.rand(4, 5, 4), torch.tensor([0, 1, 2, 0])
    second: dict[str, Any] = {"recipe": Recipe.cleverhans3(eps=0.5, ord=2)}
    second["weighting"] = Weighting.from_cleverhans(0.5)
    with pytest.raises(RuntimeError, match=r"sdpa_kernel\(SDPBackend.MATH\).*through_perturbation"):
        adversarial_loss(model, x, y, **second)
    with sdpa_kernel(SDPBackend.MATH):
        losses = adversarial_loss(model, x, y, **second)
        torch.autograd.backward(losses.loss)
    assert model.head.weight.grad is not None


# Recurrent layers


class Recurrent(nn.Module):
    """A head over one recurrent layer; remembers whether cuDNN was on."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        made: Any = kind
        self.layer, self.head = made(4, 8, batch_first=True), nn.Linear(8, 3)
        self.cudnn: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.cudnn.append(torch.backends.cudnn.enabled)
        output: Tensor = self.head(self.layer(x)[0][:, -1])
        return output


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_on_cuda_run_without_cudnn_in_eval_mode(
    kind: type[nn.RNNBase], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = torch.rand(6, 5, 4), torch.tensor([0, 1, 2, 0, 1, 2])

    def seen(recipe: Recipe, training: bool) -> list[bool]:
        model = Recurrent(kind).train(training)
        attack(model, x, y, recipe=recipe)
        return model.cudnn

    assert seen(EVAL, True) == [True]  # on the CPU nothing changes
    monkeypatch.setattr(modes, "_has_cuda", lambda: True)
    monkeypatch.setattr(modes, "_is_on_cuda", lambda module: True)
    assert seen(EVAL, True) == seen(EVAL, False) == seen(KEEP, False) == [False]
    assert seen(KEEP, True) == [True]
    assert torch.backends.cudnn.enabled


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_are_attacked_on_a_gpu(kind: type[nn.RNNBase]) -> None:
    model = Recurrent(kind).double()
    x, y = torch.rand(6, 5, 4).double(), torch.tensor([0, 1, 2, 0, 1, 2])
    expected = fgsm(model, x, y, eps=0.1, norm="l2")
    found = fgsm(model.cuda(), x.cuda(), y.cuda(), eps=0.1, norm="l2")
    torch.testing.assert_close(found.cpu(), expected)


# Keras 3 on the torch backend


def keras_like() -> nn.Module:
    """A class as Keras' are: a layer's module is keras', and layers are no children."""
    layer = type("Layer", (Net,), {"__module__": "keras.src.layers.layer"})
    model: nn.Module = type("Functional", (layer,), {"__module__": "keras.src.models.functional"})()
    dropout = type("Dropout", (), {})()
    model._flatten_layers = lambda: [dropout]  # type: ignore[assignment]
    return model


def test_a_keras_models_input_alone_can_be_cast() -> None:
    """Its layers cast what they get to their own dtype."""
    model, (x, y) = keras_like(), batch(torch.float32)
    with pytest.raises(ValueError, match=r"are torch.float32; cast it: x.to\(torch.float32\)$"):
        fgsm(model, x.double(), y, eps=0.1)


def test_a_keras_model_that_trains_as_in_inference_is_told_of_once() -> None:
    model, (x, y) = keras_like(), batch(torch.float32)
    arguments: dict[str, Any] = {"recipe": EVAL, "weighting": Weighting(1, 1)}
    with pytest.warns(UserWarning, match=r"Dropout as in inference.*training=self\.training"):
        adversarial_step(model, x, y, **arguments)
    adversarial_step(model, x, y, **arguments)
    adversarial_step(keras_like().eval(), x, y, **arguments)
    own = nsl.AdversarialRegularization(
        keras_like(), loss=SparseCategoricalCrossentropy(from_logits=True)
    )
    with pytest.warns(UserWarning, match="Keras takes the mode from the argument"):
        own({"feature": x, "label": y})
