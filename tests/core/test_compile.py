"""Attacks under torch.compile(fullgraph=True), vmap and autocast equal the plain ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from model_states import changes, state
from torch import Tensor, fx, nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.testing import CompileCounterWithBackend
from toy_models import batch, mlp, noise, noisy, one_hot

from torchfgsm import Recipe, Weighting, attack, fgsm, perturb, pgd

pytestmark = pytest.mark.skipif(
    torch.__version__ < "2.9", reason="torch before 2.9 breaks the graph of an attack"
)

X, Y = batch(torch.float32)
EPS = torch.linspace(0.05, 0.2, len(X))
NORMS = ("linf", "l2", "l1")

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]
ATTACKS: dict[str, Attack] = {
    "linf": lambda m, x, y: fgsm(m, x, y, eps=0.1),
    "l2, predicted": lambda m, x, y: fgsm(m, x, eps=0.1, norm="l2"),
    "l1, targeted, clipped": lambda m, x, y: fgsm(
        m, x, y, eps=EPS, norm="l1", targeted=True, clip_min=0.25, clip_max=torch.full((4,), 0.7)
    ),
    "pgd, loss_fn": lambda m, x, y: pgd(
        m, x, y, eps=0.1, iterations=2, random_start=False, loss_fn=F.multi_margin_loss
    ),
    "nsl": lambda m, x, y: attack(m, x, y, recipe=Recipe.nsl(adv_step_size=0.1)),
    "cleverhans3": lambda m, x, y: attack(
        m, x, recipe=Recipe.cleverhans3(clip_min=0.0, clip_max=1.0, clip_grad=True)
    ),
    "cleverhans-tf2": lambda m, x, y: attack(
        m, x, recipe=Recipe.cleverhans_tf2(0.1, 2, 0.05, 2, clip_min=0.3, clip_max=0.7)
    ),
    "cleverhans-torch": lambda m, x, y: attack(m, x, recipe=Recipe.cleverhans_torch(0.1, 2)),
}
KEEP: Attack = lambda m, x, y: attack(m, x, y, recipe=Recipe(step=0.1, model_mode="keep"))  # noqa: E731


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch._dynamo.reset()


def compiled(function: Callable[..., Any], backend: Any = "aot_eager", **options: Any) -> Any:
    return torch.compile(function, backend=backend, **{"fullgraph": True, **options})


def model_of(name: str) -> nn.Module:
    """A model in training mode, or in eval mode where the recipe keeps the mode."""
    model = noisy()
    if name == "cleverhans-torch":
        model.eval()
    parameters = dict(model.named_parameters())
    parameters["0.weight"].grad = torch.full_like(parameters["0.weight"], 7.0)
    parameters["5.bias"].requires_grad_(False)
    return model


@pytest.mark.parametrize("name", ATTACKS)
def test_compiled_attack_equals_the_eager_one_and_leaves_no_trace(name: str) -> None:
    model = model_of(name)
    expected = ATTACKS[name](model, X, Y)
    before = state(model)
    counter = CompileCounterWithBackend("aot_eager")
    run = compiled(ATTACKS[name], counter)
    found = run(model, X, Y)
    assert torch.equal(found, expected)
    assert not torch.equal(found, X)
    assert changes(before, state(model)) == []
    assert not found.requires_grad
    assert found.untyped_storage().data_ptr() != X.untyped_storage().data_ptr()
    assert torch.equal(run(model, X, Y), expected)
    assert counter.frame_count == 1


def test_dynamo_alone_gives_the_eager_result() -> None:
    model = model_of("linf")
    before = state(model)
    found = compiled(ATTACKS["linf"], "eager")(model, X, Y)
    assert torch.equal(found, ATTACKS["linf"](model, X, Y))
    assert changes(before, state(model)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linf", "l2, predicted", "pgd, loss_fn"])
def test_inductor_gives_the_eager_result_to_float_tolerance(name: str) -> None:
    model = model_of(name)
    before = state(model)
    found = compiled(ATTACKS[name], "inductor")(model, X, Y)
    torch.testing.assert_close(found, ATTACKS[name](model, X, Y), rtol=1e-5, atol=1e-6)
    assert changes(before, state(model)) == []


@pytest.mark.parametrize("norm", NORMS)
def test_perturb_compiles(norm: str) -> None:
    grad = noise(*X.shape)
    grad[0, 0], grad[1] = torch.nan, 0.0

    def run(x: Tensor, grad: Tensor) -> Tensor:
        moved: Tensor = perturb(x, grad, eps=0.3, norm=norm, clip_min=0.1, mask=EPS[:4])
        return moved

    assert torch.equal(compiled(run)(X, grad), run(X, grad))


class Graphs:
    """A backend that keeps the graphs that autograd hands to a compiler."""

    def __init__(self) -> None:
        self.found: list[fx.GraphModule] = []
        self.backend = aot_autograd(fw_compiler=self.keep)

    def keep(self, graph: fx.GraphModule, inputs: Any) -> Any:
        self.found.append(graph)
        return graph.forward

    def calls(self, name: str) -> list[fx.Node]:
        nodes = [node for graph in self.found for node in graph.graph.nodes]
        return [node for node in nodes if str(node.target) == f"aten.{name}.default"]


def convolutional() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
        )


def test_no_gradient_of_a_weight_is_computed() -> None:
    model, graphs, x = convolutional(), Graphs(), noise(6, 1, 8, 8)
    compiled(lambda x, y: fgsm(model, x, y, eps=0.1), graphs.backend)(x, Y)
    (backward,) = graphs.calls("convolution_backward")
    assert backward.args[-1] == [True, False, False]  # of input, weight, bias
    assert len(graphs.calls("mm")) == 1  # the linear layer's input; its weight would be another


def training_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    x_adv = fgsm(model, x, y, eps=0.1)
    weighting = Weighting.from_nsl(0.2)
    return weighting.combine(F.cross_entropy(model(x), y), F.cross_entropy(model(x_adv), y))


def test_training_step_compiles() -> None:
    x, results = noise(6, 1, 8, 8), list[dict[str, Any]]()
    for step in (training_loss, compiled(training_loss)):
        model = convolutional()
        loss = step(model, x, Y)
        loss.backward()
        tensors = {n: p.grad for n, p in model.named_parameters()} | dict(model.named_buffers())
        results.append({"loss": loss, **tensors})
    eager, found = results
    assert [name for name in eager if not torch.equal(eager[name], found[name])] == []
    assert int(found["1.num_batches_tracked"]) == 2


def test_another_batch_size_compiles_once_more_and_no_further() -> None:
    model = mlp(torch.float32)
    counter = CompileCounterWithBackend("eager")
    run = compiled(ATTACKS["l2, predicted"], counter)
    for size in (6, 5, 4):
        assert torch.equal(run(model, X[:size], Y), fgsm(model, X[:size], eps=0.1, norm="l2"))
    assert counter.frame_count == 2


def test_inference_mode_around_it_does_not_matter() -> None:
    model = mlp(torch.float32)
    run = compiled(ATTACKS["linf"])
    with torch.inference_mode():
        found = run(model, X.clone(), Y.clone())
    assert torch.equal(found, fgsm(model, X, Y, eps=0.1))


@pytest.mark.slow
def test_kept_training_mode_leaves_the_graph_and_no_trace() -> None:
    model = noisy()
    before = state(model)
    expected = KEEP(model, X, Y)
    assert torch.equal(compiled(KEEP, "eager", fullgraph=False)(model, X, Y), expected)
    assert changes(before, state(model)) == []


def test_random_start_compiles_with_the_global_generator() -> None:
    model = mlp(torch.float32)
    run = compiled(lambda x, y: pgd(model, x, y, eps=0.1, step_size=1e-3, iterations=1), "eager")
    first, second = run(X, Y), run(X, Y)
    assert not torch.equal(first, second)
    for found in (first, second):
        assert 0.05 < float((found - X).abs().max()) <= 0.1 + 1e-6


@pytest.mark.skipif(
    torch.__version__ < "2.10", reason="torch before 2.10 fails itself where traced code raises"
)
def test_refusals_keep_their_message() -> None:
    run = compiled(ATTACKS["linf"], "eager", fullgraph=False)
    with pytest.raises(ValueError, match="one label per example"):
        run(mlp(torch.float32), X, Y[:3])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    "options", [{}, {"clip_grad": True, "clip_min": 0.3, "clip_max": 0.6}, {"mask": EPS[:4]}]
)
def test_vmap_of_perturb_equals_the_loop(norm: str, options: dict[str, Any]) -> None:
    def run(x: Tensor, grad: Tensor) -> Tensor:
        moved: Tensor = perturb(x, grad, eps=0.1, norm=norm, validate=False, **options)
        return moved

    xs, grads = torch.stack([X, X * 0.5]), noise(2, *X.shape)
    grads[0, 0], grads[1, 1, 1] = 0.0, torch.inf
    looped = torch.stack([run(x, grad) for x, grad in zip(xs, grads, strict=True)])
    assert torch.equal(torch.func.vmap(run)(xs, grads), looped)


@pytest.mark.parametrize("norm", NORMS)
def test_autocast_changes_the_gradient_alone(norm: str) -> None:
    model = mlp(torch.float32)
    x = X.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = fgsm(model, X, Y, eps=0.1, norm=norm)
        output = model(x)
        (grad,) = torch.autograd.grad(F.cross_entropy(output, Y, reduction="sum"), x)
    assert output.dtype == torch.bfloat16
    assert found.dtype == torch.float32
    assert torch.equal(found, perturb(X, grad, eps=0.1, norm=norm))
    assert not torch.equal(found, fgsm(model, X, Y, eps=0.1, norm=norm)) or norm != "l2"


def test_autocast_inside_of_a_compiled_function() -> None:
    def run(model: nn.Module, x: Tensor, y: Tensor) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return fgsm(model, x, y, eps=0.1, norm="l2")

    model, hot = mlp(torch.float32), one_hot(Y, torch.float32)
    assert torch.equal(compiled(run)(model, X, hot), run(model, X, hot))
