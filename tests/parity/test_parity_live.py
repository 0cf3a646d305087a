"""The port beside the live originals: every case, each original in its own process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from torchfgsm import converters
from torchfgsm.parity import digits
from torchfgsm.parity.cases import all_cases
from torchfgsm.parity.originals_side import Originals
from torchfgsm.parity.run import Converted, live, verdict

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def originals() -> Iterator[Originals]:
    with Originals() as running:
        yield running


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    folder: Path = tmp_path_factory.mktemp("models")
    # Another seed and other images than the recorded results'.
    digits.train_models(folder, seed=1)
    return digits.in_folder(folder, 32, converters.load)


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.name)
def test_port_equals_original(case, originals: Originals, models: Converted) -> None:  # type: ignore[no-untyped-def]
    found = verdict(case, models, live(originals, models)(case))
    assert found.passed, found.comparison.to_text()
