"""Exports TensorFlow models to annotated ONNX, in a TensorFlow process of their own."""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchfgsm.converters.annotating import annotate
from torchfgsm.converters.annotation import Annotation, Array
from torchfgsm.converters.errors import ConversionError, named

if TYPE_CHECKING:
    from torchfgsm.originals.process import Reply, Worker

KERAS_2 = "tensorflow-2.15"
KERAS_3 = "tensorflow-2.21"
WORKER = Path(__file__).with_name("export_worker.py")


@dataclass(frozen=True)
class Exporter:
    """A running export worker and how it is to read the model."""

    worker: Worker
    path: Path
    format: str

    def call(self, method: str, arrays: dict[str, Array] | None = None, **params: Any) -> Reply:
        """Calls the worker; what it refuses becomes a ConversionError of one line."""
        from torchfgsm.originals.process import WorkerError

        try:
            return self.worker.call(method, arrays or {}, **params)
        except WorkerError as error:
            raise ConversionError(f"{self.path}: {_one_line(error.kind, error.message)}") from error

    def export(self) -> tuple[Any, Annotation]:
        """Returns the ONNX model, with its annotation written into it, and the annotation."""
        reply = self.call("export", path=str(self.path), format=self.format)
        with named(self.path):
            return annotate(reply.values, reply.arrays, self.path.name)


@contextlib.contextmanager
def exporter(path: Path, worker: Worker | None) -> Iterator[Exporter]:
    """Opens the export worker that the file needs, or uses the given one.

    Raises:
        ConversionError: there is no such file, or it is not of its suffix's format.
        EnvironmentUnavailable: the TensorFlow environment cannot be had.
    """
    from torchfgsm.originals.process import Worker

    environment, form = needs(path)
    with contextlib.ExitStack() as stack:
        process = worker or stack.enter_context(Worker(environment, WORKER))
        if path.suffix == ".h5":
            look = Exporter(process, path, form).call("look", path=str(path))
            if worker is None and not str(look.values["keras_version"]).startswith("2"):
                process.close()
                process = stack.enter_context(Worker(KERAS_3, WORKER))
        yield Exporter(process, path, form)


def needs(path: Path) -> tuple[str, str]:
    """Returns the environment and the format that a model file needs."""
    if not path.exists():
        raise ConversionError(f"{path}: expected a model, found no such file or folder")
    if path.suffix == ".keras":
        return (KERAS_2 if _keras_major(path) == 2 else KERAS_3), "keras"
    if path.suffix == ".h5":
        return KERAS_2, "keras"
    if not (path / "saved_model.pb").is_file():
        raise ConversionError(
            f"{path}: expected a SavedModel folder, found no saved_model.pb in it"
        )
    metadata = path / "keras_metadata.pb"
    # Keras would run the Python code of a Lambda layer; the graph alone holds what it computes.
    if metadata.is_file() and b'"class_name": "Lambda"' not in metadata.read_bytes():
        return KERAS_2, "keras"
    return KERAS_3, "saved_model"


def _keras_major(path: Path) -> int:
    try:
        with zipfile.ZipFile(path) as archive:
            version = json.loads(archive.read("metadata.json"))["keras_version"]
        return int(str(version).split(".")[0])
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise ConversionError(
            f"{path}: expected a Keras model file (a zip archive with metadata.json), "
            f"could not read it as one: {error}"
        ) from error


def _one_line(kind: str, message: str) -> str:
    text = " ".join(message.split())
    text = text if len(text) <= 400 else text[:400] + " ..."
    return (
        text if kind == "UnsupportedModelError" else f"TensorFlow could not read it: {kind}: {text}"
    )
