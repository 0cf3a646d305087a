"""Both ends of an explanation are the originals' own outputs, run live."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from explanation_ends import DEFAULTS, defaults_explained, judged

from torchfgsm import converters
from torchfgsm.parity import digits
from torchfgsm.parity.cases import Case
from torchfgsm.parity.originals_side import Originals
from torchfgsm.parity.run import Converted, live

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def originals() -> Iterator[Originals]:
    with Originals() as running:
        yield running


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    folder: Path = tmp_path_factory.mktemp("models")
    # Other weights than the recorded results' and the main table's.
    digits.train_models(folder, epochs=3, seed=2)
    return Converted(
        {"digits": folder / "digits.keras"}, {"digits": digits.batch("digits", 32)}, converters.load
    )


@pytest.mark.parametrize("case", DEFAULTS, ids=lambda case: case.name)
def test_an_end_is_the_originals_own_output(
    case: Case, originals: Originals, models: Converted
) -> None:
    expected = live(originals, models)(case)
    found = judged(case, models.converted(case), models.data("digits"), expected)
    assert found.passed, found.comparison.to_text()


def test_the_way_between_them_is_not_empty(models: Converted) -> None:
    model, data = models.converted(DEFAULTS[0]), models.data("digits")
    found = defaults_explained(model, data, torch.float32)
    assert [step.names for step in found.path][:2] == [("norm",), ("step",)]
    assert found.path[0].left.relative_l2 > 0.9
    assert found.path[-1].left.relative_l2 == 0
