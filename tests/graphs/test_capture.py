"""Captured attacks, with a graph that runs again on the CPU in place of a replay."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy_models import NeverCalled, TwoInputs, batch, mlp, noisy

from torchfgsm import Recipe, attack
from torchfgsm.graphs.captured_attack import CapturedAttack, capture
from torchfgsm.graphs.cuda_graph import CudaGraph

FGSM = Recipe(step=0.1)
PGD = Recipe(step=0.05, iterations=3, epsilon=0.1, clip_min=0.0, clip_max=1.0)
RECIPES = {
    "fgsm": FGSM,
    "l2, clipped": Recipe(step=0.3, norm="l2", clip_max=0.8),
    "l1": Recipe(step=0.3, norm="l1"),
    "pgd": PGD,
    "pgd l2": replace(PGD, norm="l2"),
    "pgd l1": replace(PGD, norm="l1"),
    "random start": replace(PGD, random_start="uniform"),
    "random l1 start": replace(PGD, norm="l1", random_start="biased_l1"),
    "nsl": Recipe.nsl(adv_step_size=0.1),
    "cleverhans3": Recipe.cleverhans3(eps=0.1, ord=2, clip_min=0.0, clip_max=1.0),
}


class RunsAgain(CudaGraph):
    """Runs the function again in place of a replay, into the same memory."""

    device_type = "cpu"
    made: list[RunsAgain]

    def __init__(self, device: torch.device) -> None:
        self.replays = 0
        self.made.append(self)

    @staticmethod
    def why_not(device: torch.device) -> str | None:
        return None

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        yield

    def record(self, run: Any, generator: torch.Generator | None) -> Any:
        self.run = run
        self.results = run()
        return self.results

    def replay(self) -> None:
        self.replays += 1
        for old, new in zip(tensors_of(self.results), tensors_of(self.run()), strict=True):
            old.copy_(new)


def tensors_of(x: Any) -> list[Tensor]:
    if isinstance(x, Tensor):
        return [x]
    return list(x.values()) if isinstance(x, dict) else list(x)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[RunsAgain]:
    monkeypatch.setattr(RunsAgain, "made", [], raising=False)
    return RunsAgain.made


def captured(model: Any, recipe: Recipe = FGSM, **given: Any) -> CapturedAttack:
    loss_fn = given.pop("loss_fn", None)
    return CapturedAttack(model, recipe, loss_fn, given, backend=RunsAgain)


@pytest.mark.parametrize("labels", ["given", "predicted"])
@pytest.mark.parametrize("name", RECIPES)
def test_replays_equal_attack(graphs: list[RunsAgain], name: str, labels: str) -> None:
    model, recipe = mlp(), replace(RECIPES[name], labels="predicted")
    run = captured(model.eval(), recipe)
    for seed in range(3):
        x, y = batch(seed=seed)
        y_or_none = y if labels == "given" else None
        torch.manual_seed(seed)
        expected = attack(model, x, y_or_none, recipe=recipe)
        torch.manual_seed(seed)
        assert torch.equal(run(x, y_or_none), expected)
    assert [graph.replays for graph in graphs] == [3]


def test_each_call_draws_a_new_random_start(graphs: list[RunsAgain]) -> None:
    (x, y), run = batch(), captured(mlp(), RECIPES["random start"])
    assert not torch.equal(run(x, y), run(x, y))


def test_a_dict_of_features_with_integers(graphs: list[RunsAgain]) -> None:
    model, (x, y) = TwoInputs(), batch()
    inputs = {"a": x[:, :2], "b": x[:, 2:], "kind": torch.arange(6)}
    run = captured(model)
    for moved in (0, 1):
        inputs = {**inputs, "kind": inputs["kind"] + moved}
        found, expected = run(inputs, y), attack(model, inputs, y, recipe=FGSM)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)
    assert len(graphs) == 1


def test_a_list_of_features(graphs: list[RunsAgain]) -> None:
    inner, (x, y) = mlp(), batch()

    def model(a: Tensor, b: Tensor) -> Tensor:
        output: Tensor = inner(torch.cat([a, b], 1))
        return output

    found = captured(model)([x[:, :1], x[:, 1:]], y)
    assert torch.equal(torch.cat(found, 1), attack(inner, x, y, recipe=FGSM))


def test_labels_of_any_structure_reach_the_loss(graphs: list[RunsAgain]) -> None:
    model, (x, y) = mlp(), batch()

    def loss_fn(output: Tensor, target: tuple[Tensor, float]) -> Tensor:
        return nn.functional.cross_entropy(output, target[0], reduction="none") * target[1]

    run = captured(model, Recipe(step=0.1, norm="l2", guard=1.0), loss_fn=loss_fn)
    for weight in (1.0, 2.0):
        expected = attack(model, x, (y, weight), recipe=run._recipe, loss_fn=loss_fn)
        assert torch.equal(run(x, (y, weight)), expected)
    assert len(graphs) == 2  # a number is a part of the graph


def test_results_share_no_memory(graphs: list[RunsAgain]) -> None:
    model, (x, y), (x2, _) = mlp(), batch(), batch(seed=3)
    run = captured(model)
    first = run(x, y)
    kept = first.clone()
    second = run(x2, y)
    assert torch.equal(first, kept)
    pointers = {t.data_ptr() for t in (x, x2, first, second, *tensors_of(graphs[0].results))}
    assert len(pointers) == 5


def test_the_input_is_left_alone(graphs: list[RunsAgain]) -> None:
    (x, y), run = batch(), captured(mlp())
    kept, version = x.clone(), x._version
    x.requires_grad_()
    assert not run(x, y).requires_grad
    assert torch.equal(x, kept)
    assert (x._version, x.grad) == (version, None)


def test_inference_mode_changes_nothing(graphs: list[RunsAgain]) -> None:
    (x, y), run = batch(), captured(mlp())
    with torch.inference_mode():
        run.prepare(x, y)
        inside = run(x * 1, y)
    assert not inside.is_inference()
    assert torch.equal(inside, run(x, y))


def test_values_are_not_looked_at(graphs: list[RunsAgain]) -> None:
    (x, y), run = batch(), captured(mlp())
    x[0] = torch.nan
    assert torch.equal(run(x, y)[1:], attack(mlp(), x[1:], y[1:], recipe=FGSM))


@pytest.mark.parametrize(
    "change",
    [
        lambda x, y: (x[:4], y[:4]),
        lambda x, y: (x.t().contiguous().t(), y),
        lambda x, y: (x, None),
        lambda x, y: (x, y.int()),
    ],
    ids=["shape", "stride", "no labels", "dtype of labels"],
)
def test_input_of_a_new_kind_is_captured_once(graphs: list[RunsAgain], change: Any) -> None:
    model, (x, y) = mlp(), batch()
    run = captured(model)
    run(x, y)
    for _ in range(2):
        changed_x, changed_y = change(x, y)
        expected = attack(model, changed_x, changed_y, recipe=FGSM)
        found = run(changed_x, changed_y)
        assert torch.equal(found, expected)
        assert found.stride() == expected.stride()
    run(x, y)
    assert [graph.replays for graph in graphs] == [2, 2]


def test_a_cast_model_is_captured_again(graphs: list[RunsAgain]) -> None:
    model, (x, y) = mlp(), batch()
    run = captured(model)
    run(x, y)
    model.float()
    assert torch.equal(run(x.float(), y), attack(model, x.float(), y, recipe=FGSM))
    with pytest.raises(ValueError, match="cast one of them"):
        run(x, y)


class CastsItself(nn.Module):
    """A model that runs in bfloat16 whatever its caller does, and caches its cast weights."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp(torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            output: Tensor = self.inner(x)
        return output.float()


@pytest.mark.parametrize("kind", [CastsItself, lambda: mlp(torch.float32)])
def test_cast_weights_are_no_part_of_a_graph(graphs: list[RunsAgain], kind: Any) -> None:
    model, (x, y) = kind(), batch(torch.float32)
    run, recipe = captured(model, Recipe(step=0.1, norm="l2")), Recipe(step=0.1, norm="l2")

    def expected() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            found: Tensor = attack(model, x, y, recipe=recipe)
        return found

    first = expected()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(run(x, y), first)
        if not isinstance(model, CastsItself):
            model(x)  # leaves cast weights in the caller's cache
        with torch.no_grad():
            next(model.parameters()).mul_(-1)
        second = run(x, y)
    assert torch.equal(second, expected())
    assert not torch.equal(second, first)


def test_autocast_is_a_kind_of_its_own(graphs: list[RunsAgain]) -> None:
    (x, y), run = batch(torch.float32), captured(mlp(torch.float32), Recipe(step=0.1, norm="l2"))
    plain = run(x, y)
    with torch.autocast("cpu", torch.bfloat16):
        assert not torch.equal(run(x, y), plain)
    assert torch.equal(run(x, y), plain)
    assert [graph.replays for graph in graphs] == [2, 1]


def test_four_graphs_are_kept_and_the_one_not_used_longest_goes(graphs: list[RunsAgain]) -> None:
    run = captured(mlp())
    for size in (1, 2, 3, 4, 1, 5, 1, 2):
        run(*batch(size=size))
    sizes = [tensors_of(graph.results)[0].shape[0] for graph in graphs]
    assert sizes == [1, 2, 3, 4, 5, 2]
    assert len(run._graphs) == 4


@pytest.mark.parametrize("what", ["parameter", "buffer", "module", "data"])
def test_what_is_replaced_in_the_model_is_captured_again(
    graphs: list[RunsAgain], what: str
) -> None:
    model: Any = noisy()
    x, y = batch(torch.float32)
    run, recipe = captured(model, Recipe(step=0.1, norm="l2")), Recipe(step=0.1, norm="l2")
    before = run(x, y)
    if what == "parameter":
        model[0].weight = nn.Parameter(-model[0].weight.detach())
    elif what == "buffer":
        model[1].running_var = torch.linspace(0.1, 9.0, 8)
    elif what == "module":
        model[5] = mlp(torch.float32, seed=5)[2]
    else:
        model[0].weight.data = -model[0].weight.data
    found = run(x, y)
    assert not torch.equal(found, before)
    assert torch.equal(found, attack(model, x, y, recipe=recipe))
    assert len(graphs) == 2
    assert len(run._graphs) == 1


def test_what_changes_in_place_is_not(graphs: list[RunsAgain]) -> None:
    model, (x, y) = noisy(), batch(torch.float32)
    run = captured(model)
    run(x, y)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    model.load_state_dict(noisy().state_dict())
    run(x, y)
    assert len(graphs) == 1


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "integers": (lambda m, x, y: captured(m)(x.long(), y), TypeError, "floating-point"),
    "labels": (lambda m, x, y: captured(m)(x, y[:2]), ValueError, "one label per example"),
    "no labels": (
        lambda m, x, y: captured(m, Recipe.nsl(adv_step_size=0.1))(x),
        ValueError,
        "y is missing",
    ),
    "dtype": (lambda m, x, y: captured(m)(x.double(), y), ValueError, "cast one of them"),
    "bounds": (
        lambda m, x, y: captured(m, clip_min=torch.zeros(3))(x, y),
        ValueError,
        "does not broadcast",
    ),
    "bounds elsewhere": (
        lambda m, x, y: captured(m, clip_min={"": torch.zeros(4, device="meta")})(x, y),
        ValueError,
        "clip_min is on meta and x on cpu; move one",
    ),
    "values": (
        lambda m, x, y: captured(m, Recipe(step=0.1, zero_gradient="refuse")),
        ValueError,
        "zero_gradient='stay'",
    ),
    "sparse": (
        lambda m, x, y: captured(m)({"a": x, "b": x.to_sparse()}, y),
        TypeError,
        r"got a torch\.sparse_coo tensor",
    ),
    "array": (lambda m, x, y: captured(m)(x, y.numpy()), TypeError, "got ndarray"),
    "training": (
        lambda m, x, y: captured(m, Recipe(step=0.1, model_mode="keep"))(x, y),
        ValueError,
        r"model\.eval\(\)",
    ),
    "cpu": (
        lambda m, x, y: capture(m, x, y, recipe=FGSM),
        ValueError,
        r"x is on cpu.*use torchfgsm\.attack",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_the_model_is_called(graphs: list[RunsAgain], name: str) -> None:
    call, error, match = REFUSED[name]
    x, y = batch(torch.float32)
    with pytest.raises(error, match=match):
        call(NeverCalled(), x, y)


@pytest.mark.parametrize("mode", ["keep", "keep_and_update"])
def test_training_mode_is_refused_also_after_the_capture(
    graphs: list[RunsAgain], mode: Any
) -> None:
    model, (x, y) = noisy().eval(), batch(torch.float32)
    recipe = Recipe(step=0.1, model_mode=mode)
    run = captured(model, recipe)
    assert torch.equal(run(x, y), attack(model, x, y, recipe=recipe))
    model[3].train()
    with pytest.raises(ValueError, match="training mode"):
        run(x, y)


def test_a_model_that_fails_is_tried_again(graphs: list[RunsAgain]) -> None:
    model, (x, y) = mlp(), batch()
    run = captured(model)
    model.append(nn.Linear(99, 1))
    with pytest.raises(RuntimeError, match="must have the same dtype"):
        run(x, y)
    model.pop(-1)
    assert torch.equal(run(x, y), attack(model, x, y, recipe=FGSM))
