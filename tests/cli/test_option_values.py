"""`name=value` of the command line."""

from __future__ import annotations

import math

import pytest

from torchfgsm.cli.inputs.option_values import parsed


def test_values_of_every_kind() -> None:
    items = [
        "eps=0.1", "nb_iter=3", "ord=inf", "low=-inf", "rand_init=true", "clip_min=None",
        "adv_grad_norm=infinity", "quoted='a b'", "pair=(1, 2)", "broken=(1,", "word=a=b",
    ]  # fmt: skip
    assert parsed(items) == {
        "eps": 0.1, "nb_iter": 3, "ord": math.inf, "low": -math.inf, "rand_init": True,
        "clip_min": None, "adv_grad_norm": "infinity", "quoted": "a b", "pair": (1, 2),
        "broken": "(1,", "word": "a=b",
    }  # fmt: skip
    fractions = ["eps=8/255", "step=1e-1/2", "folder=a/b", "none=1/0", "low=-1/4", "high=np.inf"]
    assert parsed([*fractions, "least=-numpy.inf", "list=[1, 2]"]) == {
        "eps": 8 / 255, "step": 0.05, "folder": "a/b", "none": "1/0", "low": -0.25,
        "high": math.inf, "least": -math.inf, "list": [1, 2],
    }  # fmt: skip
    assert parsed([]) == {}


@pytest.mark.parametrize("item", ["eps", "=1", "eps=", "a b=1", ""])
def test_an_item_that_is_none(item: str) -> None:
    with pytest.raises(ValueError, match=r"expected name=value, such as eps=0\.1, got"):
        parsed([item])


def test_a_name_that_comes_twice() -> None:
    with pytest.raises(ValueError, match="eps is given twice: as 1 and in 'eps=2'"):
        parsed(["eps=1", "eps=2"])


@pytest.mark.parametrize(
    "item", ["eps=0.1,norm=inf", "eps=0.1, norm = inf", "eps=0.1,", "eps=8/255;nb_iter=3"]
)
def test_items_that_are_not_separated_by_spaces(item: str) -> None:
    with pytest.raises(ValueError, match=r"separate options by spaces, as in eps=0\.1 nb_iter=3"):
        parsed([item])
