"""The port against recorded results of the originals: every case, without TensorFlow."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from torchfgsm.cleverhans import tf2
from torchfgsm.parity import port, recorded
from torchfgsm.parity.cases import Case, all_cases, main_cases, norm_of
from torchfgsm.parity.data import Array
from torchfgsm.parity.judge import judge
from torchfgsm.parity.originals_side import up_to
from torchfgsm.parity.run import Converted, verdict

CASES = {case.name: case for case in all_cases()}


@pytest.mark.parametrize("name", CASES)
def test_port_equals_recorded_original(
    name: str, recording: recorded.Recording, models: Converted
) -> None:
    case = CASES[name]
    found = verdict(case, models, recording.expected(case))
    assert found.passed, found.comparison.to_text()


def test_every_recorded_result_has_its_case(recording: recorded.Recording) -> None:
    names = {key.split("|")[0] for key in recording.arrays if not key.startswith("data ")}
    assert names == set(CASES)


def test_demo_shows_every_library_and_kind() -> None:
    shown = main_cases()
    assert {case.library for case in shown} == {case.library for case in CASES.values()}
    assert {case.kind for case in shown} == {"perturb", "train", "function"}
    assert {norm_of(case) for case in shown} == {"linf", "l2", "l1"}


def changed(
    case: Case, models: Converted, expected: dict[str, Array], change: Any
) -> dict[str, Array]:
    """The port's result for a model whose input gradient is wrong on purpose."""
    model = models.converted(case)
    data = models.data(case.model)

    class Faulty(torch.nn.Module):
        input_names = model.input_names

        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(change(x))  # type: ignore[no-any-return]

    return port.run_port(case, Faulty(), data)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_swapped_row_of_pixels_is_found(
    norm: str, recording: recorded.Recording, models: Converted
) -> None:
    case = CASES[f"cleverhans-tf2 / {norm}, true labels"]
    expected = recording.expected(case)

    def swap(x: torch.Tensor) -> torch.Tensor:
        return x[:, [0, 1, 2, 4, 3, 5, 6, 7]]

    faulty = _with_result(case, models, changed(case, models, expected, swap))
    assert not faulty(expected).passed


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_planted_gradient_error_of_1e_4_is_found(
    norm: str, recording: recorded.Recording, models: Converted
) -> None:
    case = CASES[f"cleverhans-tf2 / {norm}, true labels"]
    expected = recording.expected(case)
    gradient = expected["gradient/image"]
    signs = np.random.default_rng(0).choice([-1.0, 1.0], gradient.shape)
    wrong = torch.from_numpy((gradient + 1e-4 * np.abs(gradient).max() * signs).astype(np.float32))
    step = tf2.optimize_linear(wrong, case.params["eps"], case.params["norm"]).numpy()
    x = models.data(case.model).x["image"]
    assert not _with_result(case, models, {"adv/image": x + step})(expected).passed


def _with_result(case: Case, models: Converted, actual: dict[str, Array]) -> Any:
    data = models.data(case.model)
    model = models.converted(case)
    exact = dataclasses.replace(case, dtype="float64")
    return lambda expected: judge(
        case, data, expected, actual, lambda turns: {}, lambda: port.run_port(exact, model, data)
    )


def test_a_missing_array_is_a_failure(recording: recorded.Recording, models: Converted) -> None:
    case = CASES["nsl / training, l2"]
    expected = recording.expected(case)
    actual = port.run_port(case, models.converted(case), models.data(case.model))
    actual.pop("grad/conv1/kernel:0")
    assert not _with_result(case, models, actual)(expected).passed


@pytest.mark.parametrize("name", ["nsl / training, l2", "cleverhans3 / training, l2, true labels"])
def test_a_wrong_weighting_is_found(
    name: str, recording: recorded.Recording, models: Converted
) -> None:
    case = CASES[name]
    key = "multiplier" if case.library == "nsl" else "adv_coeff"
    wrong = dataclasses.replace(case, params={**case.params, key: 0.201})
    actual = port.run_port(wrong, models.converted(case), models.data(case.model))
    assert not _with_result(case, models, actual)(recording.expected(case)).passed


def test_pgd_is_judged_at_the_first_iterate_that_differs(
    recording: recorded.Recording, models: Converted
) -> None:
    case = CASES["cleverhans-tf2 / linf, PGD-10"]
    expected = recording.expected(case)
    data, model = models.data(case.model), models.converted(case)
    actual = port.run_port(case, model, data)
    flipped = {"adv/image": actual["adv/image"].copy()}
    place = np.unravel_index(np.abs(expected["gradient/3/image"][0]).argmax(), (8, 8, 1))
    flipped["adv/image"][0][place] += 0.04

    def iterate(turns: int) -> dict[str, Array]:
        found = port.run_port(up_to(case, turns), model, data)
        if turns >= 3:
            found["adv/image"][0][place] += 0.04
        return found

    found = judge(case, data, expected, flipped, iterate, lambda: actual)
    assert not found.passed
    assert any("step 3" in row.name for row in found.comparison.failures)
