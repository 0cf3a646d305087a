"""Whether the originals give the same on two TensorFlows: `python -m benchmarks.tensorflows`.

Runs every recorded case of the three originals that need TensorFlow on 2.21 and on 2.15, with the
same Keras files, and writes a row per case to results/tensorflows.csv and the table of
docs/parity.md from these. `--check` fails where the page is not that of the rows. The port takes no
part in it.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.marked_block import with_block
from benchmarks.page_command import Rows, run
from benchmarks.record import COUNT
from torchfgsm import converters
from torchfgsm.configuration import TITLES
from torchfgsm.originals import LIBRARIES, TENSORFLOWS
from torchfgsm.parity import digits
from torchfgsm.parity.cases import Case, all_cases
from torchfgsm.parity.originals_side import Originals
from torchfgsm.parity.run import Converted

ROWS = Path(__file__).parent / "results" / "tensorflows.csv"
PAGE = Path(__file__).parent.parent / "docs" / "parity.md"


def main(arguments: list[str] | None = None) -> int:
    """Measures and writes the table, or checks it; the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if "--check" not in given:
        rows = list(measure(cases()))
        with ROWS.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return run("tensorflows", __doc__, page, (ROWS, PAGE), given)


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
        paths = {model: folder / f"{model}.keras" for model in digits.MODELS}
        data = {model: digits.batch(model, COUNT) for model in digits.MODELS}
        models = Converted(paths, data, lambda path: converters.load(path, verify=False))
        for case in chosen:
            print(case.name, file=sys.stderr, flush=True)
            given = case, paths[case.model], models.converted(case), data[case.model]
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


def page(rows: Rows) -> str:
    """The page of parity with the table of the rows."""
    return with_block(PAGE.read_text(encoding="utf-8"), "tensorflows", table(rows))


def table(rows: Rows) -> str:
    """The table by original."""
    first, *_ = rows
    versions = f"TensorFlow {first['tensorflow']} and {first['other']}"
    lines = [
        f"| original | recorded cases | same bits on {versions} | largest distance otherwise |",
        "| --- | --- | --- | --- |",
    ]
    for library in dict.fromkeys(row["library"] for row in rows):
        of = [row for row in rows if row["library"] == library]
        apart = [row for row in of if row["same_bits"] != "True"]
        worst = max(apart, key=lambda row: float(row["distance"]), default=None)
        text = f"{worst['distance']} (`{worst['case']}`)" if worst else "none"
        lines.append(f"| {TITLES[library]} | {len(of)} | {len(of) - len(apart)} | {text} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
