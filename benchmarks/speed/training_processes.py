"""Training steps in processes of their own: TensorFlow's, and torch's by what glibc keeps."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.speed.timing import Sample, TimedElsewhere
from benchmarks.speed.training_ways import EPS, MULTIPLIER
from torchfgsm.originals.environment import KERAS_2
from torchfgsm.originals.process import Worker

Batches = list[tuple[Tensor, Tensor]]

# glibc then keeps what is freed, and the next step's tensors need no new pages.
KEPT_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184"}


@dataclass(frozen=True)
class Process:
    """A worker script, and where it runs.

    Attributes:
        environment: Of `Worker`.
        script: File name of the script.
        variables: Environment variables of the process.
    """

    environment: str | Path
    script: str
    variables: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class ProcessWay:
    """One way to make the step in another process.

    Attributes:
        name: As in the rows.
        process: Where.
        way: The worker's name of it.
        note: What is worth knowing about it.
    """

    name: str
    process: Process
    way: str
    note: str = ""


_TENSORFLOW = Process(KERAS_2, "training_tensorflow_worker.py")
_PLAIN = Process(Path(sys.executable), "training_torch_worker.py")
_KEPT = Process(Path(sys.executable), "training_torch_worker.py", tuple(KEPT_MEMORY.items()))

PROCESS_WAYS = (
    ProcessWay(
        "nsl, train_on_batch",
        _TENSORFLOW,
        "train_on_batch",
        "oneDNN on; SGD's step and Keras' metrics are part of it",
    ),
    ProcessWay("nsl, tf.function", _TENSORFLOW, "tf.function", "oneDNN on"),
    ProcessWay("torchfgsm, step, own process", _PLAIN, "step"),
    ProcessWay("torchfgsm, step, channels_last, own process", _PLAIN, "step, channels_last"),
    ProcessWay("torchfgsm, step, kept memory", _KEPT, "step"),
    ProcessWay("torchfgsm, step, channels_last, kept memory", _KEPT, "step, channels_last"),
    ProcessWay("by hand, channels_last, kept memory", _KEPT, "by hand, channels_last"),
)


class Processes:
    """The processes of the ways, each started when it is first needed; a context manager.

    What was allocated before decides what glibc keeps, so that gradients are compared in other
    processes than those that are timed.
    """

    def __init__(self) -> None:
        """Starts none yet."""
        self._stack = ExitStack()
        self._workers: dict[tuple[Process, str], Worker] = {}
        self._versions: dict[str, str] = {}

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def prepared(self, way: ProcessWay, name: str, model: nn.Module, batches: Batches) -> Any:
        """The call of a way, for a model of `benchmarks.speed.models` and batches in turn.

        Raises:
            EnvironmentUnavailable: The way's process cannot be had on this machine.
            WorkerError: It cannot make the step.
        """
        worker = self._worker(way.process, "timed")
        reply = worker.call("prepare", _arrays(model, batches), **_params(way, name))
        self._versions[way.name] = reply.values["version"]

        def repeat(repeats: int) -> Sample:
            return Sample(**worker.call("time", way=way.way, repeats=repeats).values)

        return TimedElsewhere(repeat)

    def gradients(
        self, way: ProcessWay, name: str, model: nn.Module, batch: tuple[Tensor, Tensor]
    ) -> list[Tensor]:
        """The parameters' gradients by a way, in the model's dtype.

        Raises:
            WorkerError: It cannot make the step.
        """
        worker = self._worker(way.process, "compared")
        found = worker.call("gradients", _arrays(model, [batch]), **_params(way, name)).arrays
        return [torch.from_numpy(found[str(i)].copy()) for i in range(len(found))]

    def version(self, way: ProcessWay) -> str:
        """What made the step, "" before there was any."""
        return self._versions.get(way.name, "")

    def _worker(self, process: Process, job: str) -> Worker:
        key = (process, job)
        if key not in self._workers:
            script = Path(__file__).with_name(process.script)
            with _variables(dict(process.variables)):
                worker = Worker(process.environment, script)
            self._workers[key] = self._stack.enter_context(worker)
        return self._workers[key]


def _params(way: ProcessWay, name: str) -> dict[str, Any]:
    settings = {"eps": EPS, "multiplier": MULTIPLIER, "threads": torch.get_num_threads()}
    return {"way": way.way, "model": name, **settings}


def _arrays(model: nn.Module, batches: Batches) -> dict[str, Any]:
    found = {f"weight/{i}": w.detach().numpy() for i, w in enumerate(model.parameters())}
    for i, (x, y) in enumerate(batches):
        found.update({f"x/{i}": x.numpy(), f"y/{i}": y.numpy()})
    return found


@contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables that a process inherits which is started meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
