"""A model so sure of its labels that float32 rounds their slopes away, beside the originals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from original_cases import zoo
from trap_cases import LINF, traps

from torchfgsm import converters
from torchfgsm.judging.label_slope import rounding
from torchfgsm.nsl.lib import maximize_within_unit_norm
from torchfgsm.parity import port, table, user
from torchfgsm.parity.cases import NSL_WORDS, NUMPY_ORDERS, Case
from torchfgsm.parity.data import Array, Data
from torchfgsm.parity.judge import judge
from torchfgsm.parity.originals_side import Originals, up_to
from torchfgsm.parity.run import verdict_apart
from torchfgsm.parity.verdict import Verdict

pytestmark = pytest.mark.live

EPS = 0.1
NSL = {
    norm: Case(
        name=f"nsl / {norm}",
        library="nsl",
        params={"adv_grad_norm": word, "adv_step_size": EPS},
        loss={"class": "SparseCategoricalCrossentropy", "from_logits": True, "reduction": "sum"},
    )
    for norm, word in NSL_WORDS.items()
}
CLEVERHANS = {
    norm: Case(
        name=f"cleverhans-tf2 / {norm}",
        library="cleverhans-tf2",
        params={"attack": "fast_gradient_method", "norm": order, "eps": EPS},
    )
    for norm, order in NUMPY_ORDERS.items()
}
ITERATED = Case(
    name="cleverhans-tf2 / PGD",
    library="cleverhans-tf2",
    params={
        "attack": "projected_gradient_descent",
        "norm": np.inf,
        "eps": EPS,
        "eps_iter": 0.03,
        "nb_iter": 4,
        "rand_init": False,
    },
)
CASES = [*NSL.values(), *CLEVERHANS.values(), ITERATED]


class Sides:
    """The steep model, its batch, and what the original and the port give for a case."""

    def __init__(self, path: Path, originals: Originals) -> None:
        self.path, self.originals = path, originals
        self.model = converters.load(path, verify=False)
        x = np.random.default_rng(0).random((256, 8, 8, 1)).astype(np.float32)
        with torch.no_grad():
            y = self.model(torch.from_numpy(x)).argmax(dim=1).numpy()
        self.data = Data({self.model.input_names[0]: x}, y, 10)
        self._expected: dict[str, dict[str, Array]] = {}

    def expected(self, case: Case) -> dict[str, Array]:
        if case.name not in self._expected:
            found = self.originals.run(case, self.path, self.model, self.data)
            self._expected[case.name] = found
        return self._expected[case.name]

    def port(self, case: Case) -> dict[str, Array]:
        return port.run_port(case, self.model, self.data)

    def verdict(self, case: Case, actual: Any = None, expected: Any = None) -> Verdict:
        return judge(
            case,
            self.data,
            self.expected(case) if expected is None else expected,
            self.port(case) if actual is None else actual,
            lambda turns: self.port(up_to(case, turns)),
            lambda: self.port(replace(case, dtype="float64")),
        )


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    with zoo(tmp_path_factory.mktemp("steep")) as path_of, Originals() as originals:
        yield Sides(Path(path_of("steep")), originals)


def misses(sides: Sides) -> Array:
    found: Array = sides.expected(NSL["linf"])["label_miss"]
    return found


def test_some_labels_are_sure_and_others_are_not(sides: Sides) -> None:
    miss = misses(sides)
    assert 0.1 < (miss <= 2**-24).mean() < 0.9
    assert (miss > 1e-3).mean() > 0.1


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_port_equals_original(case: Case, sides: Sides) -> None:
    found = sides.verdict(case)
    assert found.passed, found.comparison.to_text()
    assert found.saturated == (misses(sides) <= 2**-24).sum()
    assert f"In {found.saturated} of 256 examples" in table.saturation([found])


def test_explain_counts_the_same_examples(sides: Sides) -> None:
    ((_, x),) = sides.data.x.items()
    found = traps(sides.model, torch.from_numpy(x), torch.from_numpy(sides.data.y), LINF)
    assert found["saturated softmax"].count == (misses(sides) <= 2**-24).sum()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("share", "passed"), [(0.99, True), (-0.99, True), (3.0, False)])
def test_the_labels_slope_may_be_off_by_its_rounding(
    norm: str, share: float, passed: bool, sides: Sides
) -> None:
    case, ((name, x),) = NSL[norm], sides.data.x.items()
    expected = sides.expected(case)
    off = share * rounding(expected["label_miss"], 10)[:, None, None, None]
    gradient = expected[f"gradient64/{name}"] + off * expected[f"label_slope/{name}"]
    step = maximize_within_unit_norm(torch.from_numpy(gradient), NSL_WORDS[norm]).numpy()
    actual = {f"adv/{name}": (x + EPS * step).astype(np.float32)}
    found = sides.verdict(case, actual)
    assert found.passed == passed, found.comparison.to_text()
    without = {k: v for k, v in expected.items() if not k.startswith("label_")}
    assert not sides.verdict(case, actual, without).passed


def test_the_cases_of_the_command_pass(sides: Sides) -> None:
    for case in user.cases(["cleverhans-torch"], sides.data, EPS):
        found = sides.verdict(case)
        assert found.passed, found.comparison.to_text()


def with_step(case: Case, factor: float) -> Case:
    key = "adv_step_size" if case.library == "nsl" else "eps"
    return replace(case, params={**case.params, key: factor * EPS})


def of_examples(arrays: dict[str, Array], rows: Array) -> dict[str, Array]:
    return {
        name: array[rows] if array.shape[:1] == (256,) else array for name, array in arrays.items()
    }


@pytest.mark.parametrize("only_sure", [False, True])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_step_that_is_longer_by_a_thousandth_is_found(
    case: Case, only_sure: bool, sides: Sides
) -> None:
    wrong = with_step(case, 1.001)
    rows = misses(sides) <= (2**-20 if only_sure else 1)
    data = replace(
        sides.data, x={n: x[rows] for n, x in sides.data.x.items()}, y=sides.data.y[rows]
    )
    found = judge(
        case,
        data,
        of_examples(sides.expected(case), rows),
        of_examples(sides.port(wrong), rows),
        lambda turns: of_examples(sides.port(up_to(wrong, turns)), rows),
        lambda: of_examples(sides.port(replace(wrong, dtype="float64")), rows),
    )
    assert not found.passed


@pytest.mark.parametrize("case", CASES[:-1], ids=lambda case: case.name)
def test_a_step_down_is_found_in_sure_examples_too(case: Case, sides: Sides) -> None:
    actual, ((name, x),) = sides.port(case), sides.data.x.items()
    down = x - (actual[f"adv/{name}"] - x)
    for rows in (misses(sides) <= 2**-24, misses(sides) > 2**-24):
        part = np.where(rows[:, None, None, None], down, actual[f"adv/{name}"])
        assert not sides.verdict(case, {f"adv/{name}": part}).passed


@pytest.mark.parametrize("case", [NSL["linf"], NSL["l1"], CLEVERHANS["l2"]], ids=lambda c: c.name)
def test_another_norms_direction_is_found(case: Case, sides: Sides) -> None:
    assert not sides.verdict(
        case, sides.port(NSL["l2" if case.name == "nsl / linf" else "linf"])
    ).passed


@pytest.mark.parametrize("sure", [False, True])
def test_one_flipped_sign_is_found(sure: bool, sides: Sides) -> None:
    case, ((name, x),) = NSL["linf"], sides.data.x.items()
    miss, g64 = misses(sides), sides.expected(NSL["linf"])[f"gradient64/{name}"]
    (row,) = np.flatnonzero((miss < 1e-9) if sure else (miss > 1e-3))[:1]
    place = (row, *np.unravel_index(np.abs(g64[row]).argmax(), g64[row].shape))
    actual = {k: v.copy() for k, v in sides.port(case).items()}
    actual[f"adv/{name}"][place] -= 2 * (actual[f"adv/{name}"][place] - x[place])
    assert not sides.verdict(case, actual).passed


def training(sides: Sides) -> Case:
    cases = user.cases(["cleverhans3"], sides.data, EPS)
    return next(case for case in cases if case.kind == "train")


@pytest.mark.parametrize(
    ("wrong", "passed"), [({}, True), ({"adv_coeff": 0.501}, False), ({"eps": 1.001 * EPS}, False)]
)
def test_a_training_loss_is_that_of_the_originals_examples(
    wrong: dict[str, float], passed: bool, sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, real = training(sides), port.run_port
    expected = sides.expected(case)
    assert f"attack/adv/{sides.model.input_names[0]}" in expected

    def run(case: Case, *args: Any, **options: Any) -> dict[str, Array]:
        fits = "adv_coeff" in wrong and case.kind == "train"
        fits = fits or ("eps" in wrong and "eps" in case.params)
        params = {**case.params, **(wrong if fits else {})}
        return real(replace(case, params=params), *args, **options)

    monkeypatch.setattr(port, "run_port", run)
    found = verdict_apart(case, sides.data, sides.model, expected)
    assert found.passed == passed, found.comparison.to_text()
