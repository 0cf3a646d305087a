"""The table of conversions: `python -m benchmarks.conversions.table`.

Converts every model of `zoo` in both Keras versions by every route, writes one row each
to results/conversions.csv, and docs/conversions.md from the rows alone. A rerun of some models
replaces their rows. `--train` compares a training step too. `--from-csv` only writes the page;
`--check` fails when it differs from the rows.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import rows
from benchmarks.conversions import rows as conversion_rows
from benchmarks.conversions.page import page
from benchmarks.conversions.rows import ROUTES, Row

RESULTS = Path(__file__).parents[1] / "results"
CSV = RESULTS / "conversions.csv"
SPEED_CSV = RESULTS / "conversion_speed.csv"
PAGE = Path(__file__).parents[2] / "docs" / "conversions.md"


def main(arguments: list[str] | None = None) -> int:
    """Measures and writes, or checks; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.conversions.table", description=__doc__)
    parser.add_argument("--models", type=_names, metavar="A,B", help="only these (default: all)")
    parser.add_argument("--keras", type=_names, default=("2", "3"), metavar="2,3")
    parser.add_argument("--routes", type=_names, default=ROUTES, metavar=",".join(ROUTES))
    parser.add_argument("--train", action="store_true", help="compare a training step too")
    parser.add_argument("-o", "--out", type=Path, default=CSV, metavar="CSV")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="MD")
    parser.add_argument("--from-csv", action="store_true", help="only write the page")
    parser.add_argument("--check", action="store_true", help="fail when the page is stale")
    options = parser.parse_args(arguments)
    if not set(options.routes) <= set(ROUTES) or not set(options.keras) <= {"2", "3"}:
        parser.error(f"expected routes out of {ROUTES} and keras out of 2,3")
    if not (options.from_csv or options.check):
        measure(options)
    text = page(rows.read(options.out), rows.read(SPEED_CSV))
    if options.check:
        if options.page.read_text(encoding="utf-8") == text:
            return 0
        print("the page is not that of the rows: run it with --from-csv", file=sys.stderr)
        return 1
    options.page.parent.mkdir(parents=True, exist_ok=True)
    options.page.write_text(text, encoding="utf-8")
    return 0


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def measure(options: argparse.Namespace) -> None:
    """Writes the row of each conversion when it is done."""
    from benchmarks.conversions.runs import each_bench

    routes = tuple(route for route in ROUTES if route in options.routes)
    with tempfile.TemporaryDirectory() as folder:
        for bench, facts in each_bench(options.keras, Path(folder), training=options.train):
            for model in facts["models"]:
                if options.models is None or model in options.models:
                    begin = time.monotonic()
                    for row in bench.rows(model, routes):
                        conversion_rows.write(options.out, [row])
                        _tell(row, time.monotonic() - begin)
                        begin = time.monotonic()


def _tell(row: Row, seconds: float) -> None:
    text = f"keras {row.keras} {row.model} {row.route}: {row.verdict}, {seconds:.1f} s"
    print(f"{text} {row.reason}".strip(), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
