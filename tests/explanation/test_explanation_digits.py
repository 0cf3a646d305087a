"""NSL's defaults against CleverHans 3's on digits: each choice alone, and the way between them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from explanation_ends import DEFAULTS, judged
from torch import Tensor

from benchmarks.digits import Digits, load, trained_cnn
from torchfgsm import Recipe, attack
from torchfgsm.explanation.explaining import explain
from torchfgsm.explanation.result import Explanation, FieldEffect, Measures
from torchfgsm.parity import recorded
from torchfgsm.parity.cases import Case
from torchfgsm.parity.run import Converted

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data() -> Digits:
    pytest.importorskip("sklearn", reason="scikit-learn, which holds the digits, is not installed")
    return load()


@pytest.fixture(scope="module")
def model(data: Digits, one_thread: None) -> torch.nn.Module:
    return trained_cnn(data)


@pytest.fixture(scope="module")
def explained(model: torch.nn.Module, data: Digits) -> Explanation:
    return explain(model, data.x, data.y, a="nsl", b="cleverhans3")


@pytest.fixture(scope="module")
def wrong(model: torch.nn.Module, data: Digits) -> int:
    with torch.no_grad():
        return int((model(data.x).argmax(1) != data.y).sum())


def of(explanation: Explanation, name: str) -> FieldEffect:
    (found,) = (effect for effect in explanation.effects if effect.name == name)
    return found


def both(effect: FieldEffect) -> tuple[Measures, Measures]:
    assert effect.from_a is not None
    assert effect.from_b is not None
    return effect.from_a, effect.from_b


def test_only_labels_change_signs(
    explained: Explanation, data: Digits, model: torch.nn.Module, wrong: int
) -> None:
    for effect in explained.effects:
        if effect.name not in ("labels", "norm", "step"):
            assert both(effect)[0].sign_flips == both(effect)[1].sign_flips == 0
    for measures in both(of(explained, "labels")):
        assert measures.examples == wrong
        assert 0.01 < measures.sign_flips < 0.1
        assert 0.2 < measures.relative_l2 < 0.8
    # A pixel that NSL's step of 0.001 leaves where it is by rounding has no sign; no other turns.
    for name, longer in (("norm", Recipe.nsl(adv_grad_norm="infinity")), ("step", Recipe.nsl(0.3))):
        short = explained.a.perturbations["x"]
        long = (attack(model, data.x, data.y, recipe=longer) - data.x).numpy()
        turned = np.sign(short) != np.sign(long)
        assert both(of(explained, name))[0].sign_flips == turned.mean() < 1e-3
        assert (short[turned] == 0).all()
        assert both(of(explained, name))[1].sign_flips == 0


def test_norm_and_step_have_the_size_that_their_formulas_give(explained: Explanation) -> None:
    from_a, from_b = both(of(explained, "step"))
    assert from_a.relative_l2 == pytest.approx(299, rel=1e-4)
    assert from_b.relative_l2 == pytest.approx(1 - 0.001 / 0.3, rel=1e-5)
    assert from_a.cosine == pytest.approx(1, abs=1e-6)
    assert from_b.cosine == pytest.approx(1, abs=1e-6)
    from_a, _ = both(of(explained, "norm"))
    assert from_a.examples == 397
    assert 0.6 < from_a.cosine < 0.85
    # Lengths 8 * 0.001 and 0.001, but for examples under the guard.
    expected = math.sqrt(64 + 1 - 2 * 8 * from_a.cosine)
    assert from_a.relative_l2 == pytest.approx(expected, rel=0.02)


def test_mean_and_sum_differ_by_the_guard_alone(
    explained: Explanation, model: torch.nn.Module, data: Digits
) -> None:
    from_a, from_b = both(of(explained, "reduction"))
    assert from_b == Measures(0.0, 0.0, 1.0, 0, 0.0, 0.0)  # L-inf has no guard
    x = data.x.double().requires_grad_()
    loss = torch.nn.functional.cross_entropy(model.double()(x), data.y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x)
    model.float()
    lengths = gradient.flatten(1).norm(dim=1)
    guarded = int((lengths / len(x) < 1e-6 * (1 - 1e-3)).sum())
    assert from_a.examples == guarded > 0
    assert 0 < from_a.relative_l2 < 0.5


def test_fields_that_these_recipes_do_not_use_change_nothing(explained: Explanation) -> None:
    used = {"norm", "step", "labels", "reduction"}
    for effect in explained.effects:
        if effect.name not in used:
            for measures in both(effect):
                assert (measures.relative_l2, measures.examples, measures.loss) == (0, 0, 0)


def test_path_goes_from_nsl_to_cleverhans(explained: Explanation) -> None:
    names = [step.names for step in explained.path]
    used = [name for (name,) in names if name in ("norm", "step", "reduction", "labels")]
    assert used == ["norm", "step", "reduction", "labels"]
    left = [step.left.relative_l2 for step in explained.path]
    after = dict(zip(names, left, strict=True))
    assert after[("norm",)] == pytest.approx(1 - 0.001 / 0.3, rel=1e-3)
    labels = both(of(explained, "labels"))[1].relative_l2
    assert after[("step",)] == after[("reduction",)] == pytest.approx(labels, rel=1e-6)
    assert after[("labels",)] == 0
    assert left[-1] == 0


@pytest.mark.parametrize("base", ["a", "b"])
def test_clip_and_probabilities(model: torch.nn.Module, data: Digits, base: str) -> None:
    recipe = Recipe.nsl() if base == "a" else Recipe.cleverhans3(eps=0.3)
    clipped = dataclasses.replace(recipe, clip_min=0.0, clip_max=1.0)
    found = explain(model, data.x, data.y, a=recipe, b=clipped, epsilons=())
    assert 0.15 < found.total.sign_flips < 0.4
    assert 0.2 < found.total.relative_l2 < 0.7
    probable = dataclasses.replace(recipe, model_output="probabilities")
    found = explain(model, data.x, data.y, a=recipe, b=probable, epsilons=())
    # Under L2 the rounding of another formula shows everywhere, under L-inf only where signs turn.
    assert found.total.relative_l2 < 0.05
    assert found.total.relative_l2 > 0 or base == "b"
    confident = torch.nn.Sequential(model, Times(3.0))
    sure = explain(confident, data.x, data.y, a=recipe, b=probable, epsilons=())
    dead = (sure.b.perturbations["x"] == 0).reshape(397, -1).all(1).mean()
    assert 0.2 < dead < 0.8


class Times(torch.nn.Module):
    """Logits that are a factor as large: an over-confident model."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, logits: Tensor) -> Tensor:
        return self.factor * logits


@pytest.mark.parametrize("case", DEFAULTS, ids=lambda case: case.name)
def test_ends_are_what_the_originals_gave(
    case: Case, recording: recorded.Recording, models: Converted
) -> None:
    found = judged(case, models.converted(case), models.data(case.model), recording.expected(case))
    assert found.passed, found.comparison.to_text()


@pytest.mark.parametrize("case", DEFAULTS, ids=lambda case: case.name)
def test_the_judge_would_see_the_other_side(
    case: Case, recording: recorded.Recording, models: Converted
) -> None:
    (other,) = (one for one in DEFAULTS if one != case)
    data, expected = models.data(case.model), dict(recording.expected(case))
    expected |= {k: v for k, v in recording.expected(other).items() if k.startswith("adv/")}
    assert not judged(case, models.converted(case), data, expected).passed
