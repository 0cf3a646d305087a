"""Exports TensorFlow models to annotated ONNX, in a TensorFlow process of their own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import site
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import Distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torchfgsm.converters.annotating import annotate
from torchfgsm.converters.annotation import Annotation, Array
from torchfgsm.converters.errors import ConversionError, named
from torchfgsm.converters.formats import HDF5, needs
from torchfgsm.converters.onnx_side.inference import infer
from torchfgsm.converters.options import Options
from torchfgsm.converters.tensorflow_side.messages import cause
from torchfgsm.converters.writing import refuse_size
from torchfgsm.originals.environment import KERAS_2, KERAS_3, RUNTIMES

if TYPE_CHECKING:
    from torchfgsm.originals.process import Reply, Worker

_TENSORFLOW = ("tensorflow", "tensorflow-cpu", "tensorflow-macos", "tensorflow-intel")
_OLDEST_TF2ONNX = (1, 16)


def own_python(runtime: str) -> Path | None:
    """Returns this interpreter where a worker can run in it, else None.

    It can where the packages hold tf2onnx and a TensorFlow that fits: for Keras 2 version 2.15, or
    a later one beside tf-keras; for Keras 3 version 2.16 or later. Nothing is imported to find out.
    The variable that names the environment's interpreter goes first.
    """
    if os.environ.get(RUNTIMES[runtime].variable):
        return None
    # A worker sees no more than these folders: neither PYTHONPATH nor the user's own packages.
    folders = site.getsitepackages()
    return Path(sys.executable) if fits(runtime, folders) else None


def fits(runtime: str, folders: list[str]) -> bool:
    """Whether the packages in these folders do what the runtime is made for."""
    found = [_version(name, folders) for name in _TENSORFLOW]
    tensorflow = next((version for version in found if version), ())
    if _version("tf2onnx", folders) < _OLDEST_TF2ONNX:
        return False
    if runtime == KERAS_2 and not _version("tf-keras", folders):
        return tensorflow[:2] == (2, 15)
    if runtime == KERAS_2:
        return tensorflow >= (2, 16)
    return tensorflow >= (2, 16) and _version("keras", folders) >= (3,)


def _version(package: str, folders: list[str]) -> tuple[int, ...]:
    """Returns the version's leading numbers, none where the package is absent."""
    for distribution in Distribution.discover(name=package, path=folders):
        parts = distribution.version.split(".")[:2]
        return tuple(int(part) for part in parts if part.isdigit())
    return ()


WORKER = Path(__file__).with_name("export_worker.py")


class TensorFlowSide(Protocol):
    """What answers calls: a worker, or TensorFlow in this process."""

    def call(self, method: str, arrays: Mapping[str, Array], /, **params: Any) -> Reply:
        """Returns a handler's reply; raises WorkerError."""


@dataclass
class Exporter:
    """A running TensorFlow side and how it is to read the model.

    Attributes:
        worker: what is called.
        path: the model's file, or what stands for it in messages.
        format: "keras", "saved_model", "frozen_graph" or "tflite".
        options: what the caller asked for.
        batches: how many batches a verification is going to ask for, to report them.
    """

    worker: TensorFlowSide
    path: Path
    format: str
    options: Options = field(default_factory=Options)
    batches: int = 0
    _batch: int = 0

    def call(self, method: str, arrays: dict[str, Array] | None = None, **params: Any) -> Reply:
        """Calls the worker; what it refuses becomes a ConversionError of one line."""
        from torchfgsm.originals.process import WorkerError

        # Each batch is asked for in the model's own precision once, then in others perhaps.
        asked = method == "evaluate" and params["precision"] == self.options.precision
        if self.batches and asked:
            self._batch += 1
            self.options.report(f"verifying {min(self._batch, self.batches)} of {self.batches}")
        try:
            return self.worker.call(method, arrays or {}, **params)
        except WorkerError as error:
            raise ConversionError(f"{self.path}: {_one_line(error, method)}") from error

    def export(self) -> tuple[Any, Annotation]:
        """Returns the ONNX model, with its annotation written into it, and the annotation."""
        options = self.options
        options.report("exporting")
        custom_objects = options.custom_objects
        reply = self.call(
            "export",
            path=str(self.path),
            format=self.format,
            precision=options.precision,
            custom_objects=None if custom_objects is None else os.path.abspath(custom_objects),
            allow_unsafe=options.allow_unsafe,
            input_names=_listed(options.input_names),
            output_names=_listed(options.output_names),
        )
        with named(self.path):
            refuse_size(sum(array.nbytes for array in reply.arrays.values()))
            model, annotation = annotate(reply.values, reply.arrays, self.path.name)
            if self.format == "tflite":  # its weights came as constants of the graph
                weights = infer(model, self.path.name).weights
                annotation = dataclasses.replace(annotation, weights=weights)
                size = reply.values["batch"]
                if size is not None and not options.verify:
                    annotation = annotation.unverified_beyond(size)
                annotation.write(model)
        return model, annotation


@contextlib.contextmanager
def exporter(
    path: Path, worker: Worker | None, options: Options | None = None
) -> Iterator[Exporter]:
    """Opens the export worker that the file needs, or uses the given one.

    Raises:
        ConversionError: there is no such file, or it is not of its suffix's format.
        EnvironmentUnavailable: the TensorFlow environment cannot be had.
    """
    options = options or Options()
    runtime, form = needs(path, allow_unsafe=options.allow_unsafe)
    with contextlib.ExitStack() as stack:
        options.report("starting TensorFlow")
        process = worker or stack.enter_context(_worker(runtime, options))
        if path.suffix in HDF5:
            look = Exporter(process, path, form).call("look", path=str(path))
            if worker is None and not str(look.values["keras_version"]).startswith("2"):
                process.close()
                process = stack.enter_context(_worker(KERAS_3, options))
        yield Exporter(process, path, form, options)


def _worker(runtime: str, options: Options) -> Worker:
    from torchfgsm.originals.process import Worker

    return Worker(runtime, WORKER, python=own_python(runtime), timeout=options.timeout)


def _listed(names: Sequence[str] | None) -> list[str] | None:
    if names is None:
        return None
    return [names] if isinstance(names, str) else list(names)


def _one_line(error: Any, method: str) -> str:
    text = cause(error.message)
    text = text if len(text) <= 400 else text[:400] + " ..."
    if error.kind == "UnsupportedModelError":
        return text
    if error.kind == "TimedOut":
        return f"TensorFlow took too long ({text}): give it more with timeout= (--timeout)"
    if error.kind == "OutOfMemory":
        return f"TensorFlow needs too much memory ({text})"
    if error.kind == "Died":
        last = error.remote_traceback.splitlines()[-1:]
        return (
            f"TensorFlow's process ended ({text}), for want of memory or by a fault of its own: "
            f"{' '.join(last)}"
        )
    doing = "read" if method in ("look", "export") else "compute"
    return f"TensorFlow could not {doing} it: {error.kind}: {text}"
