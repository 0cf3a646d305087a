"""The command line that the timed benchmarks share."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.rows import Row, read, write
from benchmarks.speed import peers

RESULTS = Path(__file__).parents[1] / "results"

# A script may run for 10 minutes; the case that is under way when this is over still ends.
_SECONDS = 520


@dataclass(frozen=True)
class Options:
    """What a benchmark is asked for.

    Attributes:
        device: Where it runs.
        quick: Only a few tiny cases.
    """

    device: torch.device
    quick: bool


# Batches by model.
Sizes = Mapping[str, tuple[int, ...]]

Measure = Callable[[Options], Iterator[list[Row]]]
Plot = Callable[[Sequence[dict[str, str]], Path], None]


def run(name: str, about: str, measure: Measure, plot: Plot, arguments: list[str] | None) -> int:
    """Measures case by case into a CSV and plots it; 0 when everything was measured.

    Args:
        name: Of the script and of its files.
        about: For the help.
        measure: Gives the rows of each case.
        plot: Draws the rows of a CSV into a file.
        arguments: The command line, or None for the process's own.

    Returns:
        The exit code: 1 when the time was over before the last case.
    """
    parser = argparse.ArgumentParser(prog=f"benchmarks.{name}", description=about)
    usual = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cuda", "cpu"), default=usual)
    parser.add_argument("--quick", action="store_true", help="a few tiny cases")
    parser.add_argument("--from-csv", action="store_true", help="only plot")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="wheels of the peers")
    parser.add_argument("--out", type=Path, metavar="DIR", default=RESULTS)
    options = parser.parse_args(arguments)
    file = options.out / f"{name}.csv"
    complete = True
    if not options.from_csv:
        with peers.on_path(options.wheels):
            asked = Options(torch.device(options.device), options.quick)
            complete = _write_cases(file, measure(asked))
    _draw(plot, file)
    return 0 if complete else 1


def _write_cases(file: Path, cases: Iterator[list[Row]]) -> bool:
    """Writes each case when it is measured; False when the time was over before the last."""
    begin = time.monotonic()
    for rows in cases:
        write(file, rows)
        for row in rows:
            print(_line(row), file=sys.stderr, flush=True)
        if time.monotonic() - begin > _SECONDS:
            if next(cases, None) is None:
                return True
            print(f"stopped after {_SECONDS} s: the last cases are missing", file=sys.stderr)
            return False
    return True


def _line(row: Row) -> str:
    case = (row.benchmark, row.attack, row.model, row.norm, row.dtype, row.batch, row.example)
    text = " ".join(str(part) for part in (*case, row.labels, row.provider) if part != "")
    if row.status != "ok":
        return f"{text}: {row.status}, {row.reason}"
    ratio = "" if row.ratio is None else f", {row.ratio:.3g} of {row.reference}"
    return f"{text}: {row.p50_ms:.4g} ms{ratio}"


def _draw(plot: Plot, file: Path) -> None:
    try:
        plot(read(file), file.with_suffix(".png"))
    except ImportError as error:
        print(f"no plot: {error}; `--from-csv` draws it elsewhere", file=sys.stderr)
