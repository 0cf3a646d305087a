"""The kernels, run on the CPU, against recorded results of the originals: whole attacks by them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from emulation import Emulator, build
from torch import Tensor

from torchfgsm.core import engine, step
from torchfgsm.core.limits import Call
from torchfgsm.core.recipe import Recipe
from torchfgsm.kernel import op
from torchfgsm.kernel.launching import perturb
from torchfgsm.parity import recorded
from torchfgsm.parity.cases import all_cases
from torchfgsm.parity.run import Converted, verdict

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None, reason="g++, which builds the kernels for the CPU, is not here"
)
CASES = {case.name: case for case in all_cases() if case.kind == "perturb"}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("kernels"), ["float32", "float64"])


@pytest.fixture
def launched(library: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every turn is taken by the kernels; gives the names of those that ran."""
    emulator = Emulator(library)
    names: list[str] = []

    def turn(
        x: Sequence[Tensor],
        origin: Sequence[Tensor],
        grads: Sequence[Tensor],
        recipe: Recipe,
        call: Call,
    ) -> list[Tensor]:
        if recipe.through_perturbation and torch.is_grad_enabled():
            return step.turn(x, origin, grads, recipe, call)
        choices = tuple(getattr(recipe, name) for name in op._CHOICES)
        found = perturb(x, grads, origin, *op._apart(call), choices, emulator)
        assert found is not None
        names.extend(launch.kernel for launch in emulator.launched)
        return found

    monkeypatch.setitem(engine.BY_DEVICE, "cpu", turn)
    return names


@pytest.mark.parametrize("name", CASES)
def test_kernels_equal_the_recorded_original(
    name: str, recording: recorded.Recording, models: Converted, launched: list[str]
) -> None:
    case = CASES[name]
    found = verdict(case, models, recording.expected(case))
    assert found.passed, found.comparison.to_text()
    assert launched or case.params.get("nb_iter") == 0
