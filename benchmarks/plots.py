"""Plots of the timed benchmarks, from the rows of their CSV alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.training.rows import TRANSLATED

Rows = Sequence[dict[str, str]]

_RATIO = ("ratio", "time / time of {reference}")
_MEMORY = ("peak_mib", "peak memory, MiB")
_MARKERS = tuple("os^DvPX*<>phd8H1+x")


def ratios(rows: Rows, path: Path) -> None:
    """Each provider's time over the reference's, a line per case, a panel per device."""
    _dots(rows, path, [_RATIO])


def time_and_memory(rows: Rows, path: Path) -> None:
    """Each provider's time over the reference's, and its peak memory, a line per device."""
    _dots(rows, path, [_RATIO, _MEMORY])


def _dots(rows: Rows, path: Path, measures: Sequence[tuple[str, str]]) -> None:
    from matplotlib import ticker

    timed = [row for row in rows if row["status"] == "ok"]
    devices = _distinct(timed, lambda row: row["device"])
    cases = {d: _distinct([r for r in timed if r["device"] == d], _case) for d in devices}
    height = 1.5 + sum(1 + 0.25 * len(found) for found in cases.values())
    figure, grid = _figure(len(devices), len(measures), (3 + 5 * len(measures), height))
    for line, device in enumerate(devices):
        heights = {case: -place for place, case in enumerate(cases[device])}
        for column, (measure, label) in enumerate(measures):
            axes = grid[line][column]
            for provider, marker in _providers(timed):
                of = [r for r in timed if (r["device"], r["provider"]) == (device, provider)]
                points = [(float(r[measure]), heights[_case(r)]) for r in of if r[measure]]
                axes.semilogx(*_columns(points), marker, label=provider)
            for format_ticks in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
                format_ticks(ticker.LogFormatter())
            axes.set_yticks(list(heights.values()), list(heights) if column == 0 else [])
            axes.set(xlabel=label.format(reference=timed[0]["reference"]), title=device)
            axes.grid(alpha=0.3)
    _save(figure, grid, path)


def bandwidth(rows: Rows, path: Path) -> None:
    """GB/s by size of x and by length of an example, a panel per norm, device and dtype."""
    timed = [row for row in rows if row["benchmark"] == "step" and row["status"] == "ok"]
    kinds = _distinct(timed, _device_and_dtype)
    lines = [(kind, over) for kind in kinds for over in ("MB of x", "elements of an example")]
    norms = _distinct(timed, lambda row: row["norm"])
    figure, grid = _figure(len(lines), len(norms), (1 + 4 * len(norms), 1 + 3 * len(lines)))
    for line, (kind, over) in enumerate(lines):
        for column, norm in enumerate(norms):
            axes = grid[line][column]
            here = [r for r in timed if (_device_and_dtype(r), r["norm"]) == (kind, norm)]
            for provider, marker in _providers(timed):
                points = _points(here, provider, over)
                axes.loglog(*_columns(points), f"{marker}-", label=provider)
            axes.set(xlabel=over, ylabel="GB/s")
            axes.set_title(f"{kind}, {norm}", fontsize=9)
            axes.grid(alpha=0.3)
    _save(figure, grid, path)


def robustness(rows: Rows, path: Path) -> None:
    """Median accuracy under attack by radius: originals as lines, the port as marks."""
    found = [r for r in rows if (r["part"], r["precision"]) == ("robustness", "float32")]
    cases = _distinct(found, lambda row: row["case"])
    panels = {
        "each library by itself": [case for case in cases if case not in TRANSLATED],
        "one as the other": [case for pair in TRANSLATED.items() for case in pair[::-1]],
    }
    figure, grid = _figure(1, len(panels), (5 * len(panels), 5))
    for axes, (title, shown) in zip(grid[0], panels.items(), strict=True):
        for case in shown:
            color = f"C{cases.index(case)}"
            dashes = "--" if case in TRANSLATED else "-"
            axes.plot(*_medians(found, case, "original"), dashes, color=color, label=case)
            axes.plot(*_medians(found, case, "port"), _MARKERS[cases.index(case)], color=color)
        axes.set(xlabel="radius of PGD (L-inf)", ylabel="accuracy", title=title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    # Each panel has a legend of its own.
    _save(figure, None, path)


def _medians(rows: Rows, case: str, side: str) -> tuple[list[float], list[float]]:
    """Radii and median accuracies over the seeds."""
    by_radius: dict[float, list[float]] = {}
    for row in rows:
        if (row["case"], row["side"]) == (case, side) and row["measure"].startswith("accuracy"):
            radius = float(row["measure"].rpartition(" ")[2])
            by_radius.setdefault(radius, []).append(float(row["value"]))
    return _columns([(radius, median(found)) for radius, found in sorted(by_radius.items())])


def _points(rows: Rows, provider: str, over: str) -> list[tuple[float, float]]:
    """(x, GB/s) of a provider: by size at the commonest example, or by example."""
    examples = [row["example"] for row in rows]
    usual = max(examples, key=examples.count, default="")
    of = [row for row in rows if row["provider"] == provider]
    if over == "MB of x":
        chosen = [(_megabytes(row), row) for row in of if row["example"] == usual]
    else:
        # The sizes differ a little, since a batch is a whole number of examples.
        sizes = [_megabytes(row) for row in rows if row["example"] != usual]
        size = max(sizes, default=0.0)
        chosen = [(float(r["example"]), r) for r in of if abs(_megabytes(r) - size) <= 0.1 * size]
    return sorted((at, float(row["gb_per_s"])) for at, row in chosen)


def _megabytes(row: dict[str, str]) -> float:
    width = 4 if row["dtype"] == "float32" else 2
    return int(row["batch"]) * int(row["example"]) * width / 1e6


def _device_and_dtype(row: dict[str, str]) -> str:
    return f"{row['device']}, {row['dtype']}"


def _case(row: dict[str, str]) -> str:
    attack = f"{row['attack']} {row['norm']}, y {row['labels']}"
    return f"{row['model']}, {attack}, batch {row['batch']}, threads {row['threads']}"


def _distinct(rows: Rows, of: Callable[[dict[str, str]], str]) -> list[str]:
    return list(dict.fromkeys(of(row) for row in rows))


def _providers(rows: Rows) -> list[tuple[str, str]]:
    """The providers, each with a marker of its own."""
    names = _distinct(rows, lambda row: row["provider"])
    return [(name, _MARKERS[place % len(_MARKERS)]) for place, name in enumerate(names)]


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [first for first, _ in points], [second for _, second in points]


def _figure(lines: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shape = max(lines, 1), max(columns, 1)
    return pyplot.subplots(*shape, figsize=size, squeeze=False, layout="constrained")


def _save(figure: Any, grid: Any, path: Path) -> None:
    from matplotlib import pyplot

    handles, labels = grid[0][0].get_legend_handles_labels() if grid is not None else ([], [])
    if handles:
        figure.legend(handles, labels, loc="outside upper center", ncols=4)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
