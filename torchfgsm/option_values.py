"""Options of the command line as `name=value`."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

_WORDS: Mapping[str, Any] = MappingProxyType(
    {"true": True, "false": False, "none": None, "inf": math.inf, "-inf": -math.inf}
)


def parsed(items: Sequence[str]) -> dict[str, Any]:
    """The values by name.

    Args:
        items: Each `name=value`: a number, inf or -inf, true, false or none, a list or tuple as in
            Python, and anything else as a word.

    Returns:
        Name -> value.

    Raises:
        ValueError: An item without a name or value, or a name that comes twice.
    """
    found: dict[str, Any] = {}
    for item in items:
        name, equals, text = (part.strip() for part in item.partition("="))
        if not equals or not name.isidentifier() or not text:
            raise ValueError(f"expected name=value, such as eps=0.1, got {item!r}")
        if name in found:
            raise ValueError(f"{name} is given twice: as {found[name]!r} and in {item!r}")
        found[name] = _value(text)
    return found


def _value(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
