"""Models that were made elsewhere, out of the wheels of public packages."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from torchfgsm.converters import ConvertedModel

_SECONDS = 180.0


def unpacked(requirement: str) -> Path:
    """The contents of a package's wheel, fetched once; the test is skipped where it cannot be."""
    folder = _cache() / requirement.replace("==", "-")
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=_cache()) as aside:
            _fetch(requirement, Path(aside))
            (wheel,) = Path(aside).glob("*.whl")
            contents = Path(aside) / "contents"
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(contents)
            contents.rename(folder)
    return folder


def _cache() -> Path:
    root = os.environ.get("TORCHFGSM_CACHE")
    folder = Path(root) if root else Path(tempfile.gettempdir())
    folder = folder / f"torchfgsm-real-models-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _fetch(requirement: str, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{requirement} did not arrive within {_SECONDS:g} s")
    if done.returncode:
        pytest.skip(f"{requirement} cannot be fetched: {' '.join(done.stderr.split())[-200:]}")


def arrays_in(file: Path, lz4: Path) -> list[np.ndarray]:
    """The arrays in a compressed joblib file, read in a process that sees the unpacked lz4."""
    code = (
        "import sys, joblib, numpy as np; sys.path.append(sys.argv[3])\n"
        "np.savez(sys.argv[2], *joblib.load(sys.argv[1]))"
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "arrays.npz"
        # By its package, joblib knows whether lz4 is there when it is imported.
        environment = {**os.environ, "PYTHONPATH": str(lz4)}
        command = [sys.executable, "-c", code, str(file), str(out), str(lz4)]
        subprocess.run(command, check=True, timeout=_SECONDS, env=environment)
        with np.load(out) as arrays:
            return [arrays[f"arr_{i}"] for i in range(len(arrays.files))]


def by_onnxruntime(path: Path, feed: dict[str, Tensor]) -> list[Tensor]:
    """The outputs of an ONNX file, by ONNX Runtime."""
    runtime: Any = pytest.importorskip("onnxruntime", reason="the oracle of ONNX files")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, {name: value.numpy() for name, value in feed.items()})
    return [torch.from_numpy(array) for array in found]


def slope_difference(model: ConvertedModel, feed: dict[str, Tensor], name: str) -> float:
    """How far the gradient by one input is from differences of the values, relative; in float64.

    The values are the sum of squares of the first output, along one random direction.
    """
    wide = {n: x.double() if x.is_floating_point() else x for n, x in feed.items()}
    generator = torch.Generator().manual_seed(3)
    direction = torch.randn(wide[name].shape, generator=generator, dtype=torch.float64)

    def value(x: Tensor) -> Tensor:
        outputs = model({**wide, name: x})
        first = outputs[0] if isinstance(outputs, tuple) else outputs
        total: Tensor = (first * first).sum()
        return total

    x = wide[name].clone().requires_grad_()
    product = torch.autograd.grad(value(x), x)[0] * direction
    with torch.no_grad():
        step = 1e-6
        difference = value(x + step * direction) - value(x - step * direction)
    return float((product.sum() - difference / (2 * step)).abs() / product.abs().sum())
