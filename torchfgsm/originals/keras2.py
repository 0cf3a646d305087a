"""Keras 3 models for the originals, which run on Keras 2: the same model in a file of its."""

from __future__ import annotations

from pathlib import Path

from torchfgsm.converters.tensorflow_side.archives import read_json
from torchfgsm.originals.environment import KERAS_3
from torchfgsm.originals.process import Worker, WorkerError

TOLERANCE = 1e-5  # of the largest output; float32 sums in another order stay below 1e-6
# Seconds; Keras 2 searches without end for a call that a configuration does not have.
_PATIENCE = 200.0
_REBUILDING = Path(__file__).parent / "workers" / "rebuilding.py"


def keras2_file(path: Path, folder: Path, *, allow_unsafe: bool = False) -> Path:
    """Returns a file with the model of ``path`` that Keras 2 reads.

    A Keras 3 model is rebuilt layer by layer with its weights; the file that Keras 2 wrote and
    read again must give the outputs that Keras 3 gives, within ``TOLERANCE``. Any other path is
    returned as it is, unreadable files too: reading them says what is the matter.

    Args:
        path: a .keras or .h5 file or a SavedModel folder.
        folder: where a new file may be written.
        allow_unsafe: Python code that lies in the file may run.

    Raises:
        ValueError: a SavedModel without its Keras model or with a Lambda layer; a Keras 3 layer or
            setting that Keras 2 lacks; outputs that differ.
        EnvironmentUnavailable: the TensorFlow environment cannot be had.
    """
    if path.is_dir():
        _refuse_graph(path, allow_unsafe)
        return path
    try:
        if not _is_keras_3(path):
            return path
        file = folder / f"{path.stem}.keras"
        difference = _rebuild(path, file, allow_unsafe)
    except WorkerError as error:
        raise ValueError(f"{path}: {error.message}") from error
    if not difference <= TOLERANCE:  # also where it is no number
        raise ValueError(
            f"{path}: the originals cannot run this Keras 3 model: rebuilt in Keras 2 its "
            f"outputs differ by {difference:.1e} of the largest (at most {TOLERANCE:g} expected)"
        )
    return file


def _rebuild(path: Path, file: Path, allow_unsafe: bool) -> float:
    """Writes the model as Keras 2 has it; returns how far its outputs are from Keras 3's."""
    with Worker(KERAS_3, _REBUILDING, timeout=_PATIENCE) as worker:
        reply = worker.call("rebuild", model=str(path), path=str(file), allow_unsafe=allow_unsafe)
    return float(reply.values["difference"])


def _is_keras_3(path: Path) -> bool:
    if path.suffix == ".h5":
        with Worker(KERAS_3, _REBUILDING) as worker:
            version = worker.call("version", path=str(path)).values["keras_version"]
        return str(version).startswith("3")
    try:
        version = read_json(path, "metadata.json")["keras_version"]
    except (KeyError, OSError, TypeError, ValueError):
        return False
    return str(version).startswith("3")


def _refuse_graph(path: Path, allow_unsafe: bool) -> None:
    metadata = path / "keras_metadata.pb"
    if not (path / "saved_model.pb").is_file():
        return  # no SavedModel at all: reading it says so
    if not metadata.is_file():
        raise ValueError(
            f"{path}: the originals need a Keras model, this SavedModel holds its graph alone; "
            "give the .keras or .h5 file that it was exported from"
        )
    if not allow_unsafe and b'"class_name": "Lambda"' in metadata.read_bytes():
        raise ValueError(
            f"{path}: the originals cannot run a Lambda layer without running the Python code "
            "that lies in the folder; replace it by Keras layers, or allow it (--allow-unsafe)"
        )
