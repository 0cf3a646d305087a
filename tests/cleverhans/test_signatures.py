"""The dialects have their originals' names, parameters, order and defaults, as recorded."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from torchfgsm import nsl
from torchfgsm.cleverhans import tf2, v3
from torchfgsm.cleverhans import torch as cleverhans_torch
from torchfgsm.parity import recorded

DIALECTS = {
    "nsl": nsl,
    "cleverhans3": v3,
    "cleverhans-tf2": tf2,
    "cleverhans-torch": cleverhans_torch,
}
# What the originals have beyond the names that the port mirrors.
NOT_MIRRORED = {("cleverhans-tf2", "compute_gradient"), ("cleverhans-tf2", "random_lp_vector")}
# What stands in place of Keras' compile: keyword-only, after the original's own parameters.
ADDED = {("nsl", "AdversarialRegularization"): ["loss", "loss_weights"]}

RECORDED: dict[str, dict[str, list[list[Any]]]] = recorded.load().facts["signatures"]
NAMES = [
    (library, name)
    for library, found in RECORDED.items()
    for name in found
    if (library, name) not in NOT_MIRRORED
]


def mirrored(library: str, name: str) -> Callable[..., Any]:
    found: Any = DIALECTS[library]
    for part in name.split("."):
        found = getattr(found, part)
    return found  # type: ignore[no-any-return]


@pytest.mark.parametrize(("library", "name"), NAMES, ids=lambda value: str(value))
def test_parameters_and_order(library: str, name: str) -> None:
    ours = list(inspect.signature(mirrored(library, name)).parameters.values())
    theirs = RECORDED[library][name]
    added = ADDED.get((library, name), [])
    assert [p.name for p in ours] == [parameter[0] for parameter in theirs] + added
    assert all(p.kind is p.KEYWORD_ONLY for p in ours if p.name in added)
    assert [p.kind.name for p in ours if p.name not in added] == [p[1] for p in theirs]


@pytest.mark.parametrize(("library", "name"), NAMES, ids=lambda value: str(value))
def test_defaults(library: str, name: str) -> None:
    parameters = inspect.signature(mirrored(library, name)).parameters
    for parameter, _, default in RECORDED[library][name]:
        ours = parameters[parameter].default
        if default is None:
            assert ours is inspect.Parameter.empty, parameter
        elif repr(ours) == "<factory>":
            made = getattr(mirrored(library, name)(), parameter)
            assert type(made).__name__ == default.split("(")[0], parameter
        elif callable(ours):
            # Loss functions and factories have names of their own.
            assert ours.__name__ in (default, default.replace("_with_logits", "")), parameter
        else:
            assert text(ours) == text_of(default), parameter


def text(value: Any) -> str:
    return repr(getattr(value, "value", value))


def text_of(recorded_default: str) -> str:
    """The recorded text with one spelling for each value."""
    spellings = {"0.": "0.0", "1.": "1.0"}
    return spellings.get(recorded_default, recorded_default)
