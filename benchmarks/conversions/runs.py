"""Converts the models of `zoo`, each by each route, and measures what came of it."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmarks.conversions.rows import LARGE_ROUTES, Row, torch_side_versions
from benchmarks.speed.timing import reason_of
from torchfgsm.converters import ConversionError, ConvertedModel, export_onnx, load
from torchfgsm.originals.environment import KERAS_2, KERAS_3
from torchfgsm.originals.process import Reply, Worker, WorkerError

if TYPE_CHECKING:
    from torchfgsm.converters.options import Keywords

WORKER = Path(__file__).with_name("models_worker.py")
# Where a file lies on the machine that measured.
_FOLDERS = re.compile(r"/(?:[\w.-]+/)+(?=[\w-]+\.py)")
ENVIRONMENTS = {"2": KERAS_2, "3": KERAS_3}
_SUFFIXES = {
    "keras": ".keras",
    "h5": ".h5",
    "saved_model": "",
    "frozen": ".pb",
    "tflite": ".tflite",
}
# Where all weights are known by name; elsewhere they are what the graph multiplies with.
_NAMED_WEIGHTS = ("keras", "h5", "saved_model", "onnx")
# Characters of an error that a row keeps.
_REASON = 300

Array = npt.NDArray[Any]


class Observed(Worker):
    """A worker that keeps what TensorFlow answered during a conversion.

    Attributes:
        graph: the ONNX graph of the last export, as bytes.
        results: the evaluations since the last file was built: arrays asked with, answered.
    """

    graph: bytes = b""
    results: list[tuple[dict[str, Array], dict[str, Array]]]

    def call(
        self, method: str, arrays: Mapping[str, npt.ArrayLike] | None = None, /, **params: Any
    ) -> Reply:
        """Calls a handler, and notes the reply."""
        reply = super().call(method, arrays, **params)
        if method == "build":
            self.results = []
        elif method == "export":
            self.graph = reply.arrays["onnx"].tobytes()
        elif method in ("evaluate", "outputs"):
            asked = {name: np.asarray(array) for name, array in (arrays or {}).items()}
            self.results.append((asked, reply.arrays))
        return reply


@dataclass
class Steps:
    """The steps of a conversion with the times at which they began."""

    begun: list[tuple[str, float]] = field(default_factory=list)

    def __call__(self, step: str) -> None:
        """Notes that a step begins."""
        self.begun.append((step, time.perf_counter()))

    def seconds(self) -> dict[str, float]:
        """The seconds of export, build and verification, as fields of a row."""
        found = {"export_s": 0.0, "build_s": 0.0, "verify_s": 0.0}
        ends = [*(begin for _, begin in self.begun[1:]), time.perf_counter()]
        for (step, begin), end in zip(self.begun, ends, strict=True):
            for word in ("export", "build", "verify"):
                if step.startswith(word):
                    found[f"{word}_s"] += end - begin
        return found


@dataclass
class Bench:
    """One Keras version: its process and a folder for the files of the models."""

    keras: str
    folder: Path
    training: bool = False
    _worker: Observed | None = None
    _built: tuple[Path, Reply] | None = None

    def worker(self) -> Observed:
        """The process; a new one where the last one died."""
        with contextlib.suppress(WorkerError):
            if self._worker is not None:
                self._worker.call("models")
                return self._worker
        self._worker = Observed(ENVIRONMENTS[self.keras], WORKER)
        self._built = None
        return self._worker

    def close(self) -> None:
        """Ends the process."""
        if self._worker is not None:
            self._worker.close()

    def facts(self) -> dict[str, Any]:
        """The models' names and the versions."""
        return self.worker().call("models").values

    def rows(self, model: str, routes: tuple[str, ...]) -> Iterator[Row]:
        """Converts one model by each route; whatever goes wrong is a row's reason.

        A large model goes by `LARGE_ROUTES` alone.
        """
        facts = self.facts()
        if model in facts["large"]:
            routes = tuple(route for route in routes if route in LARGE_ROUTES)
        for route in routes:
            row = {"model": model, "keras": self.keras, "route": route, **facts["versions"]}
            found = self._measure(model, route)
            yield Row(**{**row, **torch_side_versions(), **found})

    def _measure(self, model: str, route: str) -> dict[str, Any]:
        source = "keras" if route == "onnx" else route
        path = self.folder / f"{model}{_SUFFIXES[source]}"
        try:
            built = self._build(model, path, source)
        except WorkerError as error:
            text = _FOLDERS.sub("", f"{error.kind}: {' '.join(error.message.split())}")
            return {"verdict": "not saved", "reason": text[:_REASON]}
        expected = {"keras_trained": built.values["trainable"]}
        try:
            return expected | self._convert(path, route, built)
        except ConversionError as error:
            text = str(error)
            verdict = "different" if "does not agree" in text else "refused"
            return expected | {"verdict": verdict, "reason": _one_line(text, path)}
        except Exception as error:  # a row of the table, not the end of the run
            return expected | {"verdict": "failed", "reason": reason_of(error)}

    def _build(self, model: str, path: Path, source: str) -> Reply:
        if self._built is None or self._built[0] != path:
            reply = self.worker().call("build", name=model, path=str(path), route=source)
            self._built = path, reply
        return self._built[1]

    def _convert(self, path: Path, route: str, built: Reply) -> dict[str, Any]:
        steps, worker = Steps(), self.worker()
        keywords: Keywords = {"data": _data(built, route), "progress": steps, "worker": worker}
        model = _load(path, route, built, keywords)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        same = trained == built.values["trainable"] or route not in _NAMED_WEIGHTS
        reason = f"{trained} floats are trained, {built.values['trainable']} in Keras"
        return {
            "verdict": "ok" if same else "weights",
            "reason": "" if same else reason,
            "float64": any("float64" in row.name for row in model.verification.rows),
            "trained": trained,
            "ops": " ".join(operations(worker.graph)),
            "training": self._train(path, worker) if self.training and route == "keras" else "",
            **steps.seconds(),
            **largest_errors(model, worker),
        }

    def _train(self, path: Path, worker: Worker) -> str:
        try:
            load(path, worker=worker, verify=False, verify_training=True)
        except ConversionError as error:
            return _one_line(str(error), path)
        return "ok"


def _load(path: Path, route: str, built: Reply, keywords: Keywords) -> ConvertedModel:
    """Converts by a route; the .keras file's leaves behind what the ONNX file's needs."""
    onnx = path.with_suffix(".onnx")
    if route == "keras":
        return export_onnx(path, onnx, **keywords)
    if route == "onnx":
        if not onnx.exists():
            export_onnx(path, onnx, **keywords)
        return load(onnx, **keywords)
    if route == "frozen":
        ports = built.values
        return load(path, input_names=ports["inputs"], output_names=ports["outputs"], **keywords)
    return load(path, **keywords)


def operations(graph: bytes) -> list[str]:
    """The names of a graph's operations, those of its loops included, in alphabetical order."""
    import onnx

    found: set[str] = set()

    def collect(nodes: Any) -> None:
        for node in nodes:
            found.add(node.op_type)
            for attribute in node.attribute:
                collect(attribute.g.node)

    collect(onnx.load_from_string(graph).graph.node)
    return sorted(found)


def largest_errors(model: ConvertedModel, worker: Observed) -> dict[str, float]:
    """The largest relative errors over all that TensorFlow was asked, as fields of a row.

    Of an example whose float32 and float64 results TensorFlow gave, the nearer one counts: a relu
    within rounding of zero makes the two differ.
    """
    from torchfgsm.converters.verification.measuring import named

    nearest: dict[tuple[str, str], Array] = {}
    for asked, answered in worker.results:
        actual = _measured(model, asked)
        for name, array in named(model, answered).items():
            key = (str(sorted((k, v.tobytes()) for k, v in asked.items())), name)
            error = _relative(actual[name], array)
            nearest[key] = np.minimum(nearest.get(key, error), error)
    found: dict[str, float] = {}
    for (_, name), error in nearest.items():
        kind = "gradient_error" if name.startswith("gradient") else "output_error"
        found[kind] = max(found.get(kind, 0.0), float(error.max()))
    return found


def _measured(model: ConvertedModel, asked: dict[str, Array]) -> dict[str, Array]:
    from torchfgsm.converters.verification.measuring import Question, measure

    inputs = {k.removeprefix("input/"): v for k, v in asked.items() if k.startswith("input/")}
    return measure(model, Question.about(model, inputs))


def _relative(actual: Array, expected: Array) -> Array:
    """The largest difference of each example over its largest expected entry, (N,)."""
    rows = [np.asarray(a, np.float64).reshape(len(a), -1) for a in (actual, expected)]
    size = np.abs(rows[1]).max(axis=1)
    distance = np.abs(rows[0] - rows[1]).max(axis=1)
    return np.asarray(distance / np.where(size > 0, size, 1.0))


def _data(built: Reply, route: str) -> Any:
    """The examples to compare on, where the route keeps the names that they go by."""
    named = {name.removeprefix("data/"): array for name, array in built.arrays.items()}
    if len(named) == 1:
        return next(iter(named.values()))
    return named if named and route in ("keras", "h5", "onnx") else None


def _one_line(text: str, path: Path) -> str:
    """An error without the path of a temporary folder."""
    text = " ".join(text.replace(f"{path.resolve()}", path.name).split())
    return text.replace(f"{path.parent}/", "").removeprefix(f"{path.name}: ")[:_REASON]


def each_bench(
    versions: tuple[str, ...], folder: Path, *, training: bool
) -> Iterator[tuple[Bench, dict[str, Any]]]:
    """One bench after the other, open while it is used, with its facts."""
    for keras in versions:
        place = folder / f"keras{keras}"
        place.mkdir()
        bench = Bench(keras, place, training)
        try:
            yield bench, bench.facts()
        finally:
            bench.close()
