"""The TensorFlow originals, each in a process and an environment of its own."""

from __future__ import annotations

from pathlib import Path

from torchfgsm.originals.environment import ENVIRONMENTS, EnvironmentUnavailable, python_for
from torchfgsm.originals.process import Reply, Worker, WorkerError

__all__ = [
    "ENVIRONMENTS",
    "LIBRARIES",
    "WORKERS",
    "EnvironmentUnavailable",
    "Reply",
    "Worker",
    "WorkerError",
    "python_for",
    "start",
]

WORKERS = Path(__file__).parent / "workers"
# Library -> its environment and its script, whose docstring lists the handlers.
LIBRARIES = {
    "nsl": ("tensorflow-2.15", "nsl.py"),
    "cleverhans3": ("cleverhans-3", "cleverhans3.py"),
    "cleverhans-tf2": ("tensorflow-2.15", "cleverhans_tf2.py"),
}


def start(library: str, *, timeout: float = 600.0, allow_unsafe: bool = False) -> Worker:
    """Returns a worker that serves one original, in its environment (made on first use).

    Args:
        library: "nsl", "cleverhans3" or "cleverhans-tf2". CleverHans' torch part needs no process:
            see :func:`torchfgsm.originals.cleverhans_torch.cleverhans_torch`.
        timeout: seconds that one call may take.
        allow_unsafe: models may run the Python code that lies in their files.

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
    environment, script = LIBRARIES[library]
    worker = Worker(environment, WORKERS / script, timeout=timeout)
    if allow_unsafe:
        worker.call("allow_unsafe")
    return worker
