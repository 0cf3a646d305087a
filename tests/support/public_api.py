"""The public API as text, one line a name; `python tests/support/public_api.py` records it."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RECORD = Path(__file__).parents[1] / "golden" / "public_api.txt"
MODULES = (
    "torchfgsm",
    "torchfgsm.nsl",
    "torchfgsm.cleverhans.v3",
    "torchfgsm.cleverhans.tf2",
    "torchfgsm.cleverhans.torch",
    "torchfgsm.losses",
    "torchfgsm.converters",
)


def names(module: Any) -> list[str]:
    """What a module offers: its `__all__`, else what is written in its package."""
    package = module.__name__.rpartition(".")[0]
    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith(package)
    ]
    return sorted(getattr(module, "__all__", own))


def lines() -> Iterator[str]:
    """Names, signatures, defaults and fields."""
    for path in MODULES:
        module = importlib.import_module(path)
        for name in names(module):
            yield from _described(f"{path}.{name}", getattr(module, name))


def _described(path: str, value: Any) -> Iterator[str]:
    if inspect.isclass(value):
        yield from _class(path, value)
    elif callable(value):
        yield f"{path}{_signature(value)}"
    else:
        yield f"{path}: {type(value).__name__}"


def _class(path: str, value: type) -> Iterator[str]:
    bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
    if issubclass(value, enum.Enum):
        yield f"{path}({bases}): {', '.join(f'{m.name}={m.value!r}' for m in value)}"
        return
    made = "" if "Exception" in {base.__name__ for base in value.__mro__} else _signature(value)
    yield f"{path}{made} of ({bases})"
    if dataclasses.is_dataclass(value):
        yield f"{path} fields: {', '.join(field.name for field in dataclasses.fields(value))}"
    for name, member in inspect.getmembers(value):
        inherited = not any(
            name in vars(base) and base.__module__.startswith("torchfgsm") for base in value.__mro__
        )
        if name.startswith("_") or inherited:
            continue
        if isinstance(member, property):
            yield f"{path}.{name}: property"
        elif callable(member):
            yield f"{path}.{name}{_signature(member)}"


def _signature(value: Any) -> str:
    text = str(inspect.signature(value)).replace("<factory>", "...")
    text = re.sub(r"<function (\w+) at 0x\w+>", r"\1", text)
    return re.sub(r"ForwardRef\(('[^']*')\)", r"\1", text)


if __name__ == "__main__":
    RECORD.write_text("\n".join(lines()) + "\n", encoding="utf-8")
