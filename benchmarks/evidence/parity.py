"""Parity with the originals, every case live: `python -m benchmarks.evidence.parity`.

Writes one row per case to results/parity.csv (with versions and device), plots the distances from
float64 from those rows alone to results/parity.png, and writes the README's table from them.
`--from-csv` only plots and writes; `--check` fails when the README differs from the rows.

`--recorded` compares with the recorded results of the originals instead, without TensorFlow and
without a network, `--device cuda` on a GPU: without TF32, with cuDNN's deterministic algorithms.
It writes results/parity-<device>.csv and nothing else, and needs onnx and onnx2torch, which
`--wheels DIR` finds among wheels that `python -m benchmarks.speed.peers DIR` fetched.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.marked_block import with_block
from benchmarks.speed import peers

if TYPE_CHECKING:
    import torch

    from torchfgsm.parity.verdict import Verdict

RESULTS = Path(__file__).parents[1] / "results"
ROWS = RESULTS / "parity.csv"
PLOT = RESULTS / "parity.png"
README = Path(__file__).parents[2] / "README.md"


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; 0 when every case is equal, 1 otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from-csv", action="store_true", help="only plot and write the README")
    parser.add_argument("--check", action="store_true", help="only compare README and rows")
    parser.add_argument("--recorded", action="store_true", help="against recorded results")
    parser.add_argument("--device", default="cpu", help="cpu or cuda, with --recorded")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="where onnx2torch may be")
    options = parser.parse_args(arguments)
    if options.device != "cpu" and not options.recorded:
        parser.error("--device needs --recorded: the originals are run on the CPU")
    if options.recorded:
        with peers.on_path(options.wheels):
            return measure_recorded(options.device)
    if options.check:
        return 0 if _in_readme(table(read_rows())) == README.read_text() else 1
    if not options.from_csv:
        write_rows(measure(), ROWS)
    rows = read_rows()
    plot(rows)
    README.write_text(_in_readme(table(rows)))
    return 0 if all(row["passed"] == "True" for row in rows) else 1


def measure() -> list[dict[str, Any]]:
    """Runs every case and gives its row."""
    import torch

    from benchmarks.rows import device_name
    from torchfgsm import converters
    from torchfgsm.parity import digits
    from torchfgsm.parity.cases import all_cases
    from torchfgsm.parity.originals_side import Originals
    from torchfgsm.parity.run import live, verdict
    from torchfgsm.parity.table import line

    rows, device = [], device_name(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as name, Originals() as originals:
        folder = Path(name)
        digits.train_models(folder)
        models = digits.in_folder(folder, digits.COUNT, converters.load)
        expected = live(originals, models)
        for case in all_cases():
            found = verdict(case, models, expected(case))
            print(line(found), file=sys.stderr, flush=True)
            rows.append(_row(found, originals.versions(case.library), device))
            rows[-1]["examples"] = digits.COUNT
    return rows


def measure_recorded(device: str) -> int:
    """Compares every case with its recorded result on a device and writes the rows.

    Returns:
        0 when every case is equal, 1 otherwise.
    """
    import torch

    from benchmarks.rows import device_name
    from torchfgsm.parity import recorded, table

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit(f"--device {device}: torch sees no CUDA device; use --device cpu")
    recording = recorded.load()
    name, found, rows = device_name(torch.device(device)), [], []
    for verdict in recorded_verdicts(recording, torch.device(device)):
        print(table.line(verdict), file=sys.stderr, flush=True)
        found.append(verdict)
        versions = recording.facts["versions"][verdict.case.library]
        rows.append(_row(verdict, versions, name))
        rows[-1].update(examples=recording.facts["examples"], cuda=torch.version.cuda or "")
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    write_rows(rows, RESULTS / f"parity-{slug}.csv")
    print(table.summary(found))
    return 0 if all(verdict.passed for verdict in found) else 1


def recorded_verdicts(recording: Any, device: torch.device) -> Iterator[Verdict]:
    """The port on a device against the recorded originals, case by case."""
    from torchfgsm import converters
    from torchfgsm.parity import run
    from torchfgsm.parity.cases import all_cases

    def load(path: Path) -> Any:
        return converters.load(path, verify=False).to(device)

    models = run.Converted(recording.paths, recording.data(), load)
    for case in all_cases():
        yield run.verdict(case, models, recording.expected(case), device)


def _row(found: Verdict, versions: Mapping[str, Any], device: str) -> dict[str, Any]:
    import torch

    from torchfgsm import __version__
    from torchfgsm.parity.table import row_of

    return {
        "library": found.case.library,
        **row_of(found),
        "library_version": versions["library_version"],
        "tensorflow": versions.get("tensorflow") or "",
        "torch": torch.__version__,
        "torchfgsm": __version__,
        "device": device,
    }


def write_rows(rows: list[dict[str, Any]], path: Path) -> None:
    """Writes the rows as CSV."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_rows() -> list[dict[str, str]]:
    """The rows of the last run."""
    with ROWS.open(newline="") as stream:
        return list(csv.DictReader(stream))


def table(rows: list[dict[str, str]]) -> str:
    """The rows as the README shows them: by library, kind of case, worst distance."""
    lines = [
        "| original | cases | bit-equal | equal by the rule | signs within noise | different "
        "| largest distance from float64: original | port |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for library in dict.fromkeys(row["library"] for row in rows):
        of = [row for row in rows if row["library"] == library]
        exact = sum(row["verdict"] == "bit-equal" for row in of)
        bad = sum(row["passed"] != "True" for row in of)
        noise = sum(int(row["signs_within_noise"] or 0) for row in of)
        far = {
            side: max(float(row[f"{side}_from_float64"] or 0) for row in of)
            for side in ("original", "port")
        }
        lines.append(
            f"| {library} {of[0]['library_version']} | {len(of)} | {exact} | "
            f"{len(of) - exact - bad} | {noise} | {bad} | {far['original']:.1e} | "
            f"{far['port']:.1e} |"
        )
    return "\n".join(lines)


def _in_readme(block: str) -> str:
    return with_block(README.read_text(), "parity", block)


def plot(rows: list[dict[str, str]]) -> None:
    """The distances from float64 of port and original, from the rows alone."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    judged = [r for r in rows if r["port_from_float64"] and r["original_from_float64"]]
    figure, axes = pyplot.subplots(figsize=(6, 6))
    floor = 1e-9
    for library in dict.fromkeys(row["library"] for row in judged):
        of = [row for row in judged if row["library"] == library]
        pairs = [
            (float(r["original_from_float64"]) + floor, float(r["port_from_float64"]) + floor)
            for r in of
        ]
        axes.loglog(*zip(*pairs, strict=True), "o", label=library, alpha=0.6)
    ends = [floor, 1.0]
    axes.plot(ends, ends, color="grey", linewidth=1)
    axes.plot(ends, [4 * e for e in ends], color="grey", linewidth=1, linestyle="--")
    axes.set_xlabel("original: largest distance from float64")
    axes.set_ylabel("port: largest distance from float64")
    axes.set_title("Port and original against float64 (dashed: 4 times)")
    axes.legend()
    figure.tight_layout()
    figure.savefig(PLOT, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
