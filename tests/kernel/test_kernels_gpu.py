"""The kernels on a GPU: the table that the emulator runs, and what only a GPU shows."""

from __future__ import annotations

import threading
import warnings

import pytest
import torch
from kernel_cases import DTYPES, difference, drawn
from torch import Tensor, nn
from toy_models import noise

from torchfgsm import fgsm, perturb, pgd
from torchfgsm.kernel import driver, op, why_not

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]
PERTURB = torch.ops.torchfgsm.perturb.default
NORMS = ("linf", "l2", "l1")


@pytest.fixture(autouse=True)
def _kernels_serve() -> None:
    assert why_not() is None


def bits(tensor: Tensor) -> Tensor:
    return tensor.cpu().contiguous().view(torch.uint8)


@pytest.mark.parametrize("part", range(8))
def test_kernels_equal_the_reference_and_repeat(part: int) -> None:
    for case in drawn(640)[part::8]:
        there = case.to("cuda")
        found = PERTURB(*there.arguments)
        again = PERTURB(*there.arguments)
        reason = difference(case, [t.cpu() for t in found], PERTURB(*case.arguments))
        assert reason is None, f"{case.name}: {reason}"
        for a, b in zip(found, again, strict=True):
            assert torch.equal(bits(a), bits(b))
    assert op._failures == {}


def test_opcheck_on_the_device() -> None:
    for case in drawn(12, seed=3):
        if not any(bool(t.isnan().any()) for t in PERTURB(*case.arguments)):
            torch.library.opcheck(PERTURB, case.to("cuda").arguments)


@pytest.mark.parametrize("norm", NORMS)
def test_beyond_32_bit_indices(norm: str) -> None:
    rows, columns = 3, 2**30
    if torch.cuda.mem_get_info()[0] < 5 * rows * columns * 2:
        pytest.skip("needs 32 GB of free memory")
    x = torch.zeros(rows, columns, dtype=torch.bfloat16, device="cuda")
    grad = torch.zeros_like(x)
    grad[:, -1] = torch.tensor([1.0, -2.0, 3.0], dtype=torch.bfloat16)
    found = perturb(x, grad, eps=0.5, norm=norm, validate=False)
    assert found[:, -1].tolist() == [0.5, -0.5, 0.5]
    assert int(torch.count_nonzero(found)) == 3


@pytest.mark.parametrize("norm", NORMS)
def test_streams_of_their_own(norm: str) -> None:
    x, grad = noise(64, 20000).cuda(), noise(64, 20000, seed=1).cuda()
    expected = perturb(x, grad, eps=0.1, norm=norm)
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)  # type: ignore[no-untyped-call]
        delayed = grad * 1
        found = perturb(x, delayed, eps=0.1, norm=norm, validate=False)
    torch.cuda.current_stream().wait_stream(stream)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("norm", NORMS)
def test_captured_in_a_graph(norm: str) -> None:
    x, grad = noise(8, 400_000).cuda(), noise(8, 400_000, seed=1).cuda()
    expected = perturb(x, grad, eps=0.1, norm=norm, validate=False)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = perturb(x, grad, eps=0.1, norm=norm, validate=False)
    found.zero_()
    graph.replay()
    assert torch.equal(found, expected)


def test_a_thread_of_its_own() -> None:
    x, grad = noise(4, 784).cuda(), noise(4, 784, seed=1).cuda()
    expected = perturb(x, grad, eps=0.1, norm="l2", validate=False)
    found: list[Tensor] = []
    thread = threading.Thread(
        target=lambda: found.append(perturb(x, grad, eps=0.1, norm="l2", validate=False))
    )
    thread.start()
    thread.join()
    assert torch.equal(found[0], expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_several_devices() -> None:
    x, grad = noise(4, 784), noise(4, 784, seed=1)
    first, second = (
        perturb(x.to(f"cuda:{i}"), grad.to(f"cuda:{i}"), eps=0.1, norm="l2") for i in (0, 1)
    )
    assert second.device.index == 1
    assert torch.equal(first.cpu(), second.cpu())
    assert torch.cuda.current_device() == 0


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_whole_attacks_are_those_of_the_plain_operations(norm: str, dtype: torch.dtype) -> None:
    """The same model on the same device, so that the gradients are the same."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 10)).to("cuda", dtype)
    x = torch.rand(32, 3, 8, 8, device="cuda", dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.arange(32, device="cuda") % 10

    def both() -> tuple[Tensor, Tensor]:
        one: Tensor = fgsm(model, x, y, eps=0.1, norm=norm, clip_min=0.0, clip_max=1.0)
        many: Tensor = pgd(model, x, y, eps=0.1, norm=norm, iterations=3, random_start=False)
        return one, many

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(op, "_failures", {0: "switched off"})
        plain = both()
    for ours, theirs in zip(both(), plain, strict=True):
        assert ours.is_contiguous(memory_format=torch.channels_last)
        if norm == "l2":
            tolerance = 8 * torch.finfo(dtype).eps
            torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
        else:
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("norm", NORMS)
def test_compiled_attack(norm: str) -> None:
    if torch.__version__ < "2.9":
        pytest.skip("torch before 2.9 breaks the graph of an attack")
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).cuda()
    x, y = torch.rand(16, 64, device="cuda"), torch.arange(16, device="cuda") % 10
    compiled = torch.compile(
        lambda a, b: fgsm(model, a, b, eps=0.1, norm=norm), backend="aot_eager", fullgraph=True
    )
    torch.testing.assert_close(compiled(x, y), fgsm(model, x, y, eps=0.1, norm=norm))


@pytest.mark.parametrize("norm", NORMS)
def test_autocast(norm: str) -> None:
    model = nn.Linear(64, 10).cuda()
    x, y = torch.rand(16, 64, device="cuda"), torch.arange(16, device="cuda") % 10
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cuda", dtype):
            found = fgsm(model, x, y, eps=0.1, norm=norm)
        assert found.dtype == torch.float32
        assert not torch.equal(found, x)


def test_kernels_are_loaded_once() -> None:
    gpu = driver.gpu(torch.cuda.current_device())
    x, grad = noise(4, 784).cuda(), noise(4, 784, seed=1).cuda()
    perturb(x, grad, eps=0.1, norm="l2", validate=False)
    before = dict(gpu._kernels)
    perturb(x, grad, eps=0.2, norm="l2", validate=False)
    assert gpu._kernels == before
