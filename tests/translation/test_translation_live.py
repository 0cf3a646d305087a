"""Translations beside the live originals: the source's own run, and the text that was written."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from translation_runs import WORKER, Drawn, Side, drawn

from torchfgsm.originals import KERAS_2, Worker
from torchfgsm.parity import digits
from torchfgsm.parity.cases import Case
from torchfgsm.parity.judge import judge
from torchfgsm.parity.port import run_port
from torchfgsm.parity.run import Converted
from torchfgsm.translation import Translation, TranslationError, translate
from torchfgsm.translation.reach import is_random, reach

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("one_thread")]
# The model of the main table; and one with many gradients under the guard of the L2 norm.
CONFIDENCE = {"as trained": 1.0, "confident": 3.0}


@pytest.fixture(scope="module")
def sides(models: Converted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Side]]:
    """The recorded model of digits in all four libraries, also with a steeper last layer."""
    workers = {version: Worker(KERAS_2, WORKER) for version in (1, 2)}
    folder, data = tmp_path_factory.mktemp("translation"), digits.batch("digits", 32)
    recorded = models.converted(Case(name="digits", library="nsl", params={}))
    try:
        found = {}
        for name, factor in CONFIDENCE.items():
            model = copy.deepcopy(recorded)
            head = [p for p in model.parameters() if 10 in p.shape]
            assert len(head) == 2
            with torch.no_grad():
                for parameter in head:
                    parameter.mul_(factor)
            found[name] = Side.of(workers, folder / f"{name}.keras", model, data)
        yield found
    finally:
        for worker in workers.values():
            worker.close()


@pytest.fixture
def side(sides: dict[str, Side]) -> Side:
    """The confident model."""
    return sides["confident"]


def accepted(seed: int, count: int) -> list[Drawn]:
    """Drawn configurations that have a translation."""
    rng = random.Random(seed)
    found: list[Drawn] = []
    while len(found) < count:
        one = drawn(rng)
        try:
            one.translation()
        except TranslationError:
            continue
        found.append(one)
    return found


def check(sides: dict[str, Side], one: Drawn) -> None:
    """There, and back; a mask is no part of CleverHans' configuration, and does not come back.

    Signs are those of the trained model, whose gradients are not all rounding.
    """
    there = one.translation()
    side = sides["confident" if there.recipe.norm == "l2" else "as trained"]
    ways = [there] if one.mask else [there, translate(there.target, to=one.library)]
    for translation in ways:
        if is_random(translation.recipe):
            check_random(side, one, translation)
            continue
        found = side.judged(one, translation)
        assert found.passed, f"{found.comparison.to_text()}\n{translation.code}"


def check_random(side: Side, one: Drawn, translation: Translation) -> None:
    """Other draws each time, within what the source can reach."""
    recipe = translation.source.recipe
    (x,) = side.data.x.values()
    first, second = (
        (side.perturbed(one, translation)["adv/image"] - x).reshape(len(x), -1) for _ in range(2)
    )
    assert not np.array_equal(first, second)
    radius = min(reach(recipe), recipe.epsilon or np.inf)
    order = {"linf": np.inf, "l2": 2}[recipe.norm]
    assert np.linalg.norm(first, order, axis=1).max() <= radius * (1 + 1e-5)


@pytest.mark.parametrize("one", accepted(0, 30), ids=str)
def test_translations_equal_the_original(sides: dict[str, Side], one: Drawn) -> None:
    check(sides, one)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_500_translations_equal_the_original(sides: dict[str, Side], seed: int) -> None:
    for one in accepted(seed, 50):
        check(sides, one)


def perturbation(side: Side, translation: Translation, code: str = "") -> Any:
    (x,) = side.data.x.values()
    run = replace(translation, code=code or translation.code)
    return side.run(run, side.data.y, None)["adv"] - x


def apart(a: Any, b: Any) -> float:
    """Relative L2 distance."""
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize(
    ("norm", "to"), [(np.inf, "nsl"), (np.inf, "cleverhans-torch"), (2, "nsl"), (2, "cleverhans3")]
)
def test_random_starts_have_the_same_law(side: Side, norm: float, to: str) -> None:
    """Uniform in the ball: (norm / radius) ** dimensions is uniform in [0, 1]."""
    options = {"eps": 0.5, "eps_iter": 0.1, "nb_iter": 0, "norm": norm, "rand_init": True}
    translation = translate(options, to=to, source="cleverhans-tf2")
    start = perturbation(side, translation).reshape(len(side.data.y), -1)
    assert abs(start.mean()) < (0.05 if norm == np.inf else 0.01)
    if norm == np.inf:
        assert np.abs(start).mean() == pytest.approx(0.25, abs=0.02)
        assert np.abs(start).max() <= 0.5
    else:
        quantiles = (np.linalg.norm(start, axis=1) / 0.5) ** start.shape[1]
        assert quantiles.max() <= 1 + 1e-4
        assert quantiles.mean() == pytest.approx(0.5, abs=0.25)


LOSS: dict[str, Any] = {"class": "SparseCategoricalCrossentropy", "from_logits": True}
NSL_L2 = {"adv_grad_norm": "l2", "adv_step_size": 0.5}
PGD_L2 = {"ord": 2, "eps": 1.0, "eps_iter": 0.5, "nb_iter": 5, "rand_init": False}


@pytest.mark.parametrize(
    ("source", "options", "to", "line"),
    [
        ("nsl", NSL_L2, "cleverhans3", "loss_fn=mean_loss"),
        ("nsl", NSL_L2, "cleverhans3", "y=labels"),
        ("nsl", NSL_L2, "cleverhans-tf2", "loss_fn=mean_loss"),
        ("cleverhans3", {"ord": 2, "eps": 0.5, "labels": "given"}, "nsl", 'reduction="sum"'),
    ],
)
def test_the_steps_outside_are_needed(
    side: Side, source: str, options: dict[str, Any], to: str, line: str
) -> None:
    translation = translate(options, to=to, source=source)
    assert line in translation.code
    without = translation.code.replace(f", {line}", "").replace(f"    {line},\n", "")
    assert without != translation.code
    with_it = perturbation(side, translation)
    assert apart(perturbation(side, translation, without), with_it) > 0.01


@pytest.mark.parametrize("to", ["cleverhans3", "cleverhans-tf2", "cleverhans-torch"])
@pytest.mark.parametrize("norm", ["infinity", "l2"])
def test_clipped_probabilities_are_given_as_logits(
    sides: dict[str, Side], norm: str, to: str
) -> None:
    side = sides["as trained"].of_probabilities
    options = {"adv_grad_norm": norm, "adv_step_size": 0.1, "reduction": "sum"}
    translation = translate({**options, "model_output": "probabilities"}, to=to, source="nsl")
    case = Case(
        name=f"probabilities to {to}", library="nsl", model="digits-reshaped",
        params={"adv_grad_norm": norm, "adv_step_size": 0.1}, output="probabilities",
        loss={**LOSS, "from_logits": False, "reduction": "sum"},
    )  # fmt: skip
    expected = side.originals.run(case, side.path, side.model, side.data)
    actual = {"adv/image": side.run(translation, side.data.y, None)["adv"]}

    def in_float64() -> dict[str, Any]:
        return run_port(replace(case, dtype="float64"), side.model, side.data)

    verdict = judge(case, side.data, expected, actual, lambda turns: {}, in_float64)
    assert verdict.passed, f"{verdict.comparison.to_text()}\n{translation.code}"


def test_no_step_is_one_of_length_0(side: Side) -> None:
    options = {"eps": 0.3, "eps_iter": 0.1, "nb_iter": 0, "rand_init": False, "labels": "given"}
    bounds = {"clip_min": 0.25, "clip_max": 0.75}
    translation = translate({**options, **bounds}, to="nsl", source="cleverhans3")
    case = Case(
        name="no step", library="cleverhans3",
        params={"attack": "ProjectedGradientDescent", "sanity_checks": False, **bounds,
                **{name: value for name, value in options.items() if name != "labels"}},
    )  # fmt: skip
    theirs = side.originals.result(case, side.path, side.model, side.data)["adv/image"]
    assert np.array_equal(side.run(translation, side.data.y, None)["adv"], theirs)
    assert theirs.min() == 0.25


def test_batches_of_one_are_needed(side: Side) -> None:
    options = {"ord": 2, "eps": 0.5, "labels": "given"}
    translation = translate(options, to="cleverhans-torch", source="cleverhans3")
    start = translation.code.index("# model gives")
    whole = "x_adv = fast_gradient_method(model, x, eps=0.5, norm=2, y=y)"
    code = translation.code[:start] + whole
    one_by_one = perturbation(side, translation)
    assert apart(perturbation(side, translation, code), one_by_one) > 0.01


def test_what_is_refused_for_its_order_differs(side: Side) -> None:
    clip = {"clip_min": 0.0, "clip_max": 1.0}
    with pytest.raises(TranslationError, match="order"):
        translate({**PGD_L2, **clip, "labels": "given"}, to="nsl")
    # The nearest call of NSL: the one for the same steps without a clip, with the clip put in.
    free = translate({**PGD_L2, "labels": "given"}, to="nsl")
    nearest = free.code.replace("pgd_iterations=5,", "pgd_iterations=5, clip_value_min={name: 0.0}"
                                ", clip_value_max={name: 1.0},")  # fmt: skip
    assert nearest != free.code
    (x,) = side.data.x.values()
    case = Case(
        name="cleverhans3 / PGD", library="cleverhans3",
        params={"attack": "ProjectedGradientDescent", **PGD_L2, **clip},
    )  # fmt: skip
    theirs = side.originals.result(case, side.path, side.model, side.data)["adv/image"] - x
    assert apart(perturbation(side, free, nearest), theirs) > 0.01


SMOOTHED = {"class": "CategoricalCrossentropy", "from_logits": True, "label_smoothing": 0.1}
M = 0.25
TRAINING: list[tuple[str, dict[str, Any], dict[str, Any], str, float]] = [
    # The source as options and as a case, the target, and the target's loss over the source's.
    ("nsl", {"multiplier": M, **NSL_L2}, {}, "cleverhans3", 1 / (1 + M)),
    ("nsl", {"multiplier": M, **NSL_L2}, {}, "cleverhans-tf2", 1.0),
    ("nsl", {"multiplier": M, **NSL_L2}, {}, "cleverhans-torch", 1.0),
    ("nsl", {"multiplier": M, **NSL_L2, "label_smoothing": 0.1}, {"loss": SMOOTHED},
     "cleverhans3", 1 / (1 + M)),
    ("nsl", {"multiplier": M, **NSL_L2, "label_smoothing": 0.1}, {"loss": SMOOTHED},
     "cleverhans-tf2", 1.0),
    ("nsl", {"multiplier": M, **NSL_L2, "label_smoothing": 0.1}, {"loss": SMOOTHED},
     "cleverhans-torch", 1.0),
    ("nsl", {"multiplier": M, **NSL_L2, "reduction": "sum"}, {"loss": {**LOSS, "reduction": "sum"}},
     "cleverhans3", 1 / (1 + M) / 32),
    ("cleverhans3", {"adv_coeff": 0.3, "pass_y": True, "eps": 0.1}, {}, "nsl", 1 / 0.7),
    ("cleverhans3", {"adv_coeff": 0.3, "eps": 0.1}, {}, "cleverhans-torch", 1.0),
    ("cleverhans3", {"adv_coeff": 0.3, "ord": 2, "eps": 0.5}, {}, "cleverhans-tf2", 1.0),
    ("cleverhans3", {"smoothing": 0.1, "pass_y": True, "eps": 0.1}, {}, "cleverhans-torch", 1.0),
]  # fmt: skip


@pytest.mark.parametrize(("source", "options", "more", "to", "scale"), TRAINING)
def test_training_losses_are_equal_but_for_the_scale(
    side: Side, source: str, options: dict[str, Any], more: dict[str, Any], to: str, scale: float
) -> None:
    translation = translate(options, to=to, source=source)
    outside = " ".join(translation.outside)
    assert (scale == 1) == ("learning rate" not in outside)
    case = Case(
        name=f"{source}, training, to {to}", library=source, kind="train",
        params=_training_params(source, options), **more,
    )  # fmt: skip
    expected = side.originals.run(case, side.path, side.model, side.data)
    found = side.run(translation, side.data.y, None)
    # numpy 1 would make float64 of the loss, an array without dimensions, and a Python number.
    actual = {n: array / array.dtype.type(scale) for n, array in found.items() if n != "adv"}
    verdict = judge(case, side.data, expected, actual, lambda turns: {}, dict)
    assert verdict.passed, f"{verdict.comparison.to_text()}\n{translation.code}"


def _training_params(library: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options as the originals' worker takes them."""
    if library == "nsl":
        others = ("label_smoothing", "reduction")
        return {name: value for name, value in options.items() if name not in others}
    own = ("adv_coeff", "pass_y", "smoothing")
    return {
        "attack": "FastGradientMethod",
        "attack_params": {name: value for name, value in options.items() if name not in own},
        **{name: value for name, value in options.items() if name in own},
    }


def test_label_smoothing_does_not_come_back() -> None:
    """What CleverHans' attack takes for labels is not among the options of its loss."""
    there = translate({"multiplier": M, "label_smoothing": 0.1}, to="cleverhans3")
    with pytest.raises(TranslationError, match=r"smoothing=0\.1"):
        translate(there.target, to="nsl")
