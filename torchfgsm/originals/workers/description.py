"""What an original is: its versions and the signatures of its public functions, as JSON."""

from __future__ import annotations

import enum
import importlib.metadata
import inspect
import platform

import numpy as np


def versions(library, distribution):
    """Returns the versions that run in this process; the handler of the same name."""
    found = {"python": platform.python_version(), "numpy": np.__version__}
    # TensorFlow's wheel has a name of its own for each device; the originals' Keras is Keras 2.
    names = {"tensorflow": ["tensorflow-cpu", "tensorflow"], "keras": ["tf-keras", "keras"]}
    names["library_version"] = [distribution]
    for key, candidates in names.items():
        found[key] = next(filter(None, map(_version, candidates)), None)
    return {**found, "library": library}, {}


def _version(distribution):
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def signatures(functions):
    """Returns ``{name: [[parameter, kind, default], ...]}`` for named functions or classes."""
    return {
        name: [
            [parameter.name, parameter.kind.name, _text(parameter.default)]
            for parameter in inspect.signature(function).parameters.values()
        ]
        for name, function in functions.items()
    }, {}


def _text(default):
    """A default as text that does not change from run to run; None where there is none."""
    if default is inspect.Parameter.empty:
        return None
    if isinstance(default, enum.Enum):
        return repr(default.value)
    return getattr(default, "__name__", None) or repr(default)
