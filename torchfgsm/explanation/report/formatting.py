"""Numbers and values as a report writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


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
