"""The two weightings of clean and adversarial loss, and the way between them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchfgsm import Weighting


def test_each_librarys_own_weights_and_defaults() -> None:
    assert Weighting.from_nsl() == Weighting(1.0, 0.2)
    assert Weighting.from_nsl(3) == Weighting(1.0, 3.0)
    assert Weighting.from_cleverhans() == Weighting(0.5, 0.5)
    assert Weighting.from_cleverhans(0.25) == Weighting(0.75, 0.25)
    assert Weighting.from_cleverhans(1.5) == Weighting(-0.5, 1.5)  # accepted by the original


@pytest.mark.parametrize("adv_coeff", [0.0, 0.1, 0.3, 0.5, 0.9, 1.5])
def test_multiplier_is_a_over_1_minus_a(adv_coeff: float) -> None:
    weighting = Weighting.from_cleverhans(adv_coeff)
    multiplier = weighting.to_nsl()
    assert multiplier == pytest.approx(adv_coeff / (1 - adv_coeff))
    # NSL's loss is CleverHans' divided by 1 - a.
    clean, adversarial = 1.7, 2.9
    nsl = Weighting.from_nsl(multiplier).combine(clean, adversarial)
    assert nsl * (1 - adv_coeff) == pytest.approx(weighting.combine(clean, adversarial))


@settings(deadline=None, derandomize=True)
@given(st.floats(0, 0.99))
def test_round_trip_by_nsl(adv_coeff: float) -> None:
    multiplier = Weighting.from_cleverhans(adv_coeff).to_nsl()
    assert Weighting.from_nsl(multiplier).to_cleverhans() == pytest.approx(adv_coeff, abs=1e-12)


@settings(deadline=None, derandomize=True)
@given(st.floats(-0.9, 100))
def test_round_trip_by_cleverhans(multiplier: float) -> None:
    adv_coeff = Weighting.from_nsl(multiplier).to_cleverhans()
    assert Weighting.from_cleverhans(adv_coeff).to_nsl() == pytest.approx(multiplier, abs=1e-9)


def test_what_the_other_library_cannot_say_is_refused_with_the_reason() -> None:
    only = Weighting.from_cleverhans(1.0)
    with pytest.raises(ValueError, match=r"adversarial examples only.*no NSL multiplier"):
        only.to_nsl()
    assert only.to_cleverhans() == 1.0
    with pytest.raises(ValueError, match="cancel"):
        Weighting(1.0, -1.0).to_cleverhans()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_are_finite_numbers(bad: float) -> None:
    with pytest.raises(ValueError, match=r"Weighting\.clean must be a finite number"):
        Weighting(bad, 1.0)
    with pytest.raises(ValueError, match=r"Weighting\.adversarial must be a finite number"):
        Weighting.from_nsl(bad)


def test_combine_tensors_and_leave_out_a_clean_loss_of_weight_0() -> None:
    clean = torch.tensor(2.0, requires_grad=True)
    adversarial = torch.tensor(3.0, requires_grad=True)
    loss = Weighting(0.25, 0.75).combine(clean, adversarial)
    assert loss.item() == 2.75
    assert [g.item() for g in torch.autograd.grad(loss, [clean, adversarial])] == [0.25, 0.75]
    assert Weighting.from_cleverhans(1.0).combine(None, adversarial).item() == 3.0
    with pytest.raises(ValueError, match=r"weight 0\.5 but was not given"):
        Weighting.from_cleverhans(0.5).combine(None, adversarial)
