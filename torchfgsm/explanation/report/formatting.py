"""Numbers, values and sections as a report writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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


def number(value: float) -> str:
    """Three digits; what is not a number is said."""
    if math.isnan(value):
        return "undefined"
    if math.isinf(value):
        return "infinite" if value > 0 else "-infinite"
    rounded = f"{value:.3g}"
    return f"{float(rounded):.0f}" if 1000 <= abs(value) < 1e6 else rounded


def share(value: float) -> str:
    """A share of 1 in per cent."""
    return f"{100 * value:.3g}%" if math.isfinite(value) else number(value)


def signed(value: float) -> str:
    """A change, with its sign."""
    return f"{value:+.3g}" if math.isfinite(value) and value else number(abs(value) or 0.0)


def signed_share(value: float) -> str:
    """A change of a share, with its sign, in percentage points."""
    return f"{100 * value:+.3g} pp" if math.isfinite(value) and value else share(value)


def shown(value: Any) -> str:
    """A setting's value for people."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {shown(entry)}" for name, entry in value.items())
    if isinstance(value, (tuple, list)):
        return ", ".join(map(shown, value))
    return str(value)


def printable(text: str) -> str:
    """The text on one line, with control characters written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
