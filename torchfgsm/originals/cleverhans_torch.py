"""CleverHans 4.0.0's torch part, run in this process: it needs numpy and torch alone."""

from __future__ import annotations

import importlib
import importlib.machinery
import json
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torchfgsm.originals.environment import KERAS_2, EnvironmentUnavailable, python_for

_PACKAGE = "cleverhans"
_LOCATE = """
import importlib.metadata, importlib.util, json
folders = importlib.util.find_spec("cleverhans").submodule_search_locations
print(json.dumps([list(folders), importlib.metadata.version("cleverhans")]))
"""


@dataclass(frozen=True)
class CleverHansTorch:
    """The original's own functions, and its version."""

    fast_gradient_method: Callable[..., Any]
    projected_gradient_descent: Callable[..., Any]
    optimize_linear: Callable[..., Any]
    clip_eta: Callable[..., Any]
    zero_out_clipped_grads: Callable[..., Any]
    version: str


def cleverhans_torch(runtime: str = KERAS_2) -> CleverHansTorch:
    """Returns CleverHans 4.0.0's torch functions, from the files of the environment that has them.

    Neither ``sys.path`` nor an installed ``cleverhans`` is touched: the modules are loaded under
    the names that they import each other by, and those names are given back at once.

    Args:
        runtime: of which the environment is.

    Raises:
        EnvironmentUnavailable: the environment cannot be had, or lacks CleverHans.
    """
    python = python_for(runtime)
    result = subprocess.run([python, "-I", "-c", _LOCATE], capture_output=True, text=True)
    if result.returncode != 0:
        raise EnvironmentUnavailable(
            f"{python} has no CleverHans 4.0.0: {result.stderr.strip().splitlines()[-1]}"
        )
    folders, version = json.loads(result.stdout)
    with _package(folders):
        attacks = "cleverhans.torch.attacks"
        fgm = importlib.import_module(f"{attacks}.fast_gradient_method")
        pgd = importlib.import_module(f"{attacks}.projected_gradient_descent")
        helpers = importlib.import_module("cleverhans.torch.utils")
    return CleverHansTorch(
        fast_gradient_method=fgm.fast_gradient_method,
        projected_gradient_descent=pgd.projected_gradient_descent,
        optimize_linear=helpers.optimize_linear,
        clip_eta=helpers.clip_eta,
        zero_out_clipped_grads=helpers.zero_out_clipped_grads,
        version=version,
    )


@contextmanager
def _package(folders: list[str]) -> Iterator[None]:
    """Makes ``cleverhans`` importable from ``folders`` inside the block."""
    kept = _taken_out()
    package = types.ModuleType(_PACKAGE)
    package.__path__ = folders
    # importlib wants a spec of every parent package.
    package.__spec__ = importlib.machinery.ModuleSpec(_PACKAGE, None, is_package=True)
    sys.modules[_PACKAGE] = package
    try:
        yield
    finally:
        _taken_out()
        sys.modules.update(kept)


def _taken_out() -> dict[str, types.ModuleType]:
    names = [n for n in sys.modules if n == _PACKAGE or n.startswith(f"{_PACKAGE}.")]
    return {name: sys.modules.pop(name) for name in names}
