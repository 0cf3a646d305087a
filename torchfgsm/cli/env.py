"""What a bug report needs to know of this machine."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib import metadata
from typing import Any

import torch

from torchfgsm.system.arithmetic import tf32_operations, tf32_switches
from torchfgsm.version import __version__

_PACKAGES = (
    "cuda-bindings",
    "filelock",
    "jinja2",
    "matplotlib",
    "onnx",
    "onnx2torch",
    "onnxruntime",
    "platformdirs",
    "scikit-learn",
    "torchvision",
    "triton",
    "uv",
)
_NVRTC = ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12", "nvidia-cuda-nvrtc-cu11")
_PATIENCE = 20.0  # seconds; nvidia-smi is slow where the driver is not loaded yet


def describe() -> dict[str, Any]:
    """Versions, devices, the native kernel, torch's arithmetic, packages, environments, variables.

    Returns:
        Name -> a plain value, or a dict of these; None is what this machine has not.
    """
    import numpy as np

    return {
        "torchfgsm": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cuda": _cuda(),
        "native kernel": _kernel(),
        "arithmetic": _arithmetic(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "environments": _environments(),
        "variables": {
            name: value for name, value in os.environ.items() if name.startswith("TORCHFGSM_")
        },
    }


def to_text(described: dict[str, Any]) -> str:
    """A description for people, one fact a line."""
    lines = []
    for name, value in described.items():
        if not isinstance(value, dict):
            lines.append(f"{name}: {_word(value)}")
            continue
        lines.append(f"{name}:" if value else f"{name}: none")
        lines += [f"  {inner}: {_word(entry)}" for inner, entry in value.items()]
    return "\n".join(lines)


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cuda() -> dict[str, Any]:
    cudnn: Any = torch.backends.cudnn
    found: dict[str, Any] = {
        "runtime": torch.version.cuda,
        "driver": driver_version(),
        "cuDNN": cudnn.version(),
        "NVRTC": next(filter(None, map(_version, _NVRTC)), None),
        "devices": torch.cuda.device_count(),
    }
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        found[f"device {index}"] = (
            f"{device.name}, compute capability {device.major}.{device.minor}, "
            f"{device.total_memory / 2**30:.1f} GiB"
        )
    return found


def driver_version() -> str | None:
    """The version of NVIDIA's driver, from the tool that comes with it; None without one."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.split()
    return lines[0] if done.returncode == 0 and lines else None


def _kernel() -> dict[str, Any]:
    from torchfgsm import kernel

    reason = kernel.why_not()
    found: dict[str, Any] = {"in use for CUDA tensors": reason is None}
    if reason is not None:
        found["why not"] = reason
    return {**found, "cache": str(kernel.cache_folder())}


def _arithmetic() -> dict[str, Any]:
    allowed = tf32_operations()
    found = {f"TF32 in {name}": name in allowed for name in tf32_switches()}
    return {
        **found,
        "cuDNN deterministic": torch.backends.cudnn.deterministic,
        "cuDNN benchmark": torch.backends.cudnn.benchmark,
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
    }


def _environments() -> dict[str, str | None]:
    """The interpreters of the TensorFlow environments that exist; none is made."""
    from torchfgsm.originals import environment

    found: dict[str, str | None] = {}
    for name, made in environment.ENVIRONMENTS.items():
        found[name] = os.environ.get(made.variable)
        if found[name] is None:
            try:
                python = environment.existing_python(made)
            except environment.EnvironmentUnavailable as error:
                found[name] = f"unknown: {error}"
                continue
            found[name] = None if python is None else str(python)
    return found
