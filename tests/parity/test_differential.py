"""Random configurations beside the live originals, and faults that they must find."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.evidence import differential
from benchmarks.evidence.differential import PER_MODEL, outcomes
from benchmarks.evidence.differential_draws import draw
from benchmarks.evidence.differential_models import Drawn, architecture
from benchmarks.evidence.differential_rules import (
    ALONE,
    FINDINGS,
    FLOAT64,
    NOISE,
    NOISE_ALLOWED,
    SAME,
    Outcome,
)
from benchmarks.evidence.differential_runs import Runner
from torchfgsm.core import model_gradient, norms
from torchfgsm.libraries.configuration import LIBRARIES
from torchfgsm.parity.cases import norm_of

live = pytest.mark.live
pytestmark = pytest.mark.usefixtures("one_thread")

# Not the recorded run's.
SEED = 1


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with closing(Runner(tmp_path_factory.mktemp("differential"), SEED)) as running:
        yield running


def agree(runner: Runner, numbers: Sequence[int]) -> None:
    """No disagreement, and most of it compared in every library."""
    found = list(outcomes(runner, numbers))
    unexplained = [differential.report(one, runner) for one in found if one.found]
    assert not unexplained, "\n\n".join(unexplained)
    words = Counter(one.word for one in found)
    assert sum(words[word] for word in (NOISE, ALONE)) <= max(1, NOISE_ALLOWED * len(found))
    for library in LIBRARIES:
        of = [one.word for one in found if one.draw.case.library == library]
        compared = [word for word in of if word in (SAME, FLOAT64)]
        assert len(compared) > len(of) / 2, library
        assert SAME in compared, library


@live
def test_100_draws_agree(runner: Runner) -> None:
    agree(runner, range(100))


@live
@pytest.mark.slow
def test_2000_draws_agree(tmp_path: Path) -> None:
    with closing(Runner(tmp_path, seed=2)) as running:
        agree(running, range(2000))


def first_finding(runner: Runner) -> Outcome:
    """The first disagreement, made small."""
    return next(one for one in outcomes(runner, range(100)) if one.found)


def wrong_length(grads: Sequence[Tensor], *rest: Any) -> list[Tensor]:
    """The L2 direction by the largest entry."""
    return [
        grad / grad.abs().flatten(1).amax(1).view(-1, *[1] * (grad.dim() - 1)) for grad in grads
    ]


@live
def test_a_wrong_norm_is_found_and_shrunk(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = norms.NormRule(wrong_length, norms.NORMS["l2"].project, norms.NORMS["l2"].random)
    monkeypatch.setattr(norms, "NORMS", {**norms.NORMS, "l2": rule})
    found = first_finding(runner)
    assert len(found.draw.batch.y) == 1
    # NSL's default is L2 already.
    assert norm_of(found.draw.case) == "l2"
    assert set(found.draw.case.params) <= {"attack", "norm", "ord", "eps"}
    assert found.draw.case.extras == ()
    assert found.draw.text in differential.report(found, runner)


@live
def test_wrong_labels_are_found_and_shrunk(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    def least_likely(output: Tensor, *rest: Any, **options: Any) -> Tensor:
        return output.detach().argmin(dim=1)

    monkeypatch.setattr(model_gradient, "predicted_labels", least_likely)
    found = first_finding(runner)
    # In training CleverHans 3 predicts the attack's labels itself, unless told otherwise.
    case = found.draw.case
    assert case.labels == "predicted" or (case.kind == "train" and not case.params.get("pass_y"))
    assert len(found.draw.batch.y) == 1
    assert "clip_min" not in case.params


def test_a_draw_is_the_same_alone() -> None:
    models = {index: architecture(SEED, index) for index in range(400 // PER_MODEL)}
    for number in range(0, 400, 7):
        first, second = (
            draw(SEED, number, number // PER_MODEL, model)
            for model in (models[number // PER_MODEL], architecture(SEED, number // PER_MODEL))
        )
        assert first.text == second.text
        for name, x in first.batch.x.items():
            assert np.array_equal(x, second.batch.x[name])


def test_models_have_the_weights_of_their_architecture() -> None:
    for index in range(20):
        drawn_model = architecture(SEED, index)
        model = Drawn(drawn_model)
        arrays = model.keras_arrays(dict(model.named_parameters()))
        assert {name.removesuffix(":0") for name in arrays} == set(drawn_model.weights)
        for name, array in arrays.items():
            assert np.array_equal(array, drawn_model.weights[name.removesuffix(":0")])
        x = [torch.zeros(2, *shape) for shape in drawn_model.inputs.values()]
        assert model(*x).shape == (2, drawn_model.classes)


def test_the_page_has_the_table_of_the_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert differential.main(["--check"]) == 0


def test_the_page_of_other_rows_is_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = differential.read_rows()
    rows[0]["draws"] = str(int(rows[0]["draws"]) + 1)
    monkeypatch.setattr(differential, "ROWS", tmp_path / "rows.csv")
    differential.write_rows(rows)
    assert differential.main(["--check"]) == 1


def test_every_draw_of_the_recorded_run_is_explained() -> None:
    rows = differential.read_rows()
    assert sum(int(row["draws"]) for row in rows) == int(rows[0]["count"]) >= 2000
    assert {row["library"] for row in rows} == set(LIBRARIES)
    assert differential.explained(differential.by_verdict(rows))


@pytest.mark.parametrize("word", [NOISE, ALONE])
def test_little_may_be_noise_and_nothing_unexplained(word: str) -> None:
    assert differential.explained({SAME: 99, word: 1})
    assert not differential.explained({SAME: 98, word: 2})
    for finding in FINDINGS:
        assert not differential.explained({SAME: 1000, finding: 1})


def test_a_count_of_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        differential.main(["--count", "0"])
    assert "--count must be at least 1, got 0" in capsys.readouterr().err
