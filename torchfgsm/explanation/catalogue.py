"""What every choice does in every library, in sentences, with the original's function and paper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchfgsm.explanation.choice import ANY, FGM, KERAS, Choice, origins
from torchfgsm.explanation.gradient_choices import GRADIENT_CHOICES, LOSS_CHOICES
from torchfgsm.explanation.step_choices import STEP_CHOICES

_NO_LOSS = (FGM, "CleverHans 4 has no training loss")
_CROSS_ENTROPY = "loss.CrossEntropy.fprop"

RECIPE_CHOICES: Mapping[str, Choice] = {**LOSS_CHOICES, **GRADIENT_CHOICES, **STEP_CHOICES}
"""One for each field of `Recipe`."""

TRAINING_CHOICES: Mapping[str, Choice] = {
    "weighting": Choice(
        {ANY: "the clean and the adversarial loss are weighted {}"},
        origins(
            (f"{KERAS}.call", "NSL's are 1 and `multiplier`"),
            (_CROSS_ENTROPY, "CleverHans 3's are 1 - `adv_coeff` and `adv_coeff`"),
            _NO_LOSS,
            _NO_LOSS,
        ),
    ),
    "label_smoothing": Choice(
        {
            0.0: "labels are taken as they are",
            ANY: "a share of {} of each label is spread over all classes",
        },
        origins(
            (f"{KERAS}._compute_total_loss", "NSL takes the Keras loss's `label_smoothing`"),
            (_CROSS_ENTROPY, "CleverHans 3's `smoothing`, in both terms of the loss"),
            _NO_LOSS,
            _NO_LOSS,
        ),
    ),
    "smoothed_attack": Choice(
        {
            True: "the attack takes the smoothed labels",
            False: "the attack takes labels without smoothing",
        },
        origins(
            (f"{KERAS}.call", "NSL attacks the training loss itself"),
            (_CROSS_ENTROPY, "CleverHans 3 smooths after the attack"),
            _NO_LOSS,
            _NO_LOSS,
        ),
    ),
    "sample_weight": Choice(
        {
            "given": "the losses of the examples are weighted and divided by their number",
            None: "all examples count alike",
        },
        origins(
            (f"{KERAS}.call", "NSL takes weights by `sample_weight_key`, in the attack too"),
            (_CROSS_ENTROPY, "CleverHans 3 knows no sample weights"),
            _NO_LOSS,
            _NO_LOSS,
        ),
    ),
}
"""One for each choice of a training loss that is no field of `Recipe`."""

CATALOGUE: Mapping[str, Choice] = {**RECIPE_CHOICES, **TRAINING_CHOICES}


def sentence(name: str, library: str, value: Any) -> str:
    """What a value does.

    Args:
        name: The field of `Recipe`, or the choice of the training loss.
        library: One of `configuration.LIBRARIES`, or "" for a recipe of its own.
        value: The value.
    """
    return CATALOGUE[name].sentence(library, value)


def source(name: str, library: str, value: Any) -> str:
    """The original's function that decides a choice, and the paper if any; as `sentence`."""
    return CATALOGUE[name].source(library, value)
