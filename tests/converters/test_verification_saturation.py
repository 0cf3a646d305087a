"""Models whose activations saturate: there the last digit of a result is all of a derivative."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import SUPPORT

pytest.importorskip("onnx2torch")

from planted_faults import Fault, ScaledInFloat32

from torchfgsm.converters.exporting import Exporter
from torchfgsm.converters.torch_side.building import build
from torchfgsm.converters.verification.verifying import verify_with_tensorflow
from torchfgsm.originals.environment import EnvironmentUnavailable
from torchfgsm.originals.process import Worker

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("one_thread")]
WORKER = SUPPORT / "verification_worker.py"


@pytest.fixture(scope="module", params=["keras-2", "keras-3"])
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    try:
        worker = Worker(request.param, WORKER)
    except EnvironmentUnavailable as error:
        pytest.skip(str(error))
    with worker:
        yield worker


# Activation, layers, a factor of Keras' usual weights, and a seed: on each of them TensorFlow's and
# torch's float32 differ by more than sums and weights explain.
CHAINS = [
    ("tanh", 3, 1, 5),
    ("sigmoid", 2, 10, 0),
    ("softmax", 3, 10, 0),
    ("elu", 2, 10, 1),
    ("gelu", 3, 10, 1),
    ("swish", 3, 10, 37),
    ("softplus", 2, 10, 13),
]


@pytest.mark.keras_3_suffices
@pytest.mark.parametrize(("activation", "layers", "factor", "seed"), CHAINS)
def test_rounding_of_saturated_activations_is_no_fault(
    worker: Worker, tmp_path: Path, activation: str, layers: int, factor: float, seed: int
) -> None:
    path = tmp_path / "chain.keras"
    chain = {"activation": activation, "layers": layers, "factor": factor, "seed": seed}
    worker.call("build_chain", path=str(path), **chain)
    exporter = Exporter(worker, path, "keras")
    graph, annotation = exporter.export()
    sound = verify_with_tensorflow(build(graph, annotation), exporter, None, graph)
    assert sound, sound.to_text()
    model = build(graph, annotation)
    model.network = Fault(model.network, ScaledInFloat32.apply)
    wrong = verify_with_tensorflow(model, exporter, None, graph)
    assert any("gradient x" in row.name for row in wrong.failures), wrong.to_text()
