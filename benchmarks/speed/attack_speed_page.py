"""The page about the speed of an attack: `python -m benchmarks.speed.attack_speed_page`.

Writes docs/attack_speed.md from results/whole_attack.csv alone; `--check` fails when the page is
not that of the rows.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import page_command
from benchmarks.speed.whole_attack import AGAIN, REFERENCE

Rows = Sequence[dict[str, str]]
Case = tuple[str, ...]

CSV = Path(__file__).parents[1] / "results" / "whole_attack.csv"
PAGE = Path(__file__).parents[2] / "docs" / "attack_speed.md"

PROVIDERS = (AGAIN, "torchfgsm", "torchattacks", "cleverhans", "foolbox", "art")
_CASE = ("model", "batch", "attack", "norm", "labels", "threads")

_TOP = """\
# How long an attack takes, beside the other libraries

Written by `python -m benchmarks.speed.attack_speed_page` from
`benchmarks/results/whole_attack.csv`, which `python -m benchmarks.speed.whole_attack` measures,
with `OMP_NUM_THREADS` 1 and 2. Lengths are 8/255 (L-inf), 0.5 (L2) and 2 (L1), within [0, 1].
Results were compared with the loop by hand before anything was timed.

The numbers are the processor's time over that of the hand-written minimum: one forward pass, one
gradient of the input and the step, labels from the same forward pass where none are given. The
minimum takes part twice: the column "again" is the noise. The machine was shared."""

_WORDS = {"different": "another result", "unavailable": "none"}


def page(found: Rows) -> str:
    """The text of the page."""
    of_cpu = [row for row in found if row["device"].startswith("cpu")]
    cases = list(dict.fromkeys(map(_case, of_cpu)))
    parts = [_TOP]
    for threads in sorted({case[-1] for case in cases}):
        parts.append(f"## {threads} thread{'' if threads == '1' else 's'}")
        parts.append(_table(of_cpu, [case for case in cases if case[-1] == threads]))
    return "\n\n".join(parts) + "\n"


def _case(row: dict[str, str]) -> Case:
    return tuple(row[name] for name in _CASE)


def _table(found: Rows, cases: Sequence[Case]) -> str:
    lines = [
        ["attack", "by hand, ms", *(name.removeprefix("by hand, ") for name in PROVIDERS)],
        ["---", *["---:"] * (len(PROVIDERS) + 1)],
    ]
    for case in cases:
        model, batch, attack, norm, labels, _ = case
        base = cpu_ms(_row(found, case, REFERENCE))
        cells = [_cell(_row(found, case, name), base) for name in PROVIDERS]
        title = f"{model}, batch {batch}: {attack}, {norm}, labels {labels}"
        lines.append([title, f"{base:.3g}", *cells])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _row(found: Rows, case: Case, provider: str) -> dict[str, str]:
    of = [row for row in found if _case(row) == case and row["provider"] == provider]
    if len(of) != 1:
        raise ValueError(
            f"expected one row of {provider} for {', '.join(case)}, found {len(of)}: run "
            "python -m benchmarks.speed.whole_attack on a CPU, with --wheels, into a new CSV"
        )
    return of[0]


def cpu_ms(row: dict[str, str]) -> float:
    """The processor's time of one call."""
    return float(row["cpu_ms"])


def _cell(row: dict[str, str], base: float) -> str:
    return f"{cpu_ms(row) / base:.2f}" if row["status"] == "ok" else _WORDS[row["status"]]


def main(arguments: list[str] | None = None) -> int:
    """Writes the page, or checks it; returns the exit code."""
    return page_command.run("speed.attack_speed_page", __doc__, page, (CSV, PAGE), arguments)


if __name__ == "__main__":
    sys.exit(main())
