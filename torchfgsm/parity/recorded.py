"""Results of the originals as they were recorded, so that no TensorFlow is needed to compare."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from torchfgsm.parity.cases import Case
from torchfgsm.parity.data import Array, Data
from torchfgsm.system import whole_file

FOLDER = Path(__file__).parent / "results"
_ARRAYS = "originals.npz"
_FACTS = "originals.json"
# Between a case's name and an array's; neither contains it.
_SEPARATOR = "|"


@dataclass(frozen=True)
class Recording:
    """What the originals gave, on which data and models, and which versions they were.

    Attributes:
        facts: Versions by library, and the data's number of classes.
        arrays: Case or "data <model>", separator, name -> array.
        paths: Model -> its ONNX file.
    """

    facts: dict[str, Any]
    arrays: Mapping[str, Array]
    paths: dict[str, Path]

    def expected(self, case: Case) -> dict[str, Array]:
        """The recorded arrays of a case.

        Raises:
            KeyError: The case was not recorded.
        """
        prefix = case.name + _SEPARATOR
        found = {k[len(prefix) :]: a for k, a in self.arrays.items() if k.startswith(prefix)}
        if not found:
            raise KeyError(f"no recorded result of {case.name!r}; record again")
        return found

    def data(self) -> dict[str, Data]:
        """The batch of each model."""
        batches = {}
        for model in self.paths:
            given = self.expected_data(model)
            y = given.pop("y")
            batches[model] = Data(given, y, int(self.facts["classes"]))
        return batches

    def expected_data(self, model: str) -> dict[str, Array]:
        """Inputs and labels of a model's batch."""
        prefix = f"data {model}{_SEPARATOR}"
        return {k[len(prefix) :]: a for k, a in self.arrays.items() if k.startswith(prefix)}


def load(folder: Path = FOLDER) -> Recording:
    """Reads a recording.

    Raises:
        FileNotFoundError: There is none.
    """
    if not (folder / _ARRAYS).exists():
        raise FileNotFoundError(f"no recorded results in {folder}: run benchmarks/record.py")
    with np.load(folder / _ARRAYS, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    facts = json.loads((folder / _FACTS).read_text())
    paths = {path.stem: path for path in sorted(folder.glob("*.onnx"))}
    return Recording(facts, arrays, paths)


def save(
    folder: Path,
    facts: Mapping[str, Any],
    results: Mapping[str, Mapping[str, Array]],
    data: Mapping[str, Data],
    export: Callable[[str, Path], None],
) -> None:
    """Writes a recording; each file is whole or not there.

    Args:
        folder: Where to.
        facts: Versions and whatever else a reader needs.
        results: Case name -> arrays.
        data: Model -> batch.
        export: (model, path) writes a model's ONNX file.
    """
    arrays = {
        f"{case}{_SEPARATOR}{name}": value
        for case, found in results.items()
        for name, value in found.items()
    }
    for model, batch in data.items():
        for name, value in {**batch.x, "y": batch.y}.items():
            arrays[f"data {model}{_SEPARATOR}{name}"] = value
    folder.mkdir(parents=True, exist_ok=True)
    for model in data:
        export(model, folder / f"{model}.onnx")
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    whole_file.write(folder / _ARRAYS, stream.getvalue())
    text = json.dumps(facts, indent=2, sort_keys=True) + "\n"
    whole_file.write(folder / _FACTS, text.encode())
