"""Training by the originals, live, and by this package.

`python -m benchmarks.training.robust_training` writes every measured number to
results/robust_training.csv, with versions and device, and
docs/training.md with its plot from those rows alone. `--from-csv` only writes page and plot;
`--check` fails when the page differs from the rows. `--quick` measures a little, to try it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import plots
from benchmarks.training import rows as training_rows
from benchmarks.training.page import page

CSV = Path(__file__).parents[1] / "results" / "robust_training.csv"
PAGE = Path(__file__).parents[2] / "docs" / "training.md"
SEEDS = (0, 1, 2, 3, 4)
_QUICK_SEEDS = (0,)


def main(arguments: list[str] | None = None) -> int:
    """Measures and writes, or checks; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.training.robust_training", description=__doc__
    )
    parser.add_argument("-o", "--out", type=Path, default=CSV, metavar="CSV")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="MD")
    parser.add_argument("--from-csv", action="store_true", help="only write the page and the plot")
    parser.add_argument("--check", action="store_true", help="fail when the page is stale")
    parser.add_argument("--quick", action="store_true", help="one seed, one epoch, one model")
    options = parser.parse_args(arguments)
    if not (options.from_csv or options.check):
        training_rows.write(options.out, measure(quick=options.quick))
    rows = training_rows.read(options.out)
    text = page(rows)
    if options.check:
        if options.page.read_text(encoding="utf-8") == text:
            return 0
        print("the page is not that of the rows: run it with --from-csv", file=sys.stderr)
        return 1
    options.page.parent.mkdir(parents=True, exist_ok=True)
    options.page.write_text(text, encoding="utf-8")
    plots.robustness(rows, options.page.with_suffix(".png"))
    return 0


def measure(*, quick: bool = False) -> list[training_rows.Row]:
    """Runs all trainings and gives their rows."""
    found = []
    for row in _rows(quick):
        found.append(row)
        print(
            f"{row.part}: {row.case}, {row.model}, {row.norm}, {row.optimizer}, {row.precision}, "
            f"seed {row.seed}, {row.side} after {row.steps}: {row.measure} {row.value:.3g}",
            file=sys.stderr,
            flush=True,
        )
    return found


def _rows(quick: bool) -> Iterator[training_rows.Row]:
    import torch

    from benchmarks.training.mapping import mapping
    from benchmarks.training.parity import KINDS, LIBRARIES, rounding
    from benchmarks.training.robustness import EPOCHS, robustness
    from benchmarks.training.runs import Trainings

    seeds = _QUICK_SEEDS if quick else SEEDS
    torch.set_num_threads(1)  # as in TensorFlow's processes there is little to share
    with tempfile.TemporaryDirectory() as name, Trainings(Path(name)) as trainings:
        yield from robustness(trainings, seeds, 1 if quick else EPOCHS)
        yield from mapping(trainings, seeds)
        for library in LIBRARIES:
            for kind in KINDS[:1] if quick else KINDS:
                yield from rounding(trainings, library, kind)


if __name__ == "__main__":
    sys.exit(main())
