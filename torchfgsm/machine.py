"""What a bug report needs to know of this machine, and arithmetic in which results compare."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import torch

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


@contextlib.contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Runs a block with float32 as float32 and the same bits each time, on a GPU too.

    Without TF32, which moves the gradients of convolutions by about 1e-3, and with cuDNN's
    deterministic algorithms, chosen without timing them. torch's settings are put back afterwards.
    In the block torch 2.9 and later refuses to read the older `allow_tf32`.
    """
    switches = [
        *_tf32_switches().values(),
        (torch.backends.cudnn, "deterministic", True),
        (torch.backends.cudnn, "benchmark", False),
    ]
    saved = [(holder, name, getattr(holder, name)) for holder, name, _ in switches]
    try:
        for holder, name, exact in switches:
            setattr(holder, name, exact)
        yield
    finally:
        for holder, name, value in saved:
            setattr(holder, name, value)


def _tf32_switches() -> dict[str, tuple[Any, str, Any]]:
    """Operations -> what holds their TF32 setting, its name there, the value without TF32."""
    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul
    if hasattr(cudnn, "conv"):  # torch 2.9 and later, which warns of the older flags
        return {
            "convolutions": (cudnn.conv, "fp32_precision", "ieee"),
            "recurrent layers": (cudnn.rnn, "fp32_precision", "ieee"),
            "matrix products": (matmul, "fp32_precision", "ieee"),
        }
    return {
        "cuDNN": (cudnn, "allow_tf32", False),
        "matrix products": (matmul, "allow_tf32", False),
    }


def tf32_operations() -> list[str]:
    """The operations for which torch's settings allow TF32."""
    return [
        name
        for name, (holder, attribute, _) in _tf32_switches().items()
        if getattr(holder, attribute) in ("tf32", True)
    ]


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
    found = {f"TF32 in {name}": name in allowed for name in _tf32_switches()}
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
