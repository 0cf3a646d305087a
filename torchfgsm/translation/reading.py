"""What is to be translated, read as a `Configuration`; the error where it cannot be."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from torchfgsm.core.recipe import Recipe
from torchfgsm.libraries.configuration import (
    LIBRARIES,
    Configuration,
    attack_options,
    check_library,
    check_name,
    training_options,
)


class TranslationError(ValueError):
    """No configuration of the other library does the same; the message says why."""


_BOUNDS = ("clip_value_min", "clip_value_max")
_NSL_NUMBERS = ("adv_step_size", "pgd_epsilon")
_NSL_NAMES = (*_NSL_NUMBERS, "adv_grad_norm", "pgd_iterations", "random_init")
_BY_NAME = (
    "NSL looks its bounds up by the name of the feature: inside of AdversarialRegularization, "
    "whose features are a dict, a bound that is a plain number is ignored"
)


@dataclass(frozen=True)
class Source:
    """What is to be translated.

    Attributes:
        configuration: The library's configuration.
        masked: Whether NSL's `feature_mask` is set; its values are not needed.
        trains: Whether options of the training loss were given.
        conditions: What must hold for the configuration to mean what it says.
    """

    configuration: Configuration
    masked: bool = False
    trains: bool = False
    conditions: tuple[str, ...] = ()


def read(config: object, library: str | None) -> Source:
    """Reads a `Configuration`, NSL's configuration objects, or keywords.

    Args:
        config: See `torchfgsm.translate`.
        library: The library of a mapping; None: the only one that has these names.

    Raises:
        TranslationError: Several features, or a length or bound that is not one number.
        TypeError: Something else than these.
        ValueError: An unknown library or option, or names that several libraries have.
    """
    if isinstance(config, Configuration):
        _refuse_other(config.library, library)
        return _source(config)
    if isinstance(config, Mapping):
        given = dict(config)
        return _from_keywords(given, _inferred(given) if library is None else library)
    if hasattr(config, "adv_neighbor_config") and hasattr(config, "multiplier"):
        _refuse_other("nsl", library)
        neighbor = _attributes(config.adv_neighbor_config)
        return _from_keywords({"multiplier": config.multiplier, **neighbor}, "nsl")
    if all(hasattr(config, name) for name in _NSL_NAMES):
        _refuse_other("nsl", library)
        return _from_keywords(_attributes(config), "nsl")
    raise TypeError(
        "expected a Configuration, NSL's AdvRegConfig or AdvNeighborConfig, or a mapping of "
        f"keywords, got {type(config).__name__}"
    )


def _refuse_other(library: str, given: str | None) -> None:
    if given is not None and given != library:
        raise ValueError(f"source is {given!r}, but the configuration is one of {library!r}")


def _attributes(neighbor: object) -> dict[str, Any]:
    """An AdvNeighborConfig's options as far as they are not the defaults."""
    found = {
        name: getattr(neighbor, name)
        for name in (*_NSL_NAMES, *_BOUNDS, "feature_mask")
        if hasattr(neighbor, name)
    }
    found["adv_grad_norm"] = getattr(found["adv_grad_norm"], "value", found["adv_grad_norm"])
    defaults = {**attack_options("nsl"), "feature_mask": None}
    return {
        name: value for name, value in found.items() if np.ndim(value) or value != defaults[name]
    }


def _from_keywords(given: dict[str, Any], library: str) -> Source:
    check_library(library)
    masked = False
    conditions: tuple[str, ...] = ()
    if library == "nsl":
        masked = _masks(given.pop("feature_mask", None))
        if any(isinstance(given.get(name), (int, float)) for name in _BOUNDS):
            conditions = (_BY_NAME,)
        for name in (*_NSL_NUMBERS, *_BOUNDS):
            if given.get(name) is not None:
                given[name] = _number(name, given[name])
    return _source(Configuration.of(library, given), masked, conditions)


def _source(
    configuration: Configuration, masked: bool = False, conditions: tuple[str, ...] = ()
) -> Source:
    names = training_options(configuration.library)
    trains = any(name in configuration.options for name in names)
    return Source(configuration, masked, trains, conditions)


def _masks(mask: Any) -> bool:
    """Whether there is a mask, of the one feature."""
    (entry,) = _entries("feature_mask", mask)
    return entry is not None


def _number(name: str, value: Any) -> float:
    """One number, out of a number, an array of one element, or a collection of one of these."""
    (entry,) = _entries(name, value)
    try:
        array = np.asarray(entry, np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.size != 1:
        raise TranslationError(
            f"{name} must be one number to be translated, got {type(entry).__name__}"
            + (f" of shape {array.shape}" if array.size else "")
        )
    number = float(array.reshape(()))
    return int(number) if isinstance(entry, int) and math.isfinite(number) else number


def _entries(name: str, value: Any) -> list[Any]:
    """The entries of a collection by feature, or the value itself."""
    if isinstance(value, Mapping):
        value = list(value.values())
    entries = list(value) if isinstance(value, (list, tuple)) else [value]
    if len(entries) != 1:
        raise TranslationError(
            f"{name} has entries for {len(entries)} features: CleverHans attacks models with one "
            "input"
        )
    return entries


def _inferred(given: Mapping[str, Any]) -> str:
    """The only library that has all names.

    Raises:
        ValueError: Several libraries have them, or none.
    """
    names = {name: {*attack_options(name), *training_options(name)} for name in LIBRARIES}
    names["nsl"].add("feature_mask")
    everyones = set().union(*names.values())
    fields = {field.name for field in dataclasses.fields(Recipe)}
    for name in given:
        check_name("option", name, sorted(everyones | fields))
    own = {name for name in given if name in everyones}
    found = [library for library in LIBRARIES if own <= names[library]]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(map(repr, found or LIBRARIES))
    if found:
        raise ValueError(f"these options may be of {listed}: name the library with source=")
    raise ValueError(
        f"no library has all of {', '.join(sorted(own))}: give the options of one of {listed}"
    )
