"""Rows of the trainings: one number each, in CSV, which the page and its plot are made from."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

Rows = list[dict[str, str]]

# Trainings in the part "robustness": one library configured as the other.
TRANSLATED = {
    "CleverHans 3 as NSL's defaults": "NSL at its defaults",
    "NSL as CleverHans 3 with true labels": "CleverHans 3 with true labels",
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured number.

    Attributes:
        part: "robustness", "mapping" or "rounding".
        library: "nsl" or "cleverhans3".
        case: Which training; see the part.
        model: "plain" or "batchnorm".
        norm: Of the attack in training.
        optimizer: "sgd", "momentum" or "adam".
        precision: "float32" or "float64".
        side: "original" or "port".
        seed: Of the initial weights and of the order of the examples.
        steps: After how many steps.
        measure: What was measured.
        value: The number.
        library_version: The original's version; of both originals where two are compared.
        tensorflow: Version of TensorFlow.
        torch: Version of torch.
        torchfgsm: Version of this package.
        device: Where all of it ran.
    """

    part: str
    library: str
    case: str
    model: str
    norm: str
    optimizer: str
    precision: str
    side: str
    seed: int
    steps: int
    measure: str
    value: float
    library_version: str = ""
    tensorflow: str = ""
    torch: str = ""
    torchfgsm: str = ""
    device: str = ""


def write(path: Path, rows: Iterable[Row]) -> None:
    """Writes the rows; old ones are gone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [field.name for field in dataclasses.fields(Row)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({**vars(row), "value": f"{row.value:.5g}"})


def read(path: Path) -> Rows:
    """The rows of the last run."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def of(rows: Rows, **fields: object) -> Rows:
    """The rows that have these values."""
    wanted = {name: str(value) for name, value in fields.items()}
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def values(rows: Rows, **fields: object) -> list[float]:
    """The numbers of the rows that have these values."""
    return [float(row["value"]) for row in of(rows, **fields)]
