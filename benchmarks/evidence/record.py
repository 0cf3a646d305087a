"""Records the originals' results: `python -m benchmarks.evidence.record`.

Trains the demo's models, runs every case on the live originals, and writes what they gave, the
data and the exported models into the package, where `torchfgsm demo --recorded` and the tests
read them. Run it again after a change of the cases; the port takes no part in what is recorded.
"""

from __future__ import annotations

import inspect
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from torchfgsm import converters
from torchfgsm.libraries.configuration import LIBRARIES
from torchfgsm.originals.cleverhans_torch import CleverHansTorch
from torchfgsm.parity import digits, recorded
from torchfgsm.parity.cases import all_cases
from torchfgsm.parity.originals_side import Originals
from torchfgsm.parity.run import live

# Fewer than the demo's: the file ships in the wheel.
COUNT = 20


def main() -> int:
    """Records everything; 0 when done."""
    with tempfile.TemporaryDirectory() as name, Originals() as originals:
        folder = Path(name)
        accuracies = digits.train_models(folder)
        models = digits.in_folder(folder, COUNT, converters.load)
        expected = live(originals, models)
        results = {}
        for case in all_cases():
            print(case.name, file=sys.stderr, flush=True)
            found = expected(case)
            results[case.name] = {k: v for k, v in found.items() if not _is_text(v)}
        facts = {
            "versions": {library: originals.versions(library) for library in LIBRARIES},
            "signatures": signatures(originals),
            "accuracies": accuracies,
            "classes": 10,
            "examples": COUNT,
        }

        def export(model: str, path: Path) -> None:
            converters.export_onnx(models.paths[model], path)

        data = {model: models.data(model) for model in digits.MODELS}
        recorded.save(recorded.FOLDER, facts, results, data, export)
    return 0


def _is_text(value: Any) -> bool:
    return np.asarray(value).dtype.kind not in "fiub"


def signatures(originals: Originals) -> dict[str, Any]:
    """The originals' public signatures by library: {function: [[parameter, kind, default]]}."""
    found = {
        library: originals.worker(library).call("signatures").values
        for library in LIBRARIES
        if library != "cleverhans-torch"
    }
    return {**found, "cleverhans-torch": _of_torch(originals.cleverhans_torch)}


def _of_torch(original: CleverHansTorch) -> dict[str, list[list[Any]]]:
    functions = {name: value for name, value in vars(original).items() if callable(value)}
    return {
        name: [
            [p.name, p.kind.name, None if p.default is p.empty else repr(p.default)]
            for p in inspect.signature(function).parameters.values()
        ]
        for name, function in functions.items()
    }


if __name__ == "__main__":
    sys.exit(main())
