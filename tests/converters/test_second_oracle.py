"""Converted models against Keras' own torch backend, which shares no code with TensorFlow's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import SUPPORT

pytest.importorskip("onnx2torch")

from torchfgsm.converters import load
from torchfgsm.judging.comparison import compare
from torchfgsm.originals.environment import EnvironmentUnavailable, python_for
from torchfgsm.originals.process import Worker

pytestmark = [pytest.mark.live, pytest.mark.slow]
ENVIRONMENT = "keras-3"
KERAS = (
    "absl", "h5py", "h5py.libs", "keras", "markdown_it", "mdurl", "ml_dtypes", "namex", "optree",
    "packaging", "pygments", "rich",
)  # fmt: skip


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    try:
        worker = Worker(ENVIRONMENT, SUPPORT / "verification_worker.py")
    except EnvironmentUnavailable as error:
        pytest.skip(str(error))
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def keras(worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Keras alone, for this interpreter: TensorFlow's environment has no torch."""
    python = Path(python_for(ENVIRONMENT))
    (packages,) = (python.parents[1] / "lib").glob("python*/site-packages")
    if f"python{sys.version_info.major}.{sys.version_info.minor}" != packages.parent.name:
        pytest.skip(f"Keras is installed for {packages.parent.name} alone")
    folder = tmp_path_factory.mktemp("keras")
    for name in KERAS:
        if (packages / name).exists():
            (folder / name).symlink_to(packages / name)
    return folder


@pytest.mark.parametrize("kind", ["image", "strides", "tokens", "volume"])
def test_keras_under_torch_agrees(worker: Worker, keras: Path, kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"{kind}.keras"
    worker.call("build", kind=kind, path=str(path))
    model = load(path, worker=worker, verify=False, keep_head=True)
    random = np.random.default_rng(0)
    shape = [n or 1 for n in model.annotation.inputs[0].shape]
    x = torch.from_numpy(random.random((4, *shape), dtype=np.float32)).requires_grad_()
    output = model(x)
    assert isinstance(output, torch.Tensor)
    seed = random.normal(size=tuple(output.shape)).astype(np.float32)
    (gradient,) = torch.autograd.grad((output * torch.from_numpy(seed)).sum(), x)
    ours = {"output": output.detach().numpy(), "gradient/0": gradient.numpy()}

    np.savez(tmp_path / "arrays.npz", x=x.detach().numpy(), seed=seed)
    script = SUPPORT / "keras_torch_worker.py"
    names = (keras, path, tmp_path / "arrays.npz", tmp_path / "result.npz")
    run = subprocess.run(
        [sys.executable, script, *names], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    theirs = dict(np.load(tmp_path / "result.npz"))
    result = compare(theirs, ours, rtol=1e-5, atol=1e-5 * float(gradient.abs().max()))
    assert result, result.to_text()
