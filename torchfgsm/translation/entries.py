"""What can settle a field on which two recipes differ, and the question that it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torchfgsm.core.recipe import Recipe
from torchfgsm.libraries.configuration import LIBRARIES

CLEVERHANS = LIBRARIES[1:]


@dataclass(frozen=True)
class Question:
    """Two recipes that should have the same effect.

    Attributes:
        source: What is to be translated.
        target: What the other library's options mean there.
        origin: The library that is translated from; "" for a recipe of its own.
        to: The library that is translated to.
        trains: Whether the training loss is translated too.
    """

    source: Recipe
    target: Recipe
    origin: str
    to: str
    trains: bool = False


Applies = Callable[[Question], bool]


@dataclass(frozen=True)
class Entry:
    """One way in which a difference of a field is settled.

    Attributes:
        how: "outside": something is done outside of the configuration, and the target has the
            source's value then. "idle": the difference has no effect here. "condition": it has
            none provided that something holds. "refused": it cannot be settled.
        says: What is done, why it has no effect, what must hold, or why it is refused.
        when: Whether the entry applies.
        to: The libraries that it is for.
    """

    how: Literal["outside", "idle", "condition", "refused"]
    says: str
    when: Applies = lambda q: True
    to: tuple[str, ...] = LIBRARIES

    def applies(self, question: Question) -> bool:
        """Whether this entry settles the field."""
        return question.to in self.to and self.when(question)


def outside(says: str, when: Applies = lambda q: True, to: tuple[str, ...] = LIBRARIES) -> Entry:
    """Something is done outside of the configuration."""
    return Entry("outside", says, when, to)


def idle(says: str, when: Applies = lambda q: True, to: tuple[str, ...] = LIBRARIES) -> Entry:
    """The difference has no effect."""
    return Entry("idle", says, when, to)


def condition(says: str, when: Applies = lambda q: True, to: tuple[str, ...] = LIBRARIES) -> Entry:
    """The difference has no effect provided that something holds."""
    return Entry("condition", says, when, to)


def refused(says: str, when: Applies = lambda q: True, to: tuple[str, ...] = LIBRARIES) -> Entry:
    """The difference cannot be settled."""
    return Entry("refused", says, when, to)
