"""A report as Markdown, and an explanation as JSON values."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from torchfgsm.explanation.report.content import report
from torchfgsm.explanation.report.formatting import Section, Table, printable
from torchfgsm.explanation.report.verdict import verdict
from torchfgsm.explanation.result import Explanation, Side
from torchfgsm.libraries.configuration import Configuration

_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~$&])")


def to_markdown(explanation: Explanation) -> str:
    """The whole report, the verdict first.

    Args:
        explanation: What `torchfgsm.explain` found.

    Returns:
        GitHub's Markdown; names and values are escaped.
    """
    content = report(explanation)
    parts = [f"# {_escaped(content.title)}", *map(_escaped, content.verdict)]
    for section in content.sections:
        parts += _section(section)
    return "\n\n".join(parts) + "\n"


def to_dict(explanation: Explanation) -> dict[str, Any]:
    """The explanation as JSON values.

    Args:
        explanation: What `torchfgsm.explain` found.

    Returns:
        The fields of `Explanation` by their names, with the verdict; of inputs and perturbations
        their shapes. Numbers that are not finite are strings.
    """
    found: dict[str, Any] = {"verdict": list(verdict(explanation)), "differs": explanation.differs}
    for field in dataclasses.fields(explanation):
        found[field.name] = _json_able(getattr(explanation, field.name))
    found["inputs"] = _shapes(explanation.inputs)
    return found


def _section(section: Section) -> list[str]:
    parts = [f"## {_escaped(section.title)}", *map(_escaped, section.paragraphs)]
    if section.table is not None:
        parts += [_escaped(section.table.caption), _table(section.table)]
    if section.code:
        parts.append(_fenced(section.code))
    for note in section.notes:
        lines = [f"- **{_escaped(note.term)}**", *(f"  - {_escaped(line)}" for line in note.lines)]
        parts.append("\n".join(lines))
    return parts


def _table(table: Table) -> str:
    rules = ["---:" if i in table.numeric else "---" for i in range(len(table.columns))]
    rows = [table.columns, *table.rows]
    first, *rest = ["| " + " | ".join(map(_escaped, row)) + " |" for row in rows]
    return "\n".join([first, "| " + " | ".join(rules) + " |", *rest])


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", printable(text))


def _fenced(code: str) -> str:
    """A block of code, fenced by more backticks than it has in a row."""
    longest = max((len(run) for run in re.findall("`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}python\n{code}\n{fence}"


def _json_able(value: Any) -> Any:
    if isinstance(value, Side):
        return {**_fields(value), "perturbations": _shapes(value.perturbations)}
    if isinstance(value, Configuration):
        return {"title": value.title, **_fields(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value)
    if isinstance(value, Mapping):
        return {str(name): _json_able(entry) for name, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [_json_able(entry) for entry in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _json_able(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _fields(value: Any) -> dict[str, Any]:
    return {f.name: _json_able(getattr(value, f.name)) for f in dataclasses.fields(value)}


def _shapes(arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(np.shape(array)) for name, array in arrays.items()}
