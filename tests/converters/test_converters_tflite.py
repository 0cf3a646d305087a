"""Operations of TFLite of which tf2onnx knows nothing, or not enough, judged by its interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import SUPPORT

from torchfgsm.converters import load
from torchfgsm.originals.environment import EnvironmentUnavailable
from torchfgsm.originals.process import Worker, WorkerError

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    try:
        worker = Worker("keras-3", SUPPORT / "tflite_worker.py")
    except EnvironmentUnavailable as error:
        pytest.skip(str(error))
    with worker:
        yield worker


def written(worker: Worker, name: str, folder: Path, batch: int | None = None) -> Path:
    path = folder / "model.tflite"
    found = worker.call("write", name=name, path=str(path), batch=batch).values["operations"]
    assert name.split(",")[0] in found
    return path


@pytest.mark.parametrize(
    "name", ["BROADCAST_ARGS", "CONV_2D", "GELU", "GELU, approximate", "L2_NORMALIZATION"]
)
def test_operations_agree_with_the_interpreter(worker: Worker, name: str, tmp_path: Path) -> None:
    data = np.concatenate([np.zeros((1, 1, 4)), np.full((1, 1, 4), 1e-7), 3 * np.ones((1, 1, 4))])
    model = load(written(worker, name, tmp_path), worker=worker, data=data.astype(np.float32))
    assert model.verification, model.verification.to_text()


def test_the_gradient_of_a_vector_of_no_length_is_tensorflows(
    worker: Worker, tmp_path: Path
) -> None:
    """It is x * rsqrt(max(sum(x^2), 1e-12)), whose derivative at 0 is 1e6."""
    path = written(worker, "L2_NORMALIZATION", tmp_path)
    model = load(path, worker=worker, verify=False)
    x = torch.zeros(1, 1, 4, requires_grad=True)
    y = model(x)
    assert isinstance(y, torch.Tensor)
    (gradient,) = torch.autograd.grad(y[0, 0, 0], x)
    torch.testing.assert_close(gradient, torch.tensor([[[1e6, 0, 0, 0]]]))


def test_a_file_that_is_not_verified_keeps_its_batch_size(worker: Worker, tmp_path: Path) -> None:
    path, x = written(worker, "CONV_2D", tmp_path, batch=1), torch.rand(3, 1, 4)
    assert load(path, worker=worker)(x).shape[0] == 3
    model = load(path, worker=worker, verify=False)
    assert "written for batches of 1; others are refused" in str(model)
    with pytest.raises(ValueError, match=r"expected \(1, 1, 4\) .* batches of that one size"):
        model(x)


def test_a_handler_that_fails_ends_the_conversion(worker: Worker, tmp_path: Path) -> None:
    """tf2onnx goes on, with a graph that is not the model's."""
    path = str(written(worker, "CONV_2D", tmp_path))
    with pytest.raises(WorkerError, match=r"could not be converted: ValueError: a planted fault"):
        worker.call("export_with_fault", path=path, operation="TFL_CONV_2D")
    assert "onnx" in worker.call("export", path=path, format="tflite").arrays
