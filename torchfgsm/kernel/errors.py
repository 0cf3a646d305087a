"""Why the native kernels cannot run, and the first thing that may be missing."""

from __future__ import annotations

import importlib
from typing import Any


class KernelUnavailable(RuntimeError):  # noqa: N818 - says what is the matter
    """The kernels cannot be compiled, loaded or launched here; the text says why."""


def bindings(name: str) -> Any:
    """A module of NVIDIA's Python bindings.

    Args:
        name: "nvrtc" or "driver".

    Raises:
        KernelUnavailable: They are not installed.
    """
    try:
        return importlib.import_module(f"cuda.bindings.{name}")
    except ImportError as error:
        raise KernelUnavailable(
            f"NVIDIA's Python bindings are missing ({error}): they come with torch's CUDA builds "
            "from 2.10 on, or `pip install cuda-bindings` of torch's CUDA version"
        ) from error
