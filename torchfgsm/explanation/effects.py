"""What each differing field does alone, and the way from one recipe to the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from torchfgsm.core.recipe import Recipe
from torchfgsm.explanation.batch_attacks import BatchAttacks
from torchfgsm.explanation.catalogue import sentence, source
from torchfgsm.explanation.measures import Attacked, measure
from torchfgsm.explanation.result import FieldEffect, PathStep
from torchfgsm.libraries.configuration import Configuration

# What is large and asked first comes first; the rest follows in the order of the fields.
_FIRST = (
    "norm",
    "step",
    "iterations",
    "epsilon",
    "order",
    "random_start",
    "random_radius",
    "clip_min",
    "clip_max",
    "targeted",
    "model_output",
    "reduction",
    "guard",
    "labels",
    "ties",
)


def differing(a: Recipe, b: Recipe) -> dict[str, tuple[Any, Any]]:
    """The fields on which two recipes differ, in the order of the path."""
    found = a.diff(b)
    names = dict.fromkeys([*(name for name in _FIRST if name in found), *found])
    return {name: found[name] for name in names}


def single_effects(
    attacks: BatchAttacks, a: Configuration, b: Configuration
) -> tuple[tuple[FieldEffect, ...], list[Attacked]]:
    """Changes each differing field alone, from either end.

    Args:
        attacks: The batch.
        a: One side.
        b: The other.

    Returns:
        The effects, and a's perturbations with one field of b's each, of the fields that can be
        changed alone.
    """
    effects, singles = [], []
    ends = (attacks.run(a.recipe), attacks.run(b.recipe))
    for name, values in differing(a.recipe, b.recipe).items():
        from_a, why_a = _changed(attacks, a.recipe, {name: values[1]})
        from_b, why_b = _changed(attacks, b.recipe, {name: values[0]})
        reasons = [f"from {end}: {why}" for end, why in (("a", why_a), ("b", why_b)) if why]
        if from_a is not None:
            singles.append(from_a)
        effects.append(
            FieldEffect(
                name=name,
                values=values,
                sentences=(
                    sentence(name, a.library, values[0]),
                    sentence(name, b.library, values[1]),
                ),
                sources=(
                    source(name, a.library, values[0]),
                    source(name, b.library, values[1]),
                ),
                from_a=None if from_a is None else measure(from_a, ends[0]),
                from_b=None if from_b is None else measure(from_b, ends[1]),
                reason="; ".join(reasons),
            )
        )
    return tuple(effects), singles


def path(attacks: BatchAttacks, a: Recipe, b: Recipe) -> Iterator[PathStep]:
    """The way from a to b, one field at a time.

    A field that cannot change alone takes the one other field with it that lets it, or where no
    single one does, all that are left.

    Args:
        attacks: The batch.
        a: Where the path begins.
        b: Where it ends.

    Yields:
        The steps.
    """
    left, recipe = differing(a, b), a
    end = attacks.run(b)
    while left:
        for names in _groups(list(left)):
            changes = {name: left[name][1] for name in names}
            after, _ = _changed(attacks, recipe, changes)
            if after is not None:
                break
        before = attacks.run(recipe)
        recipe = dataclasses.replace(recipe, **changes)
        values = tuple(left.pop(name) for name in names)
        after = attacks.run(recipe)
        yield PathStep(tuple(names), values, measure(after, before), measure(after, end))


def _groups(names: Sequence[str]) -> Iterator[list[str]]:
    """The first field alone, with one other, with all others."""
    first, *others = names
    return chain([[first]], ([first, other] for other in others), [[first, *others]])


def _changed(
    attacks: BatchAttacks, recipe: Recipe, changes: dict[str, Any]
) -> tuple[Attacked | None, str]:
    """The perturbation of a changed recipe, or why there is none."""
    try:
        return attacks.run(dataclasses.replace(recipe, **changes)), ""
    except ValueError as error:
        return None, str(error)
