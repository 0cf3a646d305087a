"""The page about adversarial training: what it says is measured, and its code runs."""

from __future__ import annotations

import math
import re
from pathlib import Path
from statistics import median
from typing import Any, Literal

import pytest
import torch
from torch import nn

from benchmarks import plots
from benchmarks.training import robust_training
from benchmarks.training import rows as training_rows
from benchmarks.training.mapping import EPSILON, RATE, SAME
from benchmarks.training.optimizers import Library, Optimizer
from benchmarks.training.page import largest_gap
from benchmarks.training.parity import STEPS
from benchmarks.training.robustness import CASES, CLEVERHANS, LABELLED, NSL
from benchmarks.training.rows import Rows, of, values
from benchmarks.training.runs import Config
from torchfgsm import adversarial_step

FENCE = re.compile(r"```python\n(.*?)\n```", re.DOTALL)


@pytest.fixture(scope="module")
def rows() -> Rows:
    return training_rows.read(robust_training.CSV)


def test_the_page_is_that_of_the_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert robust_training.main(["--check"]) == 0, capsys.readouterr().err


def test_a_stale_page_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stale = tmp_path / "training.md"
    stale.write_text(robust_training.PAGE.read_text(encoding="utf-8").replace("SGD", "GD", 1))
    assert robust_training.main(["--check", "--page", str(stale)]) == 1
    assert "--from-csv" in capsys.readouterr().err


def test_the_plot_is_drawn_from_the_rows(rows: Rows, tmp_path: Path) -> None:
    plots.robustness(rows, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"


def test_defaults_differ_and_translations_do_not(rows: Rows) -> None:
    found = of(rows, part="robustness")
    assert len({row["seed"] for row in found}) >= 3
    assert set(CASES) == {row["case"] for row in found}
    for side in ("original", "port"):
        score = {
            case: median(
                values(found, case=case, side=side, precision="float32", measure="accuracy at 0.1")
            )
            for case in CASES
        }
        gap = score["CleverHans 3 at its defaults"] - score["NSL at its defaults"]
        assert gap > 0.1, score
    other, exact = training_rows.TRANSLATED
    assert largest_gap(exact, training_rows.TRANSLATED[exact], found, "float64") == 0
    # Under L2 CleverHans 3 has a second-order term of its own.
    assert largest_gap(other, training_rows.TRANSLATED[other], found, "float64") <= 0.05
    assert max(values(found, precision="float64", measure="weights")) <= 1e-9


def test_the_rate_is_scaled_for_sgd_and_not_for_adam(rows: Rows) -> None:
    found = of(rows, part="mapping")
    for name in ("sgd", "momentum"):
        assert max(values(found, optimizer=name, case=RATE)) <= 1e-12
        assert min(values(found, optimizer=name, case=SAME)) >= 0.05
    for coefficient in {row["measure"] for row in found}:
        scaled, same, epsilon = (
            median(values(found, optimizer="adam", case=case, measure=coefficient))
            for case in (RATE, SAME, EPSILON)
        )
        assert same < 0.2 * scaled
        assert epsilon < same


def test_the_port_was_the_original_in_float64(rows: Rows) -> None:
    found = of(rows, part="rounding", precision="float64", side="port")
    assert {row["steps"] for row in found} == set(map(str, STEPS))
    assert {row["library"] for row in found} == {"nsl", "cleverhans3"}
    assert max(values(found)) <= 1e-9


def test_a_translation_keeps_the_ratio_and_the_size_of_a_step() -> None:
    nsl = LABELLED.translated()
    assert (nsl.library, nsl.weight, nsl.norm, nsl.eps) == ("nsl", 1.0, "linf", 0.3)
    assert nsl.optimizer.rate == CLEVERHANS.optimizer.rate / 2
    assert nsl.translated() == LABELLED
    back = NSL.translated()
    assert back.weight == pytest.approx(1 / 6)
    assert back.optimizer.rate == pytest.approx(NSL.optimizer.rate * 1.2)
    adam = Optimizer("adam", 0.1, epsilon=1e-7).for_loss_times(4.0)
    assert (adam.rate, adam.epsilon) == (0.1, 4e-7)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_translated_configurations_train_the_same_weights(
    name: Literal["sgd", "momentum", "adam"],
) -> None:
    x, y = torch.rand(20, 4, dtype=torch.float64), torch.arange(20) % 3
    theirs = Config("cleverhans3", "linf", 0.1, 0.3, Optimizer(name, 2**-4, epsilon=1e-3))
    unscaled = theirs.translated(theirs.optimizer)
    after = []
    for config in (theirs, theirs.translated(), unscaled):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
        # Both with Keras' rounding of the betas' powers.
        optimizer = config.optimizer.in_torch(model, "nsl")
        for _ in range(10):
            optimizer.zero_grad()
            adversarial_step(model, x, y, recipe=config.recipe(), weighting=config.weighting())
            optimizer.step()
        after.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.allclose(after[0], after[1], rtol=1e-12, atol=1e-13)
    assert not torch.allclose(after[0], after[2], rtol=1e-3)


def formula(gradients: list[float], rate: float, epsilon: float, powers: Any) -> float:
    """Adam of Keras 2.15 and TensorFlow 1 on one weight that starts at 1."""
    weight, first, second = 1.0, 0.0, 0.0
    for step, gradient in enumerate(gradients, 1):
        first += (gradient - first) * (1 - 0.9)
        second += (gradient**2 - second) * (1 - 0.999)
        correction = math.sqrt(1 - powers(0.999, step)) / (1 - powers(0.9, step))
        weight -= rate * correction * first / (math.sqrt(second) + epsilon)
    return weight


GRADIENTS = [3e-6, -1e-6, 4e-6, 2e-6, 1e-6]


def stepped(adam: torch.optim.Optimizer, weight: torch.Tensor) -> float:
    for gradient in GRADIENTS:
        weight.grad = torch.full_like(weight, gradient)
        adam.step()
    return float(weight.detach())


@pytest.mark.parametrize("library", ["nsl", "cleverhans3"])
def test_adam_is_tensorflows_formula(library: Library) -> None:
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(model.weight)
    adam = Optimizer("adam", 0.0625, epsilon=1e-7).in_torch(model, library)
    found = stepped(adam, model.weight)

    def rounded(beta: float, step: int) -> float:
        return float(torch.tensor(beta)) ** step

    # 1e-5: TensorFlow 1 rounds each power.
    tolerance = 1e-12 if library == "nsl" else 1e-5
    assert found == pytest.approx(formula(GRADIENTS, 0.0625, 1e-7, rounded), rel=tolerance)
    plain = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    usual = stepped(torch.optim.Adam([plain], 0.0625, eps=1e-7), plain)
    assert abs(usual - found) > 1e-2


def test_code_of_the_page_runs_and_its_adam_is_tensorflows() -> None:
    text = robust_training.PAGE.read_text(encoding="utf-8")
    namespace: dict[str, Any] = {}
    blocks = FENCE.findall(text)
    assert len(blocks) == 2
    for code in blocks:
        exec(compile(code, "docs/training.md", "exec"), namespace)
    adam = namespace["adam"]
    weight = adam.param_groups[0]["params"][0]
    found = stepped(adam, weight) + 1  # it starts at 0
    expected = formula(GRADIENTS, 1e-3, 1e-7, lambda beta, step: beta**step)
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.live
@pytest.mark.slow
def test_a_quick_run_writes_rows_page_and_plot(tmp_path: Path, one_thread: None) -> None:
    out, written = tmp_path / "rows.csv", tmp_path / "training.md"
    arguments = ["--quick", "-o", str(out), "--page", str(written)]
    assert robust_training.main(arguments) == 0
    assert robust_training.main([*arguments[1:], "--check"]) == 0
    assert written.with_suffix(".png").exists()
    assert {row["part"] for row in training_rows.read(out)} == {
        "robustness",
        "mapping",
        "rounding",
    }
