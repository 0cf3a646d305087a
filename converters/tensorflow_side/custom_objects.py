"""Custom objects of a Keras model, from the Python file that defines them."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
from typing import Any

from .keras_model import UnsupportedModelError

# What such files import, and what no model means by a name of its own.
_FOREIGN = {"builtins", "keras", "numpy", "tensorflow", "tf_keras", "typing"}


def custom_objects_of(file: str) -> dict[str, Any]:
    """Runs a Python file and returns its classes and functions by name.

    Those that it imports count too, except TensorFlow's and Keras' own. What the file registers
    with Keras is found by Keras itself.

    Raises:
        UnsupportedModelError: the file cannot be run.
    """
    sys.path.append(os.path.dirname(os.path.abspath(file)))  # its own imports of neighbours
    spec = importlib.util.spec_from_file_location("torchfgsm_custom_objects", file)
    if spec is None or spec.loader is None:
        raise UnsupportedModelError(f"custom_objects: expected a Python file, got {file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the file does
        raise UnsupportedModelError(
            f"custom_objects: {file} could not be run: {type(error).__name__}: {error}"
        ) from error
    return {name: value for name, value in vars(module).items() if _is_custom(name, value)}


def _is_custom(name: str, value: Any) -> bool:
    if name.startswith("_") or not (inspect.isclass(value) or inspect.isfunction(value)):
        return False
    return str(value.__module__).split(".")[0] not in _FOREIGN
