"""Robust evaluation: closed forms on linear models, every form of labels, processes with shards."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from processes import environment
from torch import Tensor, distributed, nn
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, TensorDataset
from toy_models import Counting, TwoInputs, batch, mlp, noisy, one_hot

from torchfgsm import Recipe, RobustReport, attack, evaluate
from torchfgsm.evaluation.evaluating import at_length
from torchfgsm.evaluation.report import ClassScore, CurvePoint
from torchfgsm.system.progress import Bar

WEIGHT = torch.tensor([0.5, -2.0, 1.0, 0.25], dtype=torch.float64)
FGSM = Recipe(step=0.1)


class Score(nn.Module):
    """A linear binary model: its logit is x @ WEIGHT."""

    def __init__(self, shape: tuple[int, ...] = (-1,)) -> None:
        super().__init__()
        self.weight = nn.Parameter(WEIGHT.clone())
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.weight).reshape(self.shape)


def examples(count: int = 200) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    return x, torch.randint(2, (count,), generator=generator)


def loader(x: Tensor, y: Tensor, size: int = 64) -> DataLoader[Any]:
    return DataLoader(TensorDataset(x, y), size)


def margins(x: Tensor, y: Tensor) -> Tensor:
    """How far the logit lies on the right side of 0."""
    return (2 * y - 1) * (x @ WEIGHT)


def part(found: Tensor) -> float:
    return float(found.double().mean())


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
@pytest.mark.parametrize(("norm", "dual"), [("linf", 1.0), ("l2", 2.0), ("l1", torch.inf)])
def test_a_step_takes_its_length_times_the_dual_norm_of_the_weights_from_each_margin(
    norm: Any, dual: float, shape: tuple[int, ...]
) -> None:
    x, y = examples()
    lengths = [0.0, 0.02, 0.1, 0.5]
    report = evaluate(
        Score(shape), loader(x, y), recipe=Recipe(norm=norm, step=0.3), epsilons=lengths
    )
    margin, loss_of = margins(x, y), torch.linalg.vector_norm(WEIGHT, dual)
    assert report.examples == report.labels == 200
    assert report.clean_accuracy == part(margin > 0)
    assert report.clean_loss == pytest.approx(float(F.softplus(-margin).mean()), rel=1e-12)
    attacked = margin - 0.3 * loss_of
    assert report.adversarial_accuracy == part(attacked > 0)
    assert report.adversarial_loss == pytest.approx(float(F.softplus(-attacked).mean()), rel=1e-12)
    for row in report.classes:
        mine = y == row.label
        assert row.count == int(mine.sum())
        assert row.clean_accuracy == part(margin[mine] > 0)
        assert row.adversarial_accuracy == part(attacked[mine] > 0)
    assert [p.epsilon for p in report.curve] == lengths
    for point in report.curve:
        attacked = margin - point.epsilon * loss_of
        assert point.accuracy == part(attacked > 0)
        assert point.loss == pytest.approx(float(F.softplus(-attacked).mean()), rel=1e-12)
    assert len({p.accuracy for p in report.curve}) == 4


@pytest.mark.parametrize("steps", [3, 6])
def test_the_curve_of_iterated_steps_scales_ball_and_step(steps: int) -> None:
    """Three steps of a quarter of the radius reach three quarters of it, six the ball's edge."""
    x, y = examples()
    recipe = Recipe(step=0.1, iterations=steps, epsilon=0.4)
    report = evaluate(Score(), loader(x, y), recipe=recipe, epsilons=[0.05, 0.2])
    reach = min(steps / 4, 1.0) * float(WEIGHT.abs().sum())
    for point in report.curve:
        assert point.accuracy == part(margins(x, y) - point.epsilon * reach > 0)
    assert report.adversarial_accuracy == part(margins(x, y) - 0.4 * reach > 0)


def test_lengths_of_a_recipe() -> None:
    ball = Recipe(step=0.1, iterations=4, epsilon=0.4, random_start="uniform", random_radius=0.2)
    scaled = at_length(ball, 0.8)
    assert (scaled.step, scaled.epsilon, scaled.random_radius) == (0.2, 0.8, 0.4)
    assert at_length(FGSM, 0.3) == Recipe(step=0.3)
    with pytest.raises(ValueError, match="4 steps without a ball"):
        at_length(Recipe(step=0.1, iterations=4), 0.3)
    with pytest.raises(ValueError, match="must be above 0: got step 0"):
        at_length(Recipe(step=0), 0.3)
    with pytest.raises(ValueError, match="finite and at least 0"):
        at_length(FGSM, float("nan"))


def test_classes_of_logits_and_their_labels_in_every_form() -> None:
    x, y = batch(size=50)
    model = mlp()
    expected = evaluate(model, loader(x, y, 16), recipe=FGSM)
    adversarial = attack(model, x, y, recipe=FGSM)
    assert expected.adversarial_accuracy == part(model(adversarial).argmax(1) == y)
    assert expected.adversarial_loss == pytest.approx(
        F.cross_entropy(model(adversarial), y).item(), rel=1e-12
    )
    rows = evaluate(model, loader(x, one_hot(y), 7), recipe=FGSM)
    assert rows.classes == expected.classes
    scalar = evaluate(model, loader(x, y, 16), recipe=FGSM, loss_fn=nn.CrossEntropyLoss())
    assert scalar.clean_loss == pytest.approx(expected.clean_loss, rel=1e-12)


def test_every_position_of_a_dense_output_counts_but_the_ignored() -> None:
    model = nn.Conv2d(2, 3, 1).double()
    x = torch.rand(5, 2, 4, 4, dtype=torch.float64)
    y = torch.randint(3, (5, 4, 4))
    y[0, :2] = 255
    loss = nn.CrossEntropyLoss(ignore_index=255, reduction="none")
    report = evaluate(model, loader(x, y, 2), recipe=FGSM, loss_fn=loss, ignore_index=255)
    right = model(x).argmax(1) == y
    assert (report.examples, report.labels) == (5, 5 * 16 - 8)
    assert report.clean_accuracy == int(right.sum()) / 72
    assert [row.count for row in report.classes] == torch.bincount(y[y < 255]).tolist()
    with pytest.raises(ValueError, match=r"labels run from \d to 255, the model has 3 classes"):
        evaluate(model, loader(x, y, 5), recipe=FGSM, loss_fn=loss)


def test_dicts_of_features_and_an_attack_on_the_own_prediction() -> None:
    x, y = batch(size=8)
    rows = {"a": x[:, :2], "b": x[:, 2:], "kind": torch.zeros(8, dtype=torch.int64), "class": y}
    data = [{name: value[i : i + 3] for name, value in rows.items()} for i in range(0, 8, 3)]
    model = TwoInputs()
    report = evaluate(model, data, recipe=FGSM, label_key="class", pass_y=False)
    features = {name: value for name, value in rows.items() if name != "class"}
    moved = attack(model, features, recipe=FGSM)
    assert report.adversarial_accuracy == part(model(moved).argmax(1) == y)
    with pytest.raises(ValueError, match="'label', found the keys"):
        evaluate(model, data, recipe=FGSM)


def test_targets() -> None:
    x, y = batch(size=20)
    recipe = Recipe(step=0.3, targeted=True)
    report = evaluate(mlp(), loader(x, y), recipe=recipe, target=lambda y: (y + 1) % 3)
    moved = attack(mlp(), x, (y + 1) % 3, recipe=recipe)
    assert report.adversarial_accuracy == part(mlp()(moved).argmax(1) == y)
    with pytest.raises(ValueError, match="needs target="):
        evaluate(mlp(), loader(x, y), recipe=recipe)
    with pytest.raises(ValueError, match="targeted=False"):
        evaluate(mlp(), loader(x, y), recipe=FGSM, target=lambda y: y)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_model_is_evaluated_in_eval_mode_and_left_as_it_was(mode: Any) -> None:
    x, y = batch(torch.float32)
    network = noisy()
    model = Counting(network).train()
    network[4].eval()
    modes = [m.training for m in model.modules()]
    before = {name: t.clone() for name, t in model.state_dict().items()}
    with mode():
        data = [(x + 0, y + 0)]  # inference tensors in inference mode
        report = evaluate(model, data, recipe=Recipe.cleverhans_torch(eps=0.1, norm=2))
    assert model.calls == [False] * len(model.calls)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    calm = noisy().eval()
    assert report.clean_accuracy == part(calm(x).argmax(1) == y)
    with pytest.raises(ZeroDivisionError):
        evaluate(model, (1 / 0 for _ in data), recipe=FGSM)
    assert [m.training for m in model.modules()] == modes


def test_refusals() -> None:
    x, y = batch()
    with pytest.raises(ValueError, match="no examples"):
        evaluate(mlp(), [], recipe=FGSM)
    with pytest.raises(TypeError, match="got tuple of 3"):
        evaluate(mlp(), [(x, y, y)], recipe=FGSM)
    with pytest.raises(TypeError, match=r"no \['epsilon'\]"):
        evaluate(mlp(), [(x, y)], recipe=FGSM, epsilon=0.1)
    with pytest.raises(ValueError, match=r"integer labels of shape \(6,\)"):
        evaluate(mlp(), [(x, y[:, None])], recipe=FGSM)
    with pytest.raises(TypeError, match="tuple, not a tensor"):
        evaluate(lambda x: (x, x), [(x, y)], recipe=FGSM)


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    x, y = batch()
    states: list[tuple[int, int | None]] = []
    evaluate(mlp(), loader(x, y, 2), recipe=FGSM, progress=lambda *s: states.append(s))
    assert states == [(1, 3), (2, 3), (3, 3)]

    def endless() -> Iterator[Any]:
        yield x, y

    evaluate(mlp(), endless(), recipe=FGSM, progress=True)
    evaluate(mlp(), loader(x, y, 2), recipe=FGSM, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert first.startswith("evaluating  1 batches")
    assert "[########################] 100%  3/3 batches" in second


def test_a_bar_on_a_terminal_stays_in_its_line() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with Bar("attacking", "rows", stream) as bar:
        bar._pause = 0.0
        bar(0, 10)
        bar(5, 10)
        bar(10, 10)
    shown = stream.getvalue()
    assert shown.count("\n") == 1
    assert shown.endswith("\n")
    assert " 50%  5/10 rows" in shown
    assert shown.rsplit("\r", 1)[1].startswith("attacking  [########################] 100%")


def test_the_report_as_text_and_json() -> None:
    classes = (ClassScore(0, 3, 1.0, 1 / 3), ClassScore(1, 0, None, None))
    curve = (CurvePoint(0.1, 1 / 3, 2.0),)
    report = RobustReport(FGSM, 3, 3, 1.0, 1 / 3, 0.25, 2.0, classes, curve)
    found = json.loads(json.dumps(report.to_dict()))
    assert Recipe(**found["recipe"]) == FGSM
    assert found["classes"][1] == {
        "label": 1, "count": 0, "clean_accuracy": None, "adversarial_accuracy": None
    }  # fmt: skip
    assert found["curve"] == [{"epsilon": 0.1, "accuracy": 1 / 3, "loss": 2.0}]
    rows = [line.split() for line in report.to_text().splitlines()]
    assert ["adversarial", "33.33%", "2"] in rows
    assert ["1", "0", "-", "-"] in rows


WORKER = """
import sys
from test_evaluation import in_shards
in_shards(sys.argv[1], int(sys.argv[2]))
"""


def in_shards(folder: str, rank: int) -> None:
    """Writes the reports of one of two processes, each of which has a shard, and ends it."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2,
        timeout=timedelta(seconds=60),
    )  # fmt: skip
    torch.save(reports(rank), f"{folder}/found {rank}")
    distributed.barrier()
    os._exit(0)  # gloo's threads can abort a process that ends in the usual way


def reports(rank: int) -> list[dict[str, Any]]:
    found = []
    for count, size in ((11, 2), (11, 4), (1, 4)):  # 11 and 1 are odd: an example is repeated
        x, y = batch(torch.float32, size=count)
        data = TensorDataset(x, y)
        sampler: DistributedSampler[Any] = DistributedSampler(data, shuffle=count > 1)
        model = noisy()
        parallel = nn.parallel.DistributedDataParallel(model)
        statistics = model.get_buffer("1.running_mean")
        statistics.add_(rank)  # those of process 0 are the model's
        loader = DataLoader(data, size, sampler=sampler)
        found.append(evaluate(parallel, loader, recipe=FGSM, epsilons=[0.3]).to_dict())
    return found


def test_two_processes_report_the_whole_set_without_repetitions(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", WORKER, str(tmp_path)]
    both = [
        subprocess.Popen([*command, str(rank)], env=environment(), stderr=subprocess.PIPE)
        for rank in (0, 1)
    ]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    first, second = (torch.load(tmp_path / f"found {rank}") for rank in (0, 1))
    assert first == second
    for found, count in zip(first, (11, 11, 1), strict=True):
        x, y = batch(torch.float32, size=count)
        alone = evaluate(noisy(), loader(x, y), recipe=FGSM, epsilons=[0.3]).to_dict()
        assert found["examples"] == count
        assert found["classes"] == alone["classes"]
        for name in ("clean_loss", "adversarial_loss", "clean_accuracy", "adversarial_accuracy"):
            assert found[name] == pytest.approx(alone[name], rel=1e-6), name
        assert found["curve"][0] == pytest.approx(alone["curve"][0], rel=1e-6)


def test_repetitions_that_cannot_be_told_are_refused() -> None:
    class Own(BatchSampler):
        pass

    x, y = batch(size=5)
    data = TensorDataset(x, y)
    sampler: DistributedSampler[Any] = DistributedSampler(data, num_replicas=2, rank=1)
    loaders = [
        DataLoader(data, batch_sampler=Own(sampler, 2, False)),
        DataLoader(data, 2, sampler=sampler, num_workers=2, in_order=False),
    ]
    for refused in loaders:
        with pytest.raises(ValueError, match="repeats 1 of 5 examples, and the loader does not"):
            evaluate(mlp(), refused, recipe=FGSM)
    plain = DataLoader(data, batch_sampler=BatchSampler(sampler, 2, False))
    assert evaluate(mlp(), plain, recipe=FGSM).examples == 2
