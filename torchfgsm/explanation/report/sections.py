"""The parts that a report consists of, as data: texts, without a layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        caption: What it shows, in one sentence.
        columns: The headings.
        rows: The cells.
        numeric: Columns of numbers, which are set to the right.
        bars: Column -> length of the bar of each row in [0, 1]; None: no bar.
        full: What a full bar stands for.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[int, ...] = ()
    bars: Mapping[int, tuple[float | None, ...]] = field(default_factory=dict)
    full: str = "1 and above"


@dataclass(frozen=True)
class Note:
    """A term with sentences about it."""

    term: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """One part of the report; empty parts are left out.

    Attributes:
        name: Its anchor: "differences", "path", "features", "accuracy", "curve", "traps",
            "training", "equal-b", "equal-a", "idle" or "facts".
        title: Its heading.
        paragraphs: Sentences before the table.
        table: The table.
        code: A program to copy, or "".
        notes: Sentences at the end, by term.
    """

    name: str
    title: str
    paragraphs: tuple[str, ...] = ()
    table: Table | None = None
    code: str = ""
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class Report:
    """A title, the verdict, and the parts that show it."""

    title: str
    verdict: tuple[str, ...]
    sections: tuple[Section, ...]


def bar(value: float) -> float:
    """The length of a bar: full at 1 and above, and for what is no number."""
    return max(value, 0.0) if value < 1 else 1.0
