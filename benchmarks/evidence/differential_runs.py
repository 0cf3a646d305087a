"""One draw on both sides: the live original and the port, and what became of it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from benchmarks.conversions.twins import Array
from benchmarks.evidence.differential_batches import Batch
from benchmarks.evidence.differential_draws import Draw
from benchmarks.evidence.differential_models import Architecture, Drawn, Probabilities, architecture
from benchmarks.evidence.differential_rules import (
    ALONE,
    CLOSE,
    DIFFERENT,
    FAULT,
    SAME,
    Outcome,
    clipped,
    close,
    judged,
    near_noise,
    noise_alone,
    noise_in_training,
    refused,
    unclipped,
)
from torchfgsm.originals import KERAS_2, LIBRARIES
from torchfgsm.originals.process import Reply, Worker, WorkerError
from torchfgsm.parity import port
from torchfgsm.parity.cases import Case, norm_of
from torchfgsm.parity.exact_port import ExactPort
from torchfgsm.parity.float64_slopes import gradient_of
from torchfgsm.parity.judge import compared, judge
from torchfgsm.parity.judge_perturbation import judge_float64
from torchfgsm.parity.originals_side import Originals, iterations, up_to
from torchfgsm.parity.run import verdict_apart
from torchfgsm.parity.truth import true_adversarial

WORKER = Path(__file__).parent / "differential_worker.py"
# Library -> its process: CleverHans 3 makes TensorFlow 1 of it.
PROCESSES = {library: 1 if library == "cleverhans3" else 2 for library in LIBRARIES}
_NEARBY = 8
_STEEP_TOLERANCE = 1e-6
# Of an original's process itself, not of its library.
_ENDED = ("Died", "OutOfMemory", "TimedOut", "Garbage", "Closed")


class Served(Worker):
    """One library's handlers in a process that serves several."""

    def __init__(self, worker: Worker, library: str) -> None:
        self._worker, self._library = worker, library

    def call(self, method: str, arrays: Any = None, /, **params: Any) -> Reply:
        """The reply of one of the library's handlers."""
        return self._worker.call(f"{self._library}.{method}", arrays, **params)

    def close(self) -> None:
        """Its owner ends it."""


class Together(Originals):
    """The originals, all of one TensorFlow in one process.

    Args:
        workers: TensorFlow 1 and 2 -> its process, which serves "<library>.<method>". Not ended.
    """

    def __init__(self, workers: Mapping[int, Worker]) -> None:
        super().__init__()
        self._served = {
            library: Served(workers[version], library) for library, version in PROCESSES.items()
        }

    def worker(self, library: str) -> Worker:
        """The process of a library."""
        return self._served[library]


class Runner:
    """The originals, one process for each TensorFlow, and the drawn models, until it is closed.

    Args:
        folder: Where the Keras models are kept.
        seed: Seed of the models.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.workers: dict[int, Worker] = {}
        try:
            for version in (1, 2):
                self.workers[version] = Worker(KERAS_2, WORKER)
        except BaseException:
            self.close()
            raise
        self.originals = Together(self.workers)
        self._models: dict[int, tuple[Architecture, Drawn]] = {}

    def close(self) -> None:
        """Ends the processes."""
        for worker in self.workers.values():
            worker.close()

    def model(self, index: int) -> tuple[Architecture, Drawn]:
        """A drawn model, saved for the originals when it is first asked for."""
        if index not in self._models:
            drawn = architecture(self.seed, index)
            self.workers[2].call(
                "build",
                drawn.weights,
                path=str(self._path(index, "logits")),
                hidden=str(self._path(index, "probabilities")),
                inputs=dict(drawn.inputs),
                layers=[dict(layer) for layer in drawn.layers],
                softmax=drawn.softmax,
            )
            self._models[index] = drawn, Drawn(drawn).eval()
        return self._models[index]

    def _path(self, index: int, output: str) -> Path:
        return self.folder / f"{index}-{output}.keras"

    def outcome(self, draw: Draw) -> Outcome:
        """Runs a draw on both sides.

        Raises:
            WorkerError: An original's process ended.
        """
        case, batch = draw.case, draw.batch
        logits = self.model(draw.model)[1]
        model = Probabilities(logits).eval() if case.output == "probabilities" else logits
        path = self._path(draw.model, case.output)
        ours, refusal = _tried(lambda: port.run_port(case, model, batch))
        result, fault = _tried(lambda: self.originals.result(case, path, model, batch))
        if ours is None or result is None:
            found = refused(draw, refusal, fault)
            checked = found.word == FAULT and case.kind == "perturb" and not batch.extreme
            return self._by_formula(found, path, model) if checked else found
        theirs = compared(case, result)
        if _equal(theirs, ours):
            return Outcome(draw, SAME)
        if unclipped(case) and _equal(clipped(case, theirs), ours):
            return Outcome(draw, FAULT, "a step of length 0 leaves the input beyond its bounds")
        if batch.extreme:
            return self._extreme(draw, theirs, ours)
        expected = result | self.originals.judges(case, path, model, batch, result)

        def iterate(turns: int) -> Mapping[str, Array]:
            return port.run_port(up_to(case, turns), model, batch)

        def in_float64() -> Mapping[str, Array]:
            return port.run_port(replace(case, dtype="float64"), model, batch)

        if any(name.startswith("attack/") for name in expected):
            verdict = verdict_apart(case, batch, model, expected)
        else:
            verdict = judge(
                case, batch, expected, ours, iterate, in_float64, ExactPort(case, model, batch)
            )
        found = judged(draw, verdict)
        if not found.found or case.dtype == "float64":
            return found
        exact = in_float64()
        if case.kind == "train":
            noise = self._nearby(draw, path, model)
            alone = noise_in_training(expected, ours, exact, noise)
        else:
            if iterations(case) > 1 and norm_of(case) != "linf":  # else they are there already
                slopes = self.originals.slopes(case, path, batch, result.get("labels"))
                expected |= self.originals.iterates(case, path, model, batch, slopes)
            alone = noise_alone(expected, ours, exact)
            found = near_noise(found, verdict, expected, exact)
        return replace(found, word=ALONE) if alone else found

    def _nearby(self, draw: Draw, path: Path, model: nn.Module) -> dict[str, float]:
        """The original's largest distance from float64 at inputs that are a little longer."""
        noise: dict[str, float] = {}
        for step in range(1, _NEARBY + 1):
            x = {n: a * np.float32(1 + step * 2.0**-9) for n, a in draw.batch.x.items()}
            found = self.originals.run(draw.case, path, model, replace(draw.batch, x=x))
            for name, array in compared(draw.case, found).items():
                far = float(np.abs(array - found.get(f"truth/{name}", np.nan)).max())
                noise[name] = max(noise.get(name, 0.0), far)
        return noise

    def _extreme(
        self, draw: Draw, theirs: Mapping[str, Array], ours: Mapping[str, Array]
    ) -> Outcome:
        """Extreme examples must be close to the original's; the others are judged without them."""
        rows = draw.batch.extreme
        detail = f"original {theirs}, port {ours}"
        if not close(theirs, ours, rows):
            return Outcome(draw, DIFFERENT, detail)
        others = [i for i in range(len(draw.batch.y)) if i not in rows]
        if others and not close(theirs, ours, others):
            rest = self.outcome(replace(draw, batch=draw.batch.examples(others)))
            if rest.found:
                return rest
        return Outcome(draw, CLOSE, detail)

    def _by_formula(self, found: Outcome, path: Path, model: nn.Module) -> Outcome:
        """Where the original fails, the port in float64 must give the formula's value."""
        case, batch = replace(found.draw.case, dtype="float64"), found.draw.batch
        labels = None
        if case.library == "cleverhans3":
            labels = self._rows(case, path, batch)
            labels = labels / labels.sum(axis=1, keepdims=True)
        slopes = self.originals.slopes(case, path, batch, labels)
        x = {name: np.asarray(value, np.float64) for name, value in batch.x.items()}
        there = slopes(x, True)
        truth = true_adversarial(case, batch, gradient_of(slopes))
        expected = {f"adv/{name}": value for name, value in truth.items()}
        # A steep model's probabilities near 1 cost float64 digits, too.
        ours = {
            name: np.where(np.abs(a - expected[name]) <= _STEEP_TOLERANCE, expected[name], a)
            for name, a in port.run_port(case, model, batch).items()
        }
        verdict = judge_float64(case, batch, there, expected, ours)
        if verdict.passed:
            return found
        text = verdict.comparison.to_text()
        return replace(found, word=DIFFERENT, detail=f"{found.detail}\n{text}")

    def _rows(self, case: Case, path: Path, batch: Batch) -> Array:
        """CleverHans 3's labels: those given, or every most likely class."""
        if case.labels != "predicted":
            return batch.one_hot(case)
        x, options = batch.inputs("float64"), {"model": str(path), "output": case.output}
        reply = self.originals.worker("nsl").call("oracle", x, want=["logits"], **options)
        rows = np.exp(reply.arrays["logits"] - reply.arrays["logits"].max(axis=1, keepdims=True))
        rows /= rows.sum(axis=1, keepdims=True)
        found: Array = (rows == rows.max(axis=1, keepdims=True)).astype(np.float32)
        return found


def _tried(run: Any) -> tuple[dict[str, Array] | None, Exception | None]:
    """What a side gives, or the exception by which it refuses."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return run(), None
    except WorkerError as error:
        if error.kind in _ENDED:
            raise
        return None, error
    except Exception as error:
        return None, error


def _equal(theirs: Mapping[str, Array], ours: Mapping[str, Array]) -> bool:
    """Whether the arrays that are compared have the same bits."""
    return all(
        name in ours
        and ours[name].dtype == a.dtype
        and np.array_equal(a, ours[name], equal_nan=True)
        for name, a in theirs.items()
    )
