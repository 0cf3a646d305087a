"""A library's options: which word leads to which, and that nothing is led to a weaker attack."""

from __future__ import annotations

from typing import Any

import pytest

from torchfgsm.libraries.configuration import _ITERATED as ITERATED
from torchfgsm.libraries.configuration import _MEANT as MEANT
from torchfgsm.libraries.configuration import (
    LIBRARIES,
    Configuration,
    attack_options,
    check_library,
    training_options,
)

OWN = {name: {*attack_options(name), *training_options(name)} for name in LIBRARIES}


@pytest.mark.parametrize(
    ("library", "options", "says"),
    [
        ("nsl", {"eps": 0.1}, "'eps': did you mean 'adv_step_size'?"),
        ("nsl", {"eps": 0.1, "pgd_iterations": 3}, "'eps': did you mean 'pgd_epsilon'?"),
        ("nsl", {"eps_iter": 0.1, "pgd_iterations": 3}, "did you mean 'adv_step_size'?"),
        ("nsl", {"nb_iter": 3}, "did you mean 'pgd_iterations'?"),
        ("nsl", {"ord": 2}, "did you mean 'adv_grad_norm'?"),
        ("cleverhans3", {"adv_step_size": 0.1}, "did you mean 'eps'?"),
        ("cleverhans3", {"adv_step_size": 0.1, "nb_iter": 3}, "did you mean 'eps_iter'?"),
        ("cleverhans3", {"adv_grad_norm": "l2"}, "did you mean 'ord'?"),
        ("cleverhans3", {"pgd_epsilon": 0.1}, "did you mean 'eps'?"),
        ("cleverhans-tf2", {"ord": 2}, "did you mean 'norm'?"),
        ("cleverhans-torch", {"rand_init_eps": 2}, "did you mean 'rand_minmax'?"),
        ("nsl", {"epsilon": 0.1}, "'epsilon': did you mean 'adv_step_size'?"),
        ("nsl", {"epsilon": 0.1, "pgd_iterations": 3}, "did you mean 'pgd_epsilon'?"),
        ("nsl", {"radius": 0.1}, "did you mean 'adv_step_size'?"),
        ("cleverhans3", {"epsilon": 0.1, "nb_iter": 3}, "did you mean 'eps'?"),
        ("cleverhans-tf2", {"epsilon": 0.1, "norm": 2}, "did you mean 'eps'?"),
        ("nsl", {"adv_stepsize": 2}, "did you mean 'adv_step_size'?"),
    ],
)
def test_another_word_leads_to_the_librarys_own(
    library: str, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the text is looked at below
        Configuration.of(library, options)
    assert str(caught.value).endswith(says)


@pytest.mark.parametrize("words", [MEANT, ITERATED])
def test_every_word_leads_to_what_some_library_has_and_another_has_not(words: Any) -> None:
    for word, meant in words.items():
        for name in meant:
            assert [library for library in LIBRARIES if name in OWN[library]], name
            assert [library for library in LIBRARIES if word not in OWN[library]], word


@pytest.mark.parametrize("name", ["cleverhans4", "CleverHans4", "cleverhans-4", "ch4"])
def test_cleverhans_4_is_two_ports(name: str) -> None:
    says = f"unknown library '{name}': did you mean 'cleverhans-tf2' or 'cleverhans-torch'\\?"
    with pytest.raises(ValueError, match=says):
        Configuration.of(name)
    with pytest.raises(ValueError, match="'cleverhans3', 'cleverhans-tf2' or 'cleverhans-torch'"):
        check_library("cleverhans")
