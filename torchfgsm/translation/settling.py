"""Settles the fields on which two recipes differ, by the table."""

from __future__ import annotations

from dataclasses import dataclass

from torchfgsm.libraries.configuration import TITLES
from torchfgsm.translation.entries import Entry, Question
from torchfgsm.translation.table import TABLE


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
