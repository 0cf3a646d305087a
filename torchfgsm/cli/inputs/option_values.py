"""Options of the command line as `name=value`."""

from __future__ import annotations

import argparse
import ast
import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torchfgsm.core.presets import Norm, known_norm

_INFINITE = ("inf", "np.inf", "numpy.inf", "math.inf")
_WORDS: Mapping[str, Any] = MappingProxyType(
    {"true": True, "false": False, "none": None}
    | dict.fromkeys(_INFINITE, math.inf)
    | {f"-{word}": -math.inf for word in _INFINITE}
)
# A comma before the next name, or at the end, and not within brackets or quotes.
_COMMA = re.compile(r"""^[^\[({'"]*[,;](\s*[A-Za-z_]\w*\s*=.*)?$""")


def number(text: str) -> float:
    """A number of the command line, such as 0.1 or 8/255.

    Raises:
        argparse.ArgumentTypeError: Something else.
    """
    above, slash, below = text.partition("/")
    try:
        return float(above) / float(below) if slash else float(text)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(
            f"expected a number such as 0.1 or 8/255, got {text!r}"
        ) from None


def norm(text: str) -> Norm:
    """A norm of the command line, by any library's word for it.

    Raises:
        argparse.ArgumentTypeError: Something else.
    """
    found = known_norm(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected linf, l2 or l1, got {text!r}")
    return found


def parsed(items: Sequence[str]) -> dict[str, Any]:
    """The values by name.

    Args:
        items: Each `name=value`: a number, 8/255 too, inf or -inf, true, false or none, a list or
            tuple as in Python, and anything else as a word.

    Returns:
        Name -> value.

    Raises:
        ValueError: An item without a name or value, several in one, or a name that comes twice.
    """
    found: dict[str, Any] = {}
    for item in items:
        name, equals, text = (part.strip() for part in item.partition("="))
        if not equals or not name.isidentifier() or not text:
            raise ValueError(f"expected name=value, such as eps=0.1, got {item!r}")
        if _COMMA.search(text):
            raise ValueError(f"separate options by spaces, as in eps=0.1 nb_iter=3, got {item!r}")
        if name in found:
            raise ValueError(f"{name} is given twice: as {found[name]!r} and in {item!r}")
        found[name] = _value(text)
    return found


def _value(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if "/" in text:
        with contextlib.suppress(argparse.ArgumentTypeError):
            return number(text)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
