"""The TensorFlow originals, each in a process and an environment of its own."""

from __future__ import annotations

from pathlib import Path

from torchfgsm.originals.environment import (
    ENVIRONMENTS,
    KERAS_2,
    WITNESS,
    EnvironmentUnavailable,
    python_for,
)
from torchfgsm.originals.process import Reply, Worker, WorkerError

__all__ = [
    "ENVIRONMENTS",
    "KERAS_2",
    "LIBRARIES",
    "TENSORFLOWS",
    "WITNESS",
    "WORKERS",
    "EnvironmentUnavailable",
    "Reply",
    "Worker",
    "WorkerError",
    "python_for",
    "start",
]

# The TensorFlow of the originals -> the runtime: today's, and the last that they were written for.
TENSORFLOWS = {"2.21": KERAS_2, "2.15": WITNESS}
WORKERS = Path(__file__).parent / "workers"
# Library -> its script, whose docstring lists the handlers.
LIBRARIES = {
    "nsl": "nsl.py",
    "cleverhans3": "cleverhans3.py",
    "cleverhans-tf2": "cleverhans_tf2.py",
}


def start(
    library: str, *, timeout: float = 600.0, allow_unsafe: bool = False, runtime: str = KERAS_2
) -> Worker:
    """Returns a worker that serves one original, in its environment (made on first use).

    Args:
        library: "nsl", "cleverhans3" or "cleverhans-tf2". CleverHans' torch part needs no process:
            see :func:`torchfgsm.originals.cleverhans_torch.cleverhans_torch`.
        timeout: seconds that one call may take.
        allow_unsafe: models may run the Python code that lies in their files.
        runtime: ``KERAS_2``, or ``WITNESS`` for the older TensorFlow.

    Raises:
        ValueError: there is no worker for that library.
        EnvironmentUnavailable: its environment cannot be had on this machine.
    """
    if library not in LIBRARIES:
        raise ValueError(
            f"expected a library out of {', '.join(LIBRARIES)}, got {library!r}"
            + (
                " (it runs in this process: torchfgsm.originals.cleverhans_torch)"
                if library == "cleverhans-torch"
                else ""
            )
        )
    worker = Worker(runtime, WORKERS / LIBRARIES[library], timeout=timeout)
    if allow_unsafe:
        worker.call("allow_unsafe")
    return worker
