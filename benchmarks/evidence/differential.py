"""Random configurations beside the live originals: `python -m benchmarks.evidence.differential`.

Draws configurations, models and batches, runs each in the original and in the port, and judges it
as the main table does. What disagrees is shrunk and printed. Writes the counts to
results/differential.csv and from them the table of docs/parity.md.

`--only NUMBER` runs one draw again and writes nothing; `--from-csv` only writes the table, and
`--check` fails when the page differs from the rows.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from benchmarks.evidence.differential_draws import Draw, draw
from benchmarks.evidence.differential_rules import (
    ALONE,
    COMPARED,
    FAULT,
    FINDINGS,
    NOISE,
    NOISE_ALLOWED,
    REFUSED,
    STRICT,
    Outcome,
)
from benchmarks.evidence.differential_runs import Runner
from benchmarks.evidence.differential_shrinking import shrunk
from benchmarks.marked_block import with_block
from benchmarks.rows import device_name, replace_all
from torchfgsm import __version__
from torchfgsm.parity.cases import Case, norm_of

ROWS = Path(__file__).parents[1] / "results" / "differential.csv"
PAGE = Path(__file__).parents[2] / "docs" / "parity.md"
PER_MODEL = 25
_COLUMNS = (*COMPARED, REFUSED, FAULT, STRICT)


def main(arguments: list[str] | None = None) -> int:
    """Runs the draws; 0 when no disagreement is left unexplained, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="benchmarks.evidence.differential", description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="number of draws")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="one draw, shown in full")
    parser.add_argument("--from-csv", action="store_true", help="only write the page's table")
    parser.add_argument("--check", action="store_true", help="only compare page and rows")
    options = parser.parse_args(arguments)
    if options.count < 1:
        parser.error(f"--count must be at least 1, got {options.count}")
    if options.check:
        return 0 if in_page(table(read_rows())) == PAGE.read_text(encoding="utf-8") else 1
    if options.only is not None:
        return _show(options.seed, options.only)
    if not options.from_csv:
        _measure(options.seed, options.count)
    rows = read_rows()
    PAGE.write_text(in_page(table(rows)), encoding="utf-8")
    return 0 if explained(by_verdict(rows)) else 1


def explained(counts: Mapping[str, int]) -> bool:
    """Whether every disagreement is explained, and few by noise.

    Args:
        counts: Verdict -> number of draws.
    """
    noise = sum(counts.get(word, 0) for word in (NOISE, ALONE))
    none_left = not any(counts.get(word) for word in FINDINGS)
    return none_left and noise <= NOISE_ALLOWED * sum(counts.values())


def by_verdict(rows: list[dict[str, str]]) -> Counter[str]:
    """Verdict -> number of draws."""
    counts: Counter[str] = Counter()
    for row in rows:
        counts[row["verdict"]] += int(row["draws"])
    return counts


def outcomes(runner: Runner, numbers: Sequence[int]) -> Iterator[Outcome]:
    """Runs draws, each disagreement made as small as it can be.

    Args:
        runner: Runs a draw on both sides.
        numbers: Of the draws.
    """
    for number in numbers:
        found = runner.outcome(drawn(runner, number))
        yield shrunk(found, runner.outcome) if found.found else found


def drawn(runner: Runner, number: int) -> Draw:
    """The draw of a number, of the runner's seed."""
    index = number // PER_MODEL
    return draw(runner.seed, number, index, runner.model(index)[0])


def _show(seed: int, number: int) -> int:
    with tempfile.TemporaryDirectory() as folder, closing(Runner(Path(folder), seed)) as runner:
        (found,) = outcomes(runner, [number])
        print(drawn(runner, number).text)
        print(report(found, runner))
        return int(found.found)


def report(found: Outcome, runner: Runner) -> str:
    """An outcome in full."""
    draw, (architecture, _) = found.draw, runner.model(found.draw.model)
    lines = [f"{found.word}: draw {draw.number}, {draw.text}", f"model {architecture.text}"]
    if found.found:
        lines += [f"{name} = {x.tolist()}" for name, x in draw.batch.x.items()]
        lines.append(f"y = {draw.batch.y.tolist()}")
    return "\n".join([*lines, found.detail])


def _measure(seed: int, count: int) -> None:
    counts: Counter[tuple[str, ...]] = Counter()
    noise: Counter[tuple[str, ...]] = Counter()
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # models of a few numbers gain nothing from a second one
    try:
        with tempfile.TemporaryDirectory() as folder, closing(Runner(Path(folder), seed)) as runner:
            for found in outcomes(runner, range(count)):
                key = _key(found)
                counts[key] += 1
                noise[key] += found.signs
                if found.found:
                    print(report(found, runner), file=sys.stderr, flush=True)
            libraries = dict.fromkeys(key[0] for key in counts)
            versions = {library: runner.originals.versions(library) for library in libraries}
    finally:
        torch.set_num_threads(before)
    shared = {"seed": seed, "count": count, "torch": torch.__version__}
    shared |= {"torchfgsm": __version__, "device": device_name(torch.device("cpu"))}
    names = ("library", "kind", "norm", "dtype", "verdict")
    rows = [
        dict(zip(names, key, strict=True))
        | {"draws": counts[key], "signs_within_noise": noise[key]}
        | {name: versions[key[0]].get(name) or "" for name in ("library_version", "tensorflow")}
        | shared
        for key in sorted(counts)
    ]
    write_rows(rows)


def _key(found: Outcome) -> tuple[str, ...]:
    case = found.draw.case
    return (case.library, case.kind, _norm(case), case.dtype, found.word)


def _norm(case: Case) -> str:
    try:
        return norm_of(case)
    except KeyError:
        return "unknown"


def write_rows(rows: list[dict[str, Any]]) -> None:
    """Writes the rows; old ones are gone."""
    replace_all(ROWS, rows)


def read_rows() -> list[dict[str, str]]:
    """The rows of the last run."""
    with ROWS.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table(rows: list[dict[str, str]]) -> str:
    """The rows as the page shows them: by library, how many draws had which verdict."""
    first = rows[0]
    words = [*_COLUMNS, "unexplained"]
    lines = [
        f"Seed {first['seed']}, {first['count']} draws:",
        "",
        f"| original | draws | {' | '.join(words)} |",
        "|" + "---|" * (len(words) + 2),
    ]
    for library in dict.fromkeys(row["library"] for row in rows):
        of = [row for row in rows if row["library"] == library]
        counts = [sum(int(r["draws"]) for r in of if r["verdict"] == word) for word in _COLUMNS]
        total = sum(int(row["draws"]) for row in of)
        numbers = " | ".join(str(number) for number in (total, *counts, total - sum(counts)))
        lines.append(f"| {library} {of[0]['library_version']} | {numbers} |")
    return "\n".join(lines)


def in_page(block: str) -> str:
    """The page with the table in its place."""
    return with_block(PAGE.read_text(encoding="utf-8"), "differential", block)


if __name__ == "__main__":
    sys.exit(main())
