"""The training loss of a library in the terms of another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torchfgsm.libraries.configuration import TITLES, Configuration
from torchfgsm.translation.reading import Source, TranslationError

_OTHERWISE = (
    "Nothing in the model behaves differently in training (no dropout, no BatchNormalization): NSL "
    "attacks the model in training mode, CleverHans in inference mode"
)


@dataclass(frozen=True)
class Training:
    """What the training loss adds to a translation.

    Attributes:
        options: The target library's own options.
        outside: What is done outside of the configuration.
        conditions: What must hold.
        attack_smoothing: The share of the label smoothing in the labels that the attack takes.
        weights: Factors of the clean and the adversarial loss; None: there is no training loss.
        smoothing: Label smoothing of the training loss.
    """

    options: dict[str, Any] = field(default_factory=dict)
    outside: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    attack_smoothing: float = 0.0
    weights: tuple[float, float] | None = None
    smoothing: float = 0.0


def training_of(source: Source, to: str) -> Training:
    """The training loss of the source in the target library.

    Raises:
        TranslationError: No options of the library give the same loss.
    """
    if not source.trains:
        return Training()
    configuration = source.configuration
    weighting, smoothing = configuration.weighting, configuration.label_smoothing
    if weighting is None:
        return Training()
    from_nsl = configuration.library == "nsl"
    attack_smoothing = smoothing if from_nsl else 0.0
    weights = (weighting.clean, weighting.adversarial)
    if to == "nsl":
        return _to_nsl(weights, smoothing)
    if to == "cleverhans3":
        return _to_cleverhans3(weights, smoothing)
    outside = [
        f"{TITLES[to]} has no training loss: add the two losses up yourself, as the code does"
    ]
    if to == "cleverhans-torch":
        outside.append(
            "Clear the parameters' gradients between the attack and the backward pass: the attack "
            "adds to them"
        )
    if attack_smoothing:
        outside.append("Smooth the labels of the attack too, as NSL does")
    return Training({}, tuple(outside), (_OTHERWISE,), attack_smoothing, weights, smoothing)


def _to_nsl(weights: tuple[float, float], smoothing: float) -> Training:
    clean, adversarial = weights
    if clean == 0:
        raise TranslationError(
            "adv_coeff=1 trains on adversarial examples alone, and NSL always adds the clean loss "
            "with weight 1: no multiplier does that"
        )
    if clean < 0:
        raise TranslationError(
            f"adv_coeff={adversarial:g} weighs the clean loss with {clean:g}, and NSL with 1: no "
            "multiplier has that sign"
        )
    if smoothing:
        raise TranslationError(
            f"smoothing={smoothing:g}: CleverHans smooths the labels after the attack, NSL attacks "
            "the smoothed labels that it trains on"
        )
    options = {"multiplier": adversarial / clean}
    return Training(options, _rate(clean), (_OTHERWISE,), weights=(1.0, adversarial / clean))


def _to_cleverhans3(weights: tuple[float, float], smoothing: float) -> Training:
    clean, adversarial = weights
    total = clean + adversarial
    if total <= 0:
        raise TranslationError(
            f"multiplier={adversarial:g} makes the weights add up to {total:g}, and CleverHans' "
            "add up to 1: no adv_coeff has their ratio and sign"
        )
    options: dict[str, Any] = {"adv_coeff": adversarial / total}
    outside = _rate(total)
    if smoothing:
        options["smoothing"] = smoothing
        outside += (
            "Give the attack the smoothed labels in attack_params, without pass_y: CleverHans "
            "smooths them after the attack, NSL before",
        )
    else:
        options["pass_y"] = True
    coefficient = adversarial / total
    return Training(
        options, outside, (_OTHERWISE,), smoothing, (1 - coefficient, coefficient), smoothing
    )


def batch_size_in_rate(source: Source, target: Configuration) -> tuple[str, ...]:
    """How the learning rate makes up for NSL's loss where it is the sum over the batch.

    The Keras loss is that of the attack and of the training alike.
    """
    before, after = (
        c.library == "nsl" and c.recipe.reduction == "sum" for c in (source.configuration, target)
    )
    if not source.trains or before == after:
        return ()
    verb = "Multiply" if before else "Divide"
    return (
        f"{verb} the learning rate by the batch size too, but for Adam: a Keras loss with "
        'reduction="sum" is the sum over the batch in training as well',
    )


def _rate(factor: float) -> tuple[str, ...]:
    """How the learning rate makes up for a training loss that is 1 / factor times the source's."""
    if factor == 1:
        return ()
    return (
        f"Multiply the learning rate by {factor:.6g} with SGD, with or without momentum: this "
        f"training loss is {1 / factor:.6g} times the other; with Adam leave the rate as it is "
        "(its epsilon alone counts differently)",
    )
