"""One library's configuration in the words of another: `torchfgsm.translate`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torchfgsm.core.recipe import Recipe
from torchfgsm.libraries.configuration import (
    TITLES,
    Configuration,
    attack_options,
    check_library,
    training_options,
)
from torchfgsm.translation import code_cleverhans3, code_cleverhans4, code_nsl
from torchfgsm.translation.entries import Entry, Question
from torchfgsm.translation.limits import refusals
from torchfgsm.translation.options import options_of
from torchfgsm.translation.original_call import Call
from torchfgsm.translation.reach import is_random
from torchfgsm.translation.reading import Source, TranslationError, read
from torchfgsm.translation.table import LOGITS, TABLE
from torchfgsm.translation.training import Training, batch_size_in_rate, training_of


@dataclass(frozen=True)
class Settled:
    """A field on which the recipes differ, and the entry that settles it."""

    field: str
    entry: Entry


def settle(question: Question) -> tuple[list[Settled], list[Settled]]:
    """The fields that are settled, and those that are refused."""
    settled: list[Settled] = []
    refusals: list[Settled] = []
    for field in question.source.diff(question.target):
        fallback = Entry("refused", f"{TITLES[question.to]} has no option for it")
        entry = next((e for e in TABLE[field] if e.applies(question)), fallback)
        (refusals if entry.how == "refused" else settled).append(Settled(field, entry))
    return settled, refusals


_LINES: Mapping[str, Callable[[Call], list[str]]] = MappingProxyType(
    {
        "nsl": code_nsl.lines,
        "cleverhans3": code_cleverhans3.lines,
        "cleverhans-tf2": code_cleverhans4.tf2_lines,
        "cleverhans-torch": code_cleverhans4.torch_lines,
    }
)


def code_of(call: Call) -> str:
    """The text of a call; see `Translation.code`."""
    return "\n".join(_LINES[call.library](call)) + "\n"


_MASK = (
    "Give the attack a model that lets only the masked part of the gradient through, as the code "
    "does: CleverHans has no feature_mask"
)
_ONE_INPUT = "The model has one input"
_DRAWS = "Random starts have the same law, but each library makes its own draws"
_TORCH_L1 = (
    "No example's gradient is all zero: CleverHans 4's torch port raises AssertionError on one "
    "under L1, and on some ties"
)


@dataclass(frozen=True)
class Translation:
    """A configuration in the words of another library.

    Translating `target` back gives a recipe of the same effect. Two things do not come back,
    because no option of CleverHans stands for them: NSL's feature mask, and that its attack takes
    smoothed labels.

    Attributes:
        source: What was translated.
        target: The other library's configuration: its own options, and as fields of its recipe what
            is done outside of them.
        code: Python text that calls the original; `model`, `x` and `y` (class numbers, or the
            targets) are the caller's, and `mask` where the source has one.
        outside: What must be done outside of the configuration. The code does it where it can.
        conditions: What must hold for the two to be equal.
        idle: Fields that still differ, each with the reason why it has no effect here.
    """

    source: Configuration
    target: Configuration
    code: str
    outside: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()

    @property
    def recipe(self) -> Recipe:
        """The target's recipe after the steps outside; it makes the source's perturbation."""
        return self.target.recipe

    def __str__(self) -> str:
        """The same as `to_text`."""
        return self.to_text()

    def to_text(self) -> str:
        """The call, what to do outside of it and what must hold; not what has no effect."""
        parts = [f"{self.source.title} in {self.target.title}:", "", self.code]
        for heading, lines in (
            ("Outside of the configuration:", self.outside),
            ("Equal provided that:", self.conditions),
        ):
            if lines:
                parts += [heading, *(f"- {line}" for line in lines), ""]
        return "\n".join(parts).rstrip()

    def to_dict(self) -> dict[str, Any]:
        """The translation as JSON values; infinite numbers as text."""
        return {
            **{
                side: {
                    "library": c.library,
                    "options": {n: _plain(v) for n, v in c.options.items()},
                }
                for side, c in (("source", self.source), ("target", self.target))
            },
            "code": self.code,
            "outside": list(self.outside),
            "conditions": list(self.conditions),
            "idle": list(self.idle),
        }


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)


def translate(
    config: object | Mapping[str, Any], to: str = "cleverhans3", *, source: str | None = None
) -> Translation:
    """A library's configuration in the words of another library.

    Args:
        config: A `Configuration`; NSL's AdvRegConfig or AdvNeighborConfig, of `torchfgsm.nsl` or
            the original's; or a mapping of one library's keywords, and of fields of `Recipe` for
            what lies outside of them, as `Configuration.of` takes it. The training loss is
            translated too where options of it are among them. A targeted configuration has its
            targets given.
        to: The other library, one of "nsl", "cleverhans3", "cleverhans-tf2" and "cleverhans-torch".
        source: The library of a mapping; None: the only one that has these names.

    Returns:
        The translation.

    Raises:
        TranslationError: No configuration of the other library does the same.
        TypeError: Something else than a configuration.
        ValueError: An unknown library or option, or a value that the library refuses.
    """
    check_library(to)
    given = _with_targets(read(config, source))
    configuration = given.configuration
    if configuration.library == to:
        raise TranslationError(f"this is a configuration of {TITLES[to]} already")
    reasons = refusals(given, to)
    if reasons:
        raise TranslationError(_refusal(configuration, to, reasons))
    training = training_of(given, to)
    options = {**options_of(configuration.recipe, to), **training.options}
    target = Configuration.of(to, options)
    question = Question(
        configuration.recipe, target.recipe, configuration.library, to, trains=given.trains
    )
    settled, refused = settle(question)
    if refused:
        reasons = [f"{s.field}: {s.entry.says}" for s in refused]
        raise TranslationError(_refusal(configuration, to, list(dict.fromkeys(reasons))))
    done = [s for s in settled if s.entry.how == "outside"]
    adopted = {s.field: getattr(configuration.recipe, s.field) for s in done}
    target = Configuration.of(to, {**options, **adopted})
    return Translation(
        source=configuration,
        target=target,
        code=code_of(_call(given, target, training)),
        outside=_outside(given, target, done, training),
        conditions=_conditions(given, target, settled, training),
        idle=tuple(f"{s.field}: {s.entry.says}" for s in settled if s.entry.how == "idle"),
    )


def _with_targets(source: Source) -> Source:
    """A targeted recipe takes labels, whatever it would do without: they are the targets."""
    configuration = source.configuration
    if not configuration.recipe.targeted or configuration.recipe.labels == "given":
        return source
    recipe = dataclasses.replace(configuration.recipe, labels="given")
    return dataclasses.replace(
        source, configuration=dataclasses.replace(configuration, recipe=recipe)
    )


def _refusal(source: Configuration, to: str, reasons: list[str]) -> str:
    what = f"no configuration of {TITLES[to]} does what this one of {source.title} does"
    return f"{what}: {'; '.join(reasons)}"


def _call(source: Source, target: Configuration, training: Training) -> Call:
    names = {*attack_options(target.library), *training_options(target.library)}
    own = {name: value for name, value in target.options.items() if name in names}
    return Call(
        library=target.library,
        options=own,
        recipe=target.recipe,
        masked=source.masked,
        smoothing=training.smoothing,
        attack_smoothing=training.attack_smoothing,
        weights=training.weights,
    )


def _outside(
    source: Source, target: Configuration, done: list[Settled], training: Training
) -> tuple[str, ...]:
    found = [s.entry.says for s in done]
    configuration = source.configuration
    if (
        configuration.library == "nsl"
        and configuration.recipe.model_output == "logits"
        and LOGITS not in found
    ):
        found.append(LOGITS)
    if source.masked:
        found.append(_MASK)
    return (*found, *training.outside, *batch_size_in_rate(source, target))


def _conditions(
    source: Source, target: Configuration, settled: list[Settled], training: Training
) -> tuple[str, ...]:
    found = [*source.conditions, *(s.entry.says for s in settled if s.entry.how == "condition")]
    if source.configuration.library in ("nsl", ""):
        found.append(_ONE_INPUT)
    if is_random(target.recipe):
        found.append(_DRAWS)
    if target.library == "cleverhans-torch" and target.recipe.norm == "l1":
        found.append(_TORCH_L1)
    return tuple(dict.fromkeys((*found, *training.conditions)))
