"""Translations between the libraries: what settles each field, what is refused, what is read."""

from __future__ import annotations

import ast
import dataclasses
import random
from typing import Any

import pytest
import torch
from torch import nn
from translation_runs import Drawn, drawn

from torchfgsm import Recipe, attack
from torchfgsm.libraries.configuration import LIBRARIES, Configuration
from torchfgsm.translation import TranslationError, translate
from torchfgsm.translation.limits import LIMITS
from torchfgsm.translation.table import TABLE

pytestmark = pytest.mark.usefixtures("one_thread")
FIELDS = [field.name for field in dataclasses.fields(Recipe)]
INF = float("inf")


def draws(seed: int, count: int) -> list[Drawn]:
    rng = random.Random(seed)
    return [drawn(rng) for _ in range(count)]


def refusal(options: dict[str, Any], to: str, source: str) -> str:
    with pytest.raises(TranslationError) as caught:
        translate(options, to=to, source=source)
    return str(caught.value)


@pytest.mark.parametrize("to", LIBRARIES)
@pytest.mark.parametrize("field", FIELDS)
def test_every_field_has_an_entry_for_every_library(field: str, to: str) -> None:
    assert [entry for entry in TABLE[field] if to in entry.to]


def test_the_table_has_no_other_fields() -> None:
    assert list(TABLE) == FIELDS


# Options, the library that they are translated to, and what the refusal says.
ITERATED = {"eps": 0.3, "eps_iter": 0.1, "nb_iter": 5, "rand_init": False}
REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("cleverhans3", {**ITERATED, "ord": 2, "clip_min": 0.0, "clip_max": 1.0}, "nsl", "order: iter"),
    ("nsl", {"adv_step_size": None}, "cleverhans3", "length of a step is not a number"),
    ("nsl", {"adv_grad_norm": "l1", "pgd_epsilon": 1.0}, "cleverhans3", "pgd_epsilon under L1"),
    ("nsl", {"adv_grad_norm": "l1", "pgd_iterations": 2}, "cleverhans-tf2", "does not take norm 1"),
    ("nsl", {"pgd_epsilon": 1e-4}, "cleverhans3", "eps_iter > eps"),
    ("cleverhans3", {"nb_iter": 3, "eps_iter": 0.5}, "nsl", "eps_iter > eps"),
    ("nsl", {"pgd_epsilon": 1e-4, "adv_step_size": -1.0}, "cleverhans-torch", "eps_iter > eps"),
    (
        "cleverhans3",
        {"eps": 0.0, "clip_min": 0.0, "clip_max": 1.0},
        "cleverhans-torch",
        "gives x itself",
    ),
    ("cleverhans3", {"eps": -0.1}, "cleverhans-torch", "takes no negative eps"),
    ("cleverhans3", {"targeted": True, "adv_coeff": 0.3}, "nsl", "inside of a training loss"),
    ("cleverhans3", {"adv_coeff": 0.3}, "nsl", "labels: NSL attacks the labels that it trains on"),
    ("cleverhans3", {"adv_coeff": 1.0, "pass_y": True}, "nsl", "adv_coeff=1 trains on adversarial"),
    ("cleverhans3", {"adv_coeff": 1.5, "pass_y": True}, "nsl", "no multiplier has that sign"),
    ("cleverhans3", {"smoothing": 0.1, "pass_y": True}, "nsl", "after the attack"),
    ("nsl", {"multiplier": -2.0}, "cleverhans3", "no adv_coeff has their ratio"),
    ("cleverhans3", {"ord": 2, "pass_y": True}, "nsl", "through_perturbation: CleverHans' train"),
    ("cleverhans3", {"nb_iter": 5, "rand_init_eps": 0.1}, "nsl", "random_radius: NSL draws"),
    (
        "cleverhans-torch",
        {"eps": 0.3, "eps_iter": 0.1, "nb_iter": 3, "norm": 2},
        "cleverhans3",
        "random_start: the random start has another law",
    ),
    (
        "cleverhans3",
        {"ord": 2, "clip_min": 0.0, "clip_max": 1.0, "clip_grad": True},
        "cleverhans-tf2",
        "clip_grad: only CleverHans 3",
    ),
    (
        "nsl",
        {"clip_value_min": 1.0, "clip_value_max": 0.0},
        "cleverhans-tf2",
        "crossed_clip: where the bounds cross",
    ),
    ("cleverhans3", {"clip_min": 0.0}, "nsl", "one_sided_clip: CleverHans refuses"),
    ("nsl", {"guard": 0.0}, "cleverhans3", "guard: the guard under the L2 norm is fixed"),
    ("nsl", {"model_mode": "keep"}, "cleverhans3", "model_mode: this library does not attack"),
]


@pytest.mark.parametrize(("source", "options", "to", "says"), REFUSED)
def test_refusals_say_why(source: str, options: dict[str, Any], to: str, says: str) -> None:
    message = refusal(options, to, source)
    assert says in message
    assert message.startswith("no configuration of") or "\n" not in message


def test_every_limit_is_tested() -> None:
    messages = [refusal(options, to, source) for source, options, to, _ in REFUSED]
    for _, reason in LIMITS:
        assert any(reason in message for message in messages), reason


# What drawn configurations have no place for.
OTHERS: list[tuple[str, dict[str, Any], str]] = [
    ("nsl", {"zero_gradient": "refuse", "missing_gradient": "refuse"}, "cleverhans3"),
    ("nsl", {"model_output": "probabilities"}, "cleverhans-tf2"),
    ("cleverhans3", {"model_output": "probabilities"}, "nsl"),
    ("nsl", {"guard": 0.0, "adv_grad_norm": "infinity"}, "cleverhans3"),
    ("nsl", {"multiplier": 0.3}, "cleverhans3"),
    ("nsl", {"multiplier": 0.3, "adv_grad_norm": "infinity"}, "cleverhans3"),
    ("cleverhans3", {"nb_iter": 0, "rand_init": False}, "nsl"),
    ("cleverhans3", {"nb_iter": 3, "rand_init_eps": 0.0}, "nsl"),
    ("nsl", {"random_init": True, "pgd_iterations": 2}, "cleverhans3"),
    ("nsl", {"adv_grad_norm": "infinity", "pgd_epsilon": 1e-4}, "cleverhans3"),
    ("nsl", {"pgd_iterations": 3}, "cleverhans3"),
    ("cleverhans-torch", {"eps": 0.1, "norm": 2}, "nsl"),
    ("cleverhans-torch", {"eps": 0.1, "norm": INF}, "cleverhans-tf2"),
]


def test_every_entry_is_used_or_a_last_resort() -> None:
    said = set()
    for one in draws(3, 600):
        try:
            found = one.translation()
        except TranslationError:
            continue
        said |= {*found.outside, *found.conditions, *found.idle}
    for source, options, to in OTHERS:
        found = translate(options, to=to, source=source)
        said |= {*found.outside, *found.conditions, *found.idle}
    text = "\n".join([*said, *(refusal(o, to, source) for source, o, to, _ in REFUSED)])
    unused = {e.says for entries in TABLE.values() for e in entries if e.says not in text}
    # The writers of options never leave these, which stand for what they might.
    assert all(says.startswith("this library ") for says in unused), unused


OUTSIDE: list[tuple[str, dict[str, Any], str, tuple[str, ...]]] = [
    ("nsl", {"adv_grad_norm": "infinity"}, "cleverhans3", ("Pass y, the labels", "returns logits")),
    ("nsl", {}, "cleverhans3", ("loss_fn that takes the mean",)),
    ("cleverhans3", {"ord": 2}, "nsl", ('reduction="sum"', "model's own prediction")),
    ("cleverhans3", {"ord": 2}, "cleverhans-torch", ("batches of one", "model.eval()")),
    ("cleverhans3", {"targeted": True}, "cleverhans-tf2", ("Pass y, the targets",)),
    ("cleverhans-tf2", {"eps": 1, "norm": 2, "targeted": True}, "cleverhans3", ("y_target",)),
    ("nsl", {"multiplier": 0.25}, "cleverhans3", ("rate by 1.25", "Stop the gradient")),
    ("cleverhans3", {"adv_coeff": 0.5, "pass_y": True}, "nsl", ("rate by 0.5", "with Adam leave")),
    (
        "cleverhans3",
        {"ord": 2, "pass_y": True, "through_perturbation": False},
        "nsl",
        ("Divide the learning rate by the batch size",),
    ),
    ("nsl", {"label_smoothing": 0.1}, "cleverhans3", ("smoothed labels in attack_params",)),
    ("nsl", {"multiplier": 0.2}, "cleverhans-torch", ("has no training loss", "Clear the param")),
    ("nsl", {"feature_mask": 0.5}, "cleverhans-tf2", ("masked part of the gradient",)),
]


@pytest.mark.parametrize(("source", "options", "to", "says"), OUTSIDE)
def test_what_is_outside_of_the_configuration_is_said(
    source: str, options: dict[str, Any], to: str, says: tuple[str, ...]
) -> None:
    steps = "\n".join(translate(options, to=to, source=source).outside)
    for words in says:
        assert words in steps


def test_no_step_is_asked_for_where_none_is_needed() -> None:
    options = {"eps": 0.4, "labels": "given"}
    found = translate(options, to="cleverhans-tf2", source="cleverhans3")
    assert found.outside == ("Pass y, the labels: without them CleverHans attacks the model's own "
                             "prediction",)  # fmt: skip
    assert translate({"eps": 0.3, "norm": INF}, source="cleverhans-tf2").outside == ()


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.first = nn.Parameter(torch.randn(6, 8, generator=generator, dtype=torch.float64))
        self.second = nn.Parameter(3 * torch.randn(8, 4, generator=generator, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x @ self.first) @ self.second


def test_there_and_back_are_the_same_perturbation() -> None:
    """By the port, which equals each original; the originals themselves are run elsewhere."""
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(16, 6, generator=generator, dtype=torch.float64)
    y = torch.randint(4, (16,), generator=generator)
    masks = {"": None, "feature_mask": (torch.arange(6) % 2).double()}
    masks["fractional_mask"] = torch.linspace(0, 1, 6, dtype=torch.float64)
    model = Model().eval()
    compared = 0
    for one in draws(1, 250):
        try:
            there = one.translation()
        except TranslationError:
            continue
        back = translate(there.target, to=one.library)
        labels = None if there.source.recipe.labels == "predicted" else y
        found = [
            attack(
                model, x, labels, recipe=recipe, mask=masks[one.mask],
                generator=torch.Generator().manual_seed(6),
            )
            for recipe in (there.source.recipe, there.recipe, back.recipe)
        ]  # fmt: skip
        assert (found[0] - x).abs().max() > 0
        recipe = there.source.recipe
        if recipe.random_start != "none" and not recipe.epsilon and (recipe.step or 0) < 0:
            continue  # the radius is negative too: the same law, mirrored draws
        for other in found[1:]:
            torch.testing.assert_close(other, found[0], rtol=0, atol=1e-12, msg=str(one))
        compared += 1
    assert compared > 120


def test_a_refused_clip_of_iterated_l2_steps_does_differ() -> None:
    x = torch.rand(16, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    y = torch.arange(16) % 4
    options = {"eps": 1.0, "eps_iter": 0.5, "nb_iter": 5, "ord": 2, "rand_init": False}
    theirs = Configuration.of("cleverhans3", {**options, "clip_min": 0.0, "clip_max": 1.0}).recipe
    ours = dataclasses.replace(theirs, order="project_clip")
    found = [attack(Model(), x, y, recipe=recipe) for recipe in (theirs, ours)]
    assert (found[0] - found[1]).abs().max() > 0.01


def test_every_text_is_python_and_says_what_is_not_default() -> None:
    for one in draws(2, 300):
        try:
            found = one.translation()
        except TranslationError:
            continue
        ast.parse(found.code)
        assert all(len(line) <= 100 for line in found.code.splitlines())
        own = [n for n in found.target.options if n not in FIELDS or n in ("clip_min", "clip_max")]
        for name in own:
            assert name == "targeted" or f"{name}=" in found.code, (name, found.code)


def test_a_translation_of_the_readme() -> None:
    found = translate({"adv_step_size": 0.1, "adv_grad_norm": "infinity"}, to="cleverhans3")
    assert found.target.options == {"eps": 0.1, "labels": "given"}
    assert found.source.library == "nsl"
    assert found.recipe == found.target.recipe
    assert "x_adv = attack.generate(x, y=labels, eps=0.1)\n" in found.code
