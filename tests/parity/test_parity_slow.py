"""The live comparison again, on other weights and many more images."""

from collections.abc import Iterator

import pytest

from torchfgsm import converters
from torchfgsm.parity import digits
from torchfgsm.parity.cases import all_cases
from torchfgsm.parity.originals_side import Originals
from torchfgsm.parity.run import live, verdict

pytestmark = [pytest.mark.live, pytest.mark.slow]

IMAGES = 397  # all that the models were not trained on


@pytest.fixture(scope="module")
def originals() -> Iterator[Originals]:
    with Originals() as running:
        yield running


@pytest.mark.parametrize(("seed", "epochs"), [(2, 6), (3, 1), (5, 3)])
def test_port_equals_originals_on_all_images(
    seed: int, epochs: int, originals: Originals, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Models trained as in the demo, and less.

    Those trained until their probabilities round to 1 have gradients of float32 noise.
    """
    folder = tmp_path_factory.mktemp("models")
    digits.train_models(folder, seed=seed, epochs=epochs)
    models = digits.in_folder(folder, IMAGES, converters.load)
    expected = live(originals, models)
    verdicts = [verdict(case, models, expected(case)) for case in all_cases()]
    different = [v.comparison.to_text() for v in verdicts if not v.passed]
    assert not different, "\n".join(different)
