"""Which Python runs the TensorFlow side: the user's own where it has what is needed."""

from __future__ import annotations

import os
import site
import sys
from importlib.metadata import Distribution
from pathlib import Path

from torchfgsm.converters.formats import KERAS_2
from torchfgsm.originals.environment import ENVIRONMENTS

_TENSORFLOW = ("tensorflow", "tensorflow-cpu", "tensorflow-macos", "tensorflow-intel")
_OLDEST_TF2ONNX = (1, 16)


def python_with(environment: str) -> str | Path:
    """Returns what a worker is to run in: this interpreter, or an environment's name.

    This interpreter serves where its packages hold tf2onnx and a TensorFlow that fits: 2.15 for
    Keras 2, 2.16 or later with Keras 3. Nothing is imported to find out. The variable that names
    the environment's interpreter goes first.
    """
    if os.environ.get(ENVIRONMENTS[environment].variable):
        return environment
    # A worker sees no more than these folders: neither PYTHONPATH nor the user's own packages.
    folders = site.getsitepackages()
    return Path(sys.executable) if fits(environment, folders) else environment


def fits(environment: str, folders: list[str]) -> bool:
    """Whether the packages in these folders do what the environment is made for."""
    found = [_version(name, folders) for name in _TENSORFLOW]
    tensorflow = next((version for version in found if version), ())
    if _version("tf2onnx", folders) < _OLDEST_TF2ONNX:
        return False
    if environment == KERAS_2:
        return tensorflow[:2] == (2, 15)
    return tensorflow >= (2, 16) and _version("keras", folders) >= (3,)


def _version(package: str, folders: list[str]) -> tuple[int, ...]:
    """Returns the version's leading numbers, none where the package is absent."""
    for distribution in Distribution.discover(name=package, path=folders):
        parts = distribution.version.split(".")[:2]
        return tuple(int(part) for part in parts if part.isdigit())
    return ()
