"""A report for terminals."""

from __future__ import annotations

import textwrap

from torchfgsm.explanation.report.content import report
from torchfgsm.explanation.report.formatting import Report, Section, Table, printable
from torchfgsm.explanation.result import Explanation

_WIDTH = 100
_NARROWEST = 8


def to_text(explanation: Explanation) -> str:
    """The whole report, the verdict first.

    Args:
        explanation: What `torchfgsm.explain` found.

    Returns:
        Lines of at most 100 characters, but for code.
    """
    return _laid_out(report(explanation))


def _laid_out(content: Report) -> str:
    title = printable(content.title)
    parts = [f"{title}\n{'=' * min(len(title), _WIDTH)}"]
    parts += [_wrapped(sentence) for sentence in content.verdict]
    parts += [_section(section) for section in content.sections]
    return "\n\n".join(parts)


def _section(section: Section) -> str:
    parts = [f"{section.title}\n{'-' * len(section.title)}"]
    parts += [_wrapped(paragraph) for paragraph in section.paragraphs]
    if section.table is not None:
        parts += [_wrapped(section.table.caption), _table(section.table)]
    if section.code:
        lines = [f"    {printable(line)}".rstrip() for line in section.code.splitlines()]
        parts.append("\n".join(lines))
    for note in section.notes:
        lines = [_wrapped(line, "  ") for line in note.lines]
        parts.append("\n".join([printable(note.term), *lines]))
    return "\n\n".join(parts)


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(
        printable(text),
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent * 2,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _table(table: Table) -> str:
    """Columns side by side; long cells go on below."""
    grid = [[printable(cell) for cell in row] for row in (table.columns, *table.rows)]
    limits = _limits(grid)
    lines: list[str] = []
    for row in grid:
        cells = [
            textwrap.wrap(cell, limit, break_on_hyphens=False) or [""]
            for cell, limit in zip(row, limits, strict=True)
        ]
        for height in range(max(map(len, cells))):
            pieces = [cell[height] if height < len(cell) else "" for cell in cells]
            lines.append(_line(pieces, limits, table.numeric))
    return "\n".join(lines)


def _limits(grid: list[list[str]]) -> list[int]:
    """The widths of the columns: the widest give way until the line fits, to their words first."""
    columns = list(zip(*grid, strict=True))
    limits = [max(map(len, column)) for column in columns]
    words = [
        max((len(w) for cell in column for w in cell.split()), default=0) for column in columns
    ]
    for floors in (words, [_NARROWEST] * len(columns)):
        while sum(limits) + 2 * (len(limits) - 1) > _WIDTH:
            spare = [i for i, limit in enumerate(limits) if limit > floors[i]]
            if not spare:
                break
            limits[max(spare, key=lambda i: limits[i])] -= 1
    return limits


def _line(pieces: list[str], widths: list[int], numeric: tuple[int, ...]) -> str:
    aligned = [
        piece.rjust(width) if i in numeric else piece.ljust(width)
        for i, (piece, width) in enumerate(zip(pieces, widths, strict=True))
    ]
    return "  ".join(aligned).rstrip()
