"""One row per model, Keras version and route of a conversion, in CSV."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path

from benchmarks.rows import merge
from torchfgsm import __version__

# In the order in which they run: what the .keras file leaves behind serves the ONNX file's.
ROUTES = ("keras", "onnx", "h5", "saved_model", "frozen", "tflite")
# keras.applications take minutes each.
LARGE_ROUTES = ("keras",)

Rows = list[dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class Row:
    """What came of one conversion.

    Attributes:
        model: Name of the model in `zoo`.
        keras: "2" or "3".
        route: One of `ROUTES`; "onnx" is the file exported from the .keras file, read without
            TensorFlow.
        verdict: "ok"; "refused" (a ConversionError says why), "different" (converted, but not the
            same function), "weights" (another number of trained floats than Keras has), "failed"
            (any other error), "not saved" (Keras itself cannot write this file).
        reason: The error's one line, or "".
        output_error: Largest difference of an output or logit from TensorFlow's over all batches,
            relative to the largest entry.
        gradient_error: The same of the input gradients; None where there are none.
        float64: Whether float64 had to judge where float32 fell short.
        trained: Floats that require a gradient in the torch module.
        keras_trained: Floats that Keras trains.
        training: "ok", or why a training step differs or was refused; "" where not asked.
        ops: The operations of the ONNX graph, in alphabetical order.
        export_s: Seconds of the export in the TensorFlow process.
        build_s: Seconds from there to the torch module.
        verify_s: Seconds of the verification.
        tensorflow: Version of TensorFlow.
        keras_version: Version of Keras.
        tf2onnx: Version of tf2onnx.
        onnx: Version of onnx.
        onnx2torch: Version of onnx2torch.
        torch: Version of torch.
        torchfgsm: Version of this package.
        device: The processor's kind.
    """

    model: str
    keras: str
    route: str
    verdict: str = "ok"
    reason: str = ""
    output_error: float | None = None
    gradient_error: float | None = None
    float64: bool = False
    trained: int | None = None
    keras_trained: int | None = None
    training: str = ""
    ops: str = ""
    export_s: float | None = None
    build_s: float | None = None
    verify_s: float | None = None
    tensorflow: str = ""
    keras_version: str = ""
    tf2onnx: str = ""
    onnx: str = ""
    onnx2torch: str = ""
    torch: str = ""
    torchfgsm: str = __version__
    device: str = f"cpu, {platform.machine()}"


VERSIONS = ("tensorflow", "keras_version", "tf2onnx", "onnx", "onnx2torch", "torch", "torchfgsm")
_NAMES = [field.name for field in fields(Row)]
_KEY = ("model", "keras", "route")


def torch_side_versions() -> dict[str, str]:
    """The versions of this process, by their fields."""
    return {name: version(name) for name in ("onnx", "onnx2torch", "torch")}


def write(path: Path, rows: Iterable[Row]) -> None:
    """Adds rows to a file; one of the same model, Keras and route takes the old one's place.

    Runs of the two Keras versions may write into one file at the same time.
    """
    merge(path, map(vars, rows), _NAMES, _KEY, digits=3)


def cover(rows: Rows) -> Rows:
    """A few conversions, quick ones first, that hold every operation of all that are ok."""
    left = [r for r in rows if r["verdict"] == "ok" and r["route"] != "onnx"]
    missing = {operation for row in left for operation in row["ops"].split()}
    found: Rows = []

    def gain(row: dict[str, str]) -> float:
        seconds = sum(float(row[f"{part}_s"]) for part in ("export", "build", "verify"))
        return len(missing.intersection(row["ops"].split())) / (1 + seconds)

    while missing:
        best = max(left, key=gain)
        found.append(best)
        missing.difference_update(best["ops"].split())
    return found
