"""Which Python runs the TensorFlow side: the user's own where it has what is needed."""

from __future__ import annotations

import os
import site
import sys
from importlib.metadata import Distribution
from pathlib import Path

from torchfgsm.originals.environment import KERAS_2, RUNTIMES

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
