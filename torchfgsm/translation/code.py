"""Runnable Python text that calls an original."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torchfgsm.translation import code_cleverhans3, code_cleverhans4, code_nsl
from torchfgsm.translation.original_call import Call

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
