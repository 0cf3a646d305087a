"""Models that others made convert, and FGSM runs through each that has a float input."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import real_models
import torch
import torch.nn.functional as F
from planted_faults import Fault, OffByAThousandth
from processes import SUPPORT
from torch import Tensor, nn

import torchfgsm
from torchfgsm.converters import ConvertedModel, load
from torchfgsm.converters.verification.measuring import Question
from torchfgsm.converters.verification.slopes import compare_slopes
from torchfgsm.originals.environment import EnvironmentUnavailable
from torchfgsm.originals.process import Worker

pytestmark = [pytest.mark.live, pytest.mark.slow]
WORKER = SUPPORT / "real_models_worker.py"
EPS = 0.01


class Head(nn.Module):
    """One output of a model, as rows (N, classes)."""

    def __init__(self, model: ConvertedModel, number: int, classes: int) -> None:
        super().__init__()
        self.model, self.number, self.classes = model, number, classes

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.model(x)
        outputs = list(outputs.values() if isinstance(outputs, dict) else outputs)
        rows: Tensor = outputs[self.number].reshape(len(x), self.classes)
        return rows


def moves_up(model: nn.Module, x: Tensor, target: Tensor, *, binary: bool = False) -> None:
    """FGSM makes the loss of each example larger and moves no entry further than it may."""

    def loss(output: Tensor, y: Tensor) -> Tensor:
        if binary:
            return F.binary_cross_entropy_with_logits(output, y, reduction="none").sum(1)
        return F.cross_entropy(output, y, reduction="none")

    x_adv = torchfgsm.fgsm(model, x, target, eps=EPS, loss_fn=loss)
    assert float((x_adv - x).abs().max()) <= EPS * 1.001
    with torch.no_grad():
        assert (loss(model(x_adv), target) > loss(model(x), target)).all()


def gradients_were_compared(model: ConvertedModel) -> None:
    """With TensorFlow's, or for a graph without TensorFlow with differences in float64."""
    assert model.verification, model.verification.to_text()
    assert any("gradient" in r.name or "slope" in r.name for r in model.verification.rows)


@pytest.fixture(scope="module")
def worker_of_keras_2() -> Iterator[Worker]:
    try:
        with Worker("keras-2", WORKER) as worker:
            yield worker
    except EnvironmentUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=["keras-2", "keras-3"])
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    try:
        with Worker(request.param, WORKER) as worker:
            yield worker
    except EnvironmentUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def notes(worker_of_keras_2: Worker) -> tuple[Tensor, Tensor, Tensor]:
    """A noisy sound, and basic-pitch's notes and their gradient by TensorFlow."""
    seconds = torch.arange(43844) / 22050
    tones = torch.stack([torch.sin(2 * torch.pi * f * seconds) for f in (220.0, 440.0)])
    noise = torch.randn(tones.shape, generator=torch.Generator().manual_seed(0))
    x = (0.3 * tones + 0.05 * noise).reshape(2, 43844, 1)
    path = str(basic_pitch() / "nmp")
    reply = worker_of_keras_2.call("gradient", {"x": x.numpy()}, path=path, output="note")
    output, gradient = (torch.from_numpy(reply.arrays[n]) for n in ("output", "gradient"))
    return x, output, gradient


def basic_pitch() -> Path:
    return real_models.unpacked("basic-pitch==0.4.0") / "basic_pitch/saved_models/icassp_2022"


@pytest.mark.parametrize("form", ["nmp", "nmp.onnx", "nmp.tflite"])
def test_basic_pitch(form: str, notes: tuple[Tensor, Tensor, Tensor]) -> None:
    """Notes in a sound: a network over its constant-Q transform, with sigmoids at the end.

    The logarithm of the transform's power makes float32's rounding large, and torch sums its long
    convolutions in another order: in float64 the module's gradient must be TensorFlow's.
    """
    x, expected, slope = notes
    model = load(basic_pitch() / form, verify=False, keep_head=True)
    number = next(i for i, y in enumerate(values(model, x)) if close(y, expected, 1e-3))
    gradient = squares_gradient(model, x, number)
    truth = squares_gradient(copy.deepcopy(model).double(), x.double(), number)
    assert float((slope - truth).norm() / truth.norm()) < 1e-3
    assert float((gradient - truth).norm() / truth.norm()) < 2e-2
    model.keep_head = False
    moves_up(Head(model, number, 172 * 88), x, torch.zeros(2, 172 * 88), binary=True)


def test_basic_pitch_is_verified_without_tensorflow() -> None:
    """Along its gradient a step of 1e-7 crosses many kinks; smaller ones tell fault from kink."""
    model = load(basic_pitch() / "nmp.onnx")
    gradients_were_compared(model)
    assert any(row.atol > 1e-5 for row in model.verification.rows if "slope" in row.name)
    x = torch.rand(1, 43844, 1, generator=torch.Generator().manual_seed(0)).numpy()
    question = Question.about(model, {model.input_names[0]: x})
    assert compare_slopes(model, question, "sound")
    model.network = Fault(model.network, OffByAThousandth.apply)
    failed = compare_slopes(model, question, "faulty")
    assert failed is not None
    assert "slope 0" in {row.name for row in failed.failures}


def values(model: ConvertedModel, x: Tensor) -> list[Tensor]:
    outputs = model(x)
    return list(outputs.values() if isinstance(outputs, dict) else outputs)


def close(actual: Tensor, expected: Tensor, tolerance: float) -> bool:
    same = actual.shape == expected.shape
    return same and float((actual.detach() - expected).abs().max()) < tolerance


def squares_gradient(model: ConvertedModel, x: Tensor, number: int) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad((values(model, x)[number] ** 2).sum(), x)[0]


@pytest.mark.parametrize(
    ("network", "size", "output"), [("PNet", 12, 1), ("RNet", 24, 1), ("ONet", 48, 2)]
)
def test_mtcnn(worker: Worker, network: str, size: int, output: int, tmp_path: Path) -> None:
    """Face or not, in three sizes."""
    package = real_models.unpacked("mtcnn==1.0.0") / "mtcnn"
    name = network.lower()
    lz4 = real_models.unpacked("lz4==4.4.5")
    weights = real_models.arrays_in(package / f"assets/weights/{name}.lz4", lz4)
    path = tmp_path / f"{name}.keras"
    arrays = {str(i): array for i, array in enumerate(weights)}
    source = str(package / f"network/{name}.py")
    worker.call("mtcnn", arrays, source=source, network=network, size=size, path=str(path))
    x = torch.rand(4, size, size, 3) * 2 - 1
    model = load(path, data=x.numpy(), worker=worker)
    gradients_were_compared(model)
    assert sum(p.numel() for p in model.parameters()) == sum(w.size for w in weights)
    moves_up(Head(model, output, 2), x, torch.tensor([0, 1, 0, 1]))


def test_magika() -> None:
    """The kind of a file from its bytes: whole numbers in, so that there is no gradient."""
    path = real_models.unpacked("magika==1.0.3") / "magika/models/standard_v3_3/model.onnx"
    model = load(path, keep_head=True)
    # Of the bytes 0 and 1 alone the layer norms have next to nothing to divide by: float64 judges.
    assert any("in float64: output" in row.name for row in model.verification.rows)
    x = torch.randint(257, (3, 2048), dtype=torch.int32)
    (expected,) = real_models.by_onnxruntime(path, {"bytes": x})
    torch.testing.assert_close(model(x), expected, atol=1e-6, rtol=1e-5)
    with pytest.raises((TypeError, ValueError)):
        torchfgsm.fgsm(model, x, eps=EPS)


@pytest.mark.parametrize("name", ["silero_vad.onnx", "silero_vad_16k_op15.onnx"])
def test_silero(name: str) -> None:
    """Speech or not: an LSTM whose state goes in and out, and a branch for each sampling rate."""
    path = real_models.unpacked("silero-vad==6.2.3") / "silero_vad/data" / name
    # The batch is the second axis of the state: not what the verification takes for examples.
    model = load(path, verify=False, keep_head=True)
    state = 0.1 * torch.randn(2, 3, 128)
    feed = {"input": 0.1 * torch.randn(3, 576), "state": state, "sr": torch.tensor(16000)}
    expected = real_models.by_onnxruntime(path, feed)
    found = model(feed)
    assert isinstance(found, tuple)
    for actual, right in zip(found, expected, strict=True):
        torch.testing.assert_close(actual, right, atol=1e-5, rtol=1e-4)
    probability = load(path, verify=False)
    speech = Speech(probability, feed)
    moves_up(speech, feed["input"], torch.zeros(3, 1), binary=True)
    assert real_models.slope_difference(model.double(), feed, "input") < 1e-6


class Speech(nn.Module):
    """The logit of speech (N, 1), with state and rate fixed."""

    def __init__(self, model: ConvertedModel, feed: dict[str, Tensor]) -> None:
        super().__init__()
        self.model, self.feed = model, feed

    def forward(self, x: Tensor) -> Tensor:
        logit: Tensor = self.model({**self.feed, "input": x})[0]
        return logit


# The check refused each of these although it was converted rightly.
RIGHT: dict[str, tuple[str, str, dict[str, tuple[int, ...] | float]]] = {
    # A float64 witness that mixes the batch into BatchNormalization of opset 11.
    "text lines": (
        "rapidocr-onnxruntime==1.4.4",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        {"x": (2, 3, 48, 64)},
    ),
    # A softmax behind a shape that the graph computes.
    "direction of text": (
        "rapidocr-onnxruntime==1.4.4",
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        {"x": (2, 3, 48, 64)},
    ),
    # A classifier that is sure of its answer.
    "wake word": ("pyopen-wakeword==1.1.0", "pyopen_wakeword/models/hey_mycroft.tflite", {}),
    # A batch of one in the file, and two inputs that are one number.
    "pitch": (
        "swift-f0==0.3.0",
        "swift_f0/model.onnx",
        {"audio": (1, 4096), "fmin": 46.875, "fmax": 2093.75},
    ),
}


@pytest.mark.parametrize("name", list(RIGHT))
def test_a_right_conversion_is_accepted(name: str) -> None:
    requirement, file, inputs = RIGHT[name]
    generator = torch.Generator().manual_seed(0)
    data = {
        key: torch.rand(v, generator=generator) if isinstance(v, tuple) else torch.tensor(v)
        for key, v in inputs.items()
    }
    arrays = {key: value.numpy() for key, value in data.items()}
    gradients_were_compared(load(real_models.unpacked(requirement) / file, data=arrays or None))
