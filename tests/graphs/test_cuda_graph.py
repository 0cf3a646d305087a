"""How a function is recorded as a CUDA graph: the order of steps on a CPU, results on a GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from test_capture import RECIPES
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from toy_models import batch, mlp, noisy

from torchfgsm import Recipe, Weighting, adversarial_step, attack
from torchfgsm.graphs.captured_attack import CapturedAttack, capture
from torchfgsm.graphs.cuda_graph import CudaGraph
from torchfgsm.system.arithmetic import exact_arithmetic

STEP = Recipe(step=0.1)


class FakeCuda:
    """torch.cuda's part in a capture, as a list of what was called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.mode = 1
        self.streams = ["caller's"]
        for name in ("device", "stream", "graph", "Stream", "Event", "CUDAGraph"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: self)
        monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: self.mode)
        monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", self.set_mode)
        monkeypatch.setattr(torch, "zeros", lambda *size, device: self.say("trivial"))

    def say(self, text: str) -> None:
        self.log.append(text)

    def set_mode(self, mode: Any) -> None:
        self.mode = {"error": 2}.get(mode, mode)

    @contextlib.contextmanager
    def device(self, device: Any) -> Iterator[None]:
        yield

    @contextlib.contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        before = list(self.streams)
        self.streams.append("side")
        try:
            yield
        finally:
            self.streams = before

    @contextlib.contextmanager
    def graph(self, graph: Any, *, stream: Any, capture_error_mode: str = "") -> Iterator[None]:
        self.say("capture")
        self.streams.append("side")  # left there by torch where the capture ends in an error
        try:
            yield
        except RuntimeError as error:
            raise RuntimeError("capture invalidated") from error
        self.streams.pop()

    def Stream(self) -> FakeCuda:
        return self

    Event = CUDAGraph = Stream

    def wait_stream(self, stream: Any) -> None:
        self.say("wait")

    def register_generator_state(self, generator: Any) -> None:
        self.say("generator")


def record(fake: FakeCuda, fails_at: int = 0, generator: torch.Generator | None = None) -> Any:
    calls = 0

    def run() -> str:
        nonlocal calls
        calls += 1
        fake.say("checked run" if fake.mode == 2 else "run")
        if calls == fails_at:
            raise RuntimeError("this op waits\nmore about it")
        return "results"

    return CudaGraph(torch.device("cuda")).record(run, generator)


def test_warm_ups_then_a_checked_run_then_the_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeCuda(monkeypatch)
    assert record(fake, generator=torch.Generator()) == "results"
    runs = ["run"] * 3 + ["checked run", "generator", "capture", "run"]
    assert fake.log == ["wait", *runs, "wait"]
    assert (fake.mode, fake.streams) == (1, ["caller's"])


@pytest.mark.parametrize(("fails_at", "last"), [(4, "checked run"), (5, "trivial")])
def test_a_capture_that_fails_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, fails_at: int, last: str
) -> None:
    fake = FakeCuda(monkeypatch)
    with pytest.raises(RuntimeError, match=r"graph: this op waits\. .*torchfgsm\.attack"):
        record(fake, fails_at)
    assert fake.log[-1] == last
    assert (fake.mode, fake.streams) == (1, ["caller's"])


def test_a_model_that_fails_by_itself_fails_with_its_own_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(RuntimeError, match=r"^this op waits"):
        record(FakeCuda(monkeypatch), 1)


# Fake tensors know no exponential numbers from a generator, which the random L1 start draws.
@pytest.mark.parametrize("labels", ["given", "predicted"])
@pytest.mark.parametrize("name", [name for name in RECIPES if name != "random l1 start"])
def test_no_recipe_waits_for_values(name: str, labels: str) -> None:
    """Fake tensors have no values: what would look at one raises."""
    generator = torch.Generator().manual_seed(0)

    def run(model: Any) -> Tensor:
        y = torch.ones(6).long() if labels == "given" else None
        recipe = replace(RECIPES[name], labels="predicted", model_mode="eval")
        found: Tensor = attack(
            model, torch.rand(6, 4), y, recipe=recipe, generator=generator, validate=False
        )
        return found

    with FakeTensorMode():
        model = nn.Linear(4, 3)
        assert run(model).shape == (6, 4)
        with pytest.raises(DataDependentOutputException):
            run(lambda x: model(x) * x.sum().item())


@pytest.fixture
def cuda() -> Iterator[torch.device]:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    with exact_arithmetic():  # cuDNN's faster algorithms may differ between two runs
        yield torch.device("cuda", torch.cuda.current_device())


def on(device: torch.device, *tensors: Tensor) -> list[Tensor]:
    return [tensor.to(device) for tensor in tensors]


def cnn(device: torch.device) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(8 * 64, 10),
    ).to(device)


@pytest.mark.gpu
@pytest.mark.parametrize("labels", ["given", "predicted"])
@pytest.mark.parametrize("name", RECIPES)
def test_captured_equals_attack_bit_for_bit(cuda: torch.device, name: str, labels: str) -> None:
    recipe = replace(RECIPES[name], labels="predicted")
    models: list[tuple[nn.Module, tuple[int, ...]]] = [
        (mlp(torch.float32).to(cuda).eval(), (4,)),
        (cnn(cuda).eval(), (3, 8, 8)),
    ]
    for model, shape in models:
        x = torch.rand(5, *shape, device=cuda)
        y = torch.arange(5, device=cuda) % 3 if labels == "given" else None
        run = capture(model, x, y, recipe=recipe)
        for seed in range(3):
            x = torch.rand(5, *shape, device=cuda)
            torch.manual_seed(seed)
            expected = attack(model, x, y, recipe=recipe)
            torch.manual_seed(seed)
            assert torch.equal(run(x, y), expected)


@pytest.mark.gpu
def test_changed_weights_and_new_shapes_are_seen(cuda: torch.device) -> None:
    model, (x, y) = noisy().to(cuda), on(cuda, *batch(torch.float32))
    run, recipe = capture(model, x, y, recipe=STEP), STEP
    for size in (6, 3, 6):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(x)  # moves the BatchNorm statistics
        expected = attack(model, x[:size], y[:size], recipe=recipe)
        assert torch.equal(run(x[:size], y[:size]), expected)
    model[0] = nn.Linear(4, 8, device=cuda)
    assert torch.equal(run(x, y), attack(model, x, y, recipe=recipe))
    assert model.training


class Waits(nn.Module):
    """A model that no graph can hold."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.inner = how, mlp(torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "device":
            torch.cuda.synchronize()
        scale = x.sum().item() if self.how == "item" else 1.0
        output: Tensor = self.inner(x) * scale
        return output


@pytest.mark.gpu
@pytest.mark.parametrize("how", ["item", "device"])
def test_a_model_that_waits_is_refused_and_nothing_is_broken(cuda: torch.device, how: str) -> None:
    x, y = on(cuda, *batch(torch.float32))
    stream, mode = torch.cuda.current_stream(), torch.cuda.get_sync_debug_mode()
    with pytest.raises(RuntimeError, match=r"cannot be captured.*torchfgsm\.attack"):
        capture(Waits(how).to(cuda), x, y, recipe=STEP)
    assert torch.cuda.current_stream() == stream
    assert torch.cuda.get_sync_debug_mode() == mode
    assert not torch.cuda.is_current_stream_capturing()
    torch.rand(3, device=cuda)  # a broken capture would still hold the generator
    model = mlp(torch.float32).to(cuda)
    assert torch.equal(capture(model, x, y, recipe=STEP)(x, y), attack(model, x, y, recipe=STEP))


@pytest.mark.gpu
def test_streams_take_turns(cuda: torch.device) -> None:
    model = cnn(cuda).eval()
    xs = [torch.rand(5, 3, 8, 8, device=cuda) for _ in range(8)]
    expected = [attack(model, x, recipe=STEP) for x in xs]
    run = capture(model, xs[0], recipe=STEP)
    streams = [torch.cuda.Stream() for _ in xs]  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    found = []
    for x, stream in zip(xs, streams, strict=True):
        with torch.cuda.stream(stream):
            found.append(run(x))
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.gpu
def test_a_whole_training_step_can_be_captured(cuda: torch.device) -> None:
    """By torch's own means, as any other training step."""
    model, recipe = cnn(cuda).eval(), replace(STEP, model_mode="keep_and_update")
    x, y = torch.rand(5, 3, 8, 8, device=cuda), torch.arange(5, device=cuda)

    def step() -> None:
        for parameter in model.parameters():
            parameter.grad = None
        adversarial_step(model, x, y, recipe=recipe, weighting=Weighting(1.0, 0.2), validate=False)

    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    captured = [parameter.grad for parameter in model.parameters()]
    x.copy_(torch.rand_like(x))
    graph.replay()
    found = [grad.clone() for grad in captured if grad is not None]
    step()
    expected = [parameter.grad for parameter in model.parameters()]
    for own, other in zip(found, expected, strict=True):
        assert other is not None
        torch.testing.assert_close(own, other)


@pytest.mark.gpu
def test_memory_does_not_grow(cuda: torch.device) -> None:
    model = cnn(cuda)
    run = CapturedAttack(model, STEP)

    def memory() -> int:
        for size in range(1, 7):
            run(torch.rand(size, 3, 8, 8, device=cuda))
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()

    memory()
    before = memory()
    for _ in range(5):
        assert memory() <= before
