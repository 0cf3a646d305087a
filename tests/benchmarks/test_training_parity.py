"""Training by the originals, live, and by `adversarial_step` with torch.optim: 100 steps.

pytest tests/benchmarks/test_training_parity.py -m slow
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

import pytest

from benchmarks.training.parity import BATCH, KINDS, LIBRARIES, STEPS, configs, examples, rounding
from benchmarks.training.rows import Row
from benchmarks.training.runs import Trainings
from torchfgsm.originals import WorkerError

pytestmark = [pytest.mark.live, pytest.mark.slow]
_TRAININGS = 9


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Iterator[Trainings]:
    with Trainings(tmp_path_factory.mktemp("models")) as opened:
        yield opened


@pytest.fixture(scope="module")
def rows(request: pytest.FixtureRequest, trainings: Trainings) -> list[Row]:
    library, kind = request.param
    return list(rounding(trainings, library, kind))


each = pytest.mark.parametrize(
    "rows",
    [(library, kind) for library in LIBRARIES for kind in KINDS],
    indirect=True,
    ids=lambda pair: "-".join(pair),
)


@each
def test_in_float64_all_is_as_in_the_original_after_100_steps(rows: list[Row]) -> None:
    found = [row for row in rows if (row.precision, row.side) == ("float64", "port")]
    measures = {row.measure for row in found}
    statistics = {"statistics"} if rows[0].model == "batchnorm" else set()
    assert measures == {"weights", "losses"} | statistics
    assert len(found) == _TRAININGS * len(STEPS) * len(measures)
    for row in found:
        assert row.value <= 1e-9, row


@each
def test_in_float32_rounding_grows_as_in_the_original(rows: list[Row]) -> None:
    """By the median of norms and optimizers.

    One training alone takes a leap, on either side, where a sign or a relu within rounding of zero
    turns over.
    """
    for steps in STEPS:
        for measure in sorted({row.measure for row in rows if row.precision == "float32"}):
            port, original = (
                [
                    row.value
                    for row in rows
                    if (row.precision, row.side, row.steps, row.measure)
                    == ("float32", side, steps, measure)
                ]
                for side in ("port", "original")
            )
            assert len(port) == len(original) == _TRAININGS
            assert median(port) <= 4 * median(original) + 1e-6, (steps, measure)
            assert max(port) <= 0.1, (steps, measure)


@each
def test_the_original_learned_on_the_way(rows: list[Row]) -> None:
    """Steps that lead nowhere would prove little."""
    reported = {
        (row.norm, row.optimizer, row.steps): row.value for row in rows if row.measure == "loss"
    }
    assert len(reported) == _TRAININGS * len(STEPS)
    for (norm, optimizer, steps), loss in reported.items():
        if steps == STEPS[0]:
            assert reported[norm, optimizer, STEPS[-1]] < 0.95 * loss, (norm, optimizer)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_cleverhans_3_by_itself_has_no_float64_under_this_norm(
    trainings: Trainings, norm: str
) -> None:
    """If it had, the conversions that its worker replaces would not be needed."""
    config = next(config for config in configs("cleverhans3") if config.norm == norm)
    given = examples(1, BATCH)
    with pytest.raises(WorkerError, match=r"TypeError: .*float(32|64)"):
        trainings.worker("cleverhans3").call(
            "train",
            {"x/image": given.x, "y": given.one_hot()},
            model=trainings.path("plain"),
            params=config.params(),
            dtype="float64",
        )
