"""One row per provider and case, in CSV: what every timed benchmark writes and every plot reads."""

from __future__ import annotations

import csv
import dataclasses
import fcntl
import functools
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from torchfgsm import __version__
from torchfgsm.cli.env import driver_version


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one provider took for one case.

    Attributes:
        benchmark: Which measurement: "step", "host cost", "whole attack", "training step".
        provider: Who computes it; see the benchmark.
        provider_version: The provider's version, "" when it is not installed.
        attack: "step", "fgsm", "pgd-10", ...
        norm: "linf", "l2" or "l1".
        dtype: Of the input.
        batch: Number of examples.
        example: Elements of one example.
        model: The attacked model, "" for the step alone.
        labels: "given" or "predicted", "" for the step alone.
        device: The device's name.
        torch: Version of torch.
        cuda: Version of CUDA that torch was built with, "" on a CPU.
        driver: Version of NVIDIA's driver, "" on a CPU.
        torchfgsm: Version of this package.
        threads: Number of torch's CPU threads.
        status: "ok"; "different" (another result: not timed); "unavailable" (could not run).
        reason: Why it is not "ok", or what is worth knowing about it.
        p20_ms: 20% of the rounds were faster than this; milliseconds of one call.
        p50_ms: The median.
        p80_ms: 80% of the rounds were faster than this.
        cpu_ms: The processor's time for one call, all threads together; median, on a CPU alone.
        bytes: What one call must read and write at least, where that is the measure.
        gb_per_s: `bytes` over the median, in 1e9 bytes per second.
        reference: The provider that `ratio` is taken to.
        ratio: Median over the rounds of this time over the reference's in the same round; time
            per byte where both have `bytes`.
        peak_mib: Peak memory of the first call over what was in use before.
        memory: What `peak_mib` is: "allocated on the device" or "saved for backward".
    """

    benchmark: str
    provider: str
    provider_version: str = ""
    attack: str = ""
    norm: str = ""
    dtype: str = "float32"
    batch: int = 0
    example: int = 0
    model: str = ""
    labels: str = ""
    device: str = ""
    torch: str = ""
    cuda: str = ""
    driver: str = ""
    torchfgsm: str = ""
    threads: int = 0
    status: str = "ok"
    reason: str = ""
    p20_ms: float | None = None
    p50_ms: float | None = None
    p80_ms: float | None = None
    cpu_ms: float | None = None
    bytes: int | None = None
    gb_per_s: float | None = None
    reference: str = ""
    ratio: float | None = None
    peak_mib: float | None = None
    memory: str = ""


_NAMES = [field.name for field in fields(Row)]
_KEY = _NAMES[: _NAMES.index("status")]


def on_device(row: Row, device: torch.device) -> Row:
    """The row with the facts of the device and of the versions that ran."""
    cuda = device.type == "cuda"
    return dataclasses.replace(
        row,
        device=device_name(device),
        torch=torch.__version__,
        cuda=torch.version.cuda or "" if cuda else "",
        driver=_driver() or "" if cuda else "",
        torchfgsm=__version__,
        threads=torch.get_num_threads(),
    )


# Asked once: it takes a process.
_driver = functools.cache(driver_version)


def device_name(device: torch.device) -> str:
    """A device as rows name it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {platform.machine()}"


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a file, none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def replace_all(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Writes rows of any columns, those of the first; old ones are gone."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write(path: Path, rows: Iterable[Row]) -> None:
    """Adds rows to a file; a row with the key of an old one takes its place.

    The key is everything but the measurements: provider, case, device and versions.
    """
    merge(path, map(vars, rows), _NAMES, _KEY, digits=5)


def merge(
    path: Path,
    rows: Iterable[Mapping[str, object]],
    names: Sequence[str],
    key: Sequence[str],
    *,
    digits: int,
) -> None:
    """Adds rows to a CSV file, also while others do; one of an old row's key takes its place.

    Args:
        path: The file; it is made where there is none.
        rows: Values by name.
        names: The columns.
        key: The columns that say what was measured.
        digits: Significant digits of floats.
    """

    def key_of(row: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(row[name] for name in key)

    new = [{name: _text(value, digits) for name, value in row.items()} for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", newline="", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        kept = {key_of(row): row for row in csv.DictReader(file)}
        kept.update((key_of(row), row) for row in new)
        file.truncate(0)
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept.values())


def _text(value: object, digits: int) -> str:
    if value is None:
        return ""
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)
