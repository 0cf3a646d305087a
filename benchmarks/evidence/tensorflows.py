"""Whether the originals give the same on two TensorFlows.

`python -m benchmarks.evidence.tensorflows` runs every recorded case of the three originals that
need TensorFlow on 2.21 and on 2.15, with the same Keras files, and writes a row per case to
results/tensorflows.csv and the table of docs/parity.md from these. `--check` fails where the page
is not that of the rows. The port takes no part in it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import rows
from benchmarks.evidence.record import COUNT
from benchmarks.marked_block import with_block
from benchmarks.page_command import Rows
from torchfgsm import converters
from torchfgsm.libraries.configuration import TITLES
from torchfgsm.originals import LIBRARIES, TENSORFLOWS
from torchfgsm.parity import digits
from torchfgsm.parity.cases import Case, all_cases
from torchfgsm.parity.originals_side import Originals

ROWS = Path(__file__).parents[1] / "results" / "tensorflows.csv"
PAGE = Path(__file__).parents[2] / "docs" / "parity.md"


def main(arguments: list[str] | None = None) -> int:
    """Measures and writes the table, or checks it; the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.evidence.tensorflows", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare page and rows")
    options = parser.parse_args(arguments)
    if options.check:
        return 0 if page(rows.read(ROWS)) == PAGE.read_text(encoding="utf-8") else 1
    rows.replace_all(ROWS, list(measure(cases())))
    PAGE.write_text(page(rows.read(ROWS)), encoding="utf-8")
    return 0


def cases() -> list[Case]:
    """The recorded cases of the originals that run on TensorFlow."""
    return [case for case in all_cases() if case.library in LIBRARIES]


def measure(chosen: list[Case]) -> Iterator[dict[str, Any]]:
    """Yields a row per case: whether all bits are the same, else how far results are apart."""
    with (
        tempfile.TemporaryDirectory() as name,
        Originals(runtime=TENSORFLOWS["2.21"]) as today,
        Originals(runtime=TENSORFLOWS["2.15"]) as before,
    ):
        folder = Path(name)
        digits.train_models(folder)
        models = digits.in_folder(folder, COUNT, lambda path: converters.load(path, verify=False))
        for case in chosen:
            print(case.name, file=sys.stderr, flush=True)
            given = case, models.paths[case.model], models.converted(case), models.data(case.model)
            results = [side.result(*given) for side in (today, before)]
            versions = [side.versions(case.library)["tensorflow"] for side in (today, before)]
            yield {
                "library": case.library,
                "case": case.name,
                "same_bits": same_bits(*results),
                "distance": f"{distance(*results):.1e}",
                "tensorflow": versions[0],
                "other": versions[1],
            }


def same_bits(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two results are the same, bit by bit."""
    return first.keys() == second.keys() and all(
        np.asarray(first[name]).tobytes() == np.asarray(second[name]).tobytes() for name in first
    )


def distance(first: Mapping[str, Any], second: Mapping[str, Any]) -> float:
    """The largest difference of two results, as a share of the largest number of its array."""
    found = 0.0
    for name, value in first.items():
        one, other = (np.asarray(side, np.float64) for side in (value, second[name]))
        scale = float(np.abs(other).max(initial=0.0)) or 1.0
        found = max(found, float(np.abs(one - other).max(initial=0.0)) / scale)
    return found


def page(found: Rows) -> str:
    """The page of parity with the table of the rows."""
    return with_block(PAGE.read_text(encoding="utf-8"), "tensorflows", table(found))


def table(found: Rows) -> str:
    """The table by original."""
    first, *_ = found
    versions = f"TensorFlow {first['tensorflow']} and {first['other']}"
    lines = [
        f"| original | recorded cases | same bits on {versions} | largest distance otherwise |",
        "| --- | --- | --- | --- |",
    ]
    for library in dict.fromkeys(row["library"] for row in found):
        of = [row for row in found if row["library"] == library]
        apart = [row for row in of if row["same_bits"] != "True"]
        worst = max(apart, key=lambda row: float(row["distance"]), default=None)
        text = f"{worst['distance']} (`{worst['case']}`)" if worst else "none"
        lines.append(f"| {TITLES[library]} | {len(of)} | {len(of) - len(apart)} | {text} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
