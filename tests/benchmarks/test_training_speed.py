"""The timed training step: its memory and its layout, NSL's own beside it, the page about both."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import rows
from benchmarks.speed import training_speed_page, training_step, training_ways
from benchmarks.speed.contest import Pace
from benchmarks.speed.saved_memory import saved_mib
from benchmarks.speed.training_processes import KEPT_MEMORY, PROCESS_WAYS, Processes, ProcessWay
from benchmarks.speed.training_speed_page import (
    BOTH,
    BY_HAND,
    CSV,
    PAGE,
    PLAIN,
    SHARED,
    TENSORFLOW,
    cases,
    cpu_ratios,
)
from benchmarks.speed.training_step import Case, elsewhere, in_process
from benchmarks.speed.training_ways import Way, by_hand, in_channels_last, usual_grad
from torchfgsm import Recipe, Weighting, adversarial_loss, adversarial_step

CPU = torch.device("cpu")
PACE = Pace(0.01, 0.01)


def test_a_training_step_with_other_gradients_is_different() -> None:
    def scaled(model: nn.Module, x: Tensor, y: Tensor) -> None:
        usual_grad(model, x, y)
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad *= 1 + 1e-7

    ways = (
        Way("by hand, two forwards", by_hand),
        Way("scaled", scaled),
        Way("scaled, channels_last", scaled, channels_last=True),
    )
    case = Case.random(CPU, "MLP", 4)
    found = training_step.measure_case(case, [in_process(way, case) for way in ways[:2]], PACE)
    assert [row.status for row in found] == ["ok", "different"]
    assert "1.0e-07" in found[1].reason
    images = Case.random(CPU, "MNIST CNN", 2)
    assert "1.0e-07" in training_step.difference(ways[2], images)


def test_saved_bytes_are_those_of_the_graphs_that_live_together() -> None:
    model = nn.Sequential(nn.Linear(256, 256), nn.Tanh())
    batch = torch.rand(64, 256)
    size = 64 * 256 * 4 / 2**20  # what tanh keeps: its result

    def two_after_each_other() -> None:
        for _ in range(2):
            torch.autograd.backward(model(batch).sum())

    def two_together() -> None:
        torch.autograd.backward(model(batch).sum() + model(batch).sum())

    assert saved_mib(two_after_each_other, model, [batch]) == size
    assert saved_mib(two_together, model, [batch]) == 2 * size


@pytest.mark.parametrize("name", ["MNIST CNN", "ResNet-18"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_step_keeps_one_forward_pass_at_a_time(name: str, channels_last: bool) -> None:
    """At most 0.55 of what the usual loop keeps for backward, and not more than by hand."""
    case = Case.random(CPU, name, 4, 1)
    model, batches = case.model, case.batches
    if channels_last:
        model, batches = in_channels_last(model, batches)
    kept = {
        way: saved_mib(lambda way=way: way(model, *batches[0]), model, list(batches[0]))  # type: ignore[misc]
        for way in (training_ways.step, usual_grad, by_hand)
    }
    assert kept[training_ways.step] <= 0.55 * kept[usual_grad]
    assert kept[training_ways.step] <= 1.01 * kept[by_hand]


class OtherLayouts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the operations that give images in another layout than channels_last."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls ``func``."""
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            # One channel, or one pixel, has the same strides in both layouts.
            image = isinstance(tensor, Tensor) and tensor.dim() == 4 and min(tensor.shape[1:]) > 1
            if image and not tensor.is_contiguous(memory_format=torch.channels_last):
                self.found.append(str(func))
        return result


class Copying(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.contiguous()


# L2 and L1 read each gradient as one row, in an order that does not depend on the strides.
@pytest.mark.parametrize(("norm", "rows"), [("linf", 0), ("l2", 2), ("l1", 1)])
@pytest.mark.parametrize("step", [adversarial_step, adversarial_loss])
def test_channels_last_is_copied_into_no_other_layout(norm: Any, rows: int, step: Any) -> None:
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)]
    head = [nn.Conv2d(4, 10, 7), nn.Flatten()]
    x, y = torch.rand(5, 3, 16, 16), torch.randint(10, (5,))

    def seen(*first: nn.Module) -> list[str]:
        recipe = Recipe(step=0.1, norm=norm, clip_min=0.0, clip_max=1.0, model_mode="keep")
        model, ((last, _),) = in_channels_last(nn.Sequential(*first, *layers, *head), [(x, y)])
        with OtherLayouts() as layouts:
            found = step(model, last, y, recipe=recipe, weighting=Weighting(1.0, 0.2))
            if found.loss.requires_grad:
                torch.autograd.backward(found.loss)
        assert found.adversarial.is_contiguous(memory_format=torch.channels_last)
        return list(layouts.found)

    assert seen() == ["aten.clone.default"] * rows
    assert len(seen(Copying())) > rows


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with Processes() as found:
        yield found


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.parametrize("name", ["MNIST CNN", "ResNet-18"])
def test_steps_in_other_processes_give_the_gradients_by_hand(
    name: str, processes: Processes, one_thread: None
) -> None:
    case = Case.random(CPU, name, 2, 1)
    ways = [elsewhere(way, case, processes) for way in PROCESS_WAYS]
    reference = in_process(Way("by hand, two forwards", by_hand), case)
    _, *found = training_step.measure_case(case, [reference, *ways], PACE)
    assert [(row.status, row.provider) for row in found] == [("ok", w.name) for w in PROCESS_WAYS]
    for row in found:
        assert row.p50_ms is not None
        assert row.cpu_ms is not None
        assert row.provider_version
    versions = {row.provider: row.provider_version for row in found}
    assert versions[TENSORFLOW].startswith("1.4.0, tensorflow 2.21")


@pytest.mark.live
@pytest.mark.parametrize("way", [w for w in PROCESS_WAYS if w.name.startswith("nsl")])
def test_other_gradients_of_another_process_are_different(
    way: ProcessWay, processes: Processes, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = elsewhere(way, Case.random(CPU, "MNIST CNN", 2, 1), processes)
    assert provider.check(None) == ""
    monkeypatch.setattr("benchmarks.speed.training_processes.MULTIPLIER", 0.21)
    assert "away from that of the step by hand" in provider.check(None)


def test_the_allocator_is_told_to_keep_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, str]] = []

    class Recorded:
        """Stands for a process, and knows what it would inherit."""

        def __init__(self, environment: object, script: Path) -> None:
            assert script.is_file()
            started.append({n: os.environ[n] for n in KEPT_MEMORY if n in os.environ})
            raise OSError("not started")

    monkeypatch.setattr("benchmarks.speed.training_processes.Worker", Recorded)
    monkeypatch.delenv("MALLOC_MMAP_MAX_", raising=False)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    case = Case.random(CPU, "MNIST CNN", 2, 1)
    for way in PROCESS_WAYS:
        with pytest.raises(OSError, match="not started"):
            elsewhere(way, case, Processes()).make()
        kept = "kept memory" in way.name
        assert started.pop() == (KEPT_MEMORY if kept else {"MALLOC_TRIM_THRESHOLD_": "1"})
        assert "MALLOC_MMAP_MAX_" not in os.environ
        assert os.environ["MALLOC_TRIM_THRESHOLD_"] == "1"


_NEW_PAGES = """
import resource, torch
torch.set_num_threads(1)
from benchmarks.speed.training_step import Case
from benchmarks.speed.training_ways import step
case = Case.random(torch.device("cpu"), "MNIST CNN", 32, 1)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    before = faults()
    step(case.model, *case.batches[0])
print(faults() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the variables are glibc's")
def test_kept_memory_needs_no_new_pages() -> None:
    def new_pages(variables: dict[str, str]) -> int:
        return int(
            subprocess.run(
                [sys.executable, "-c", _NEW_PAGES],
                env={**os.environ, **variables},
                cwd=Path(__file__).parents[2],
                check=True,
                capture_output=True,
                timeout=120,
            ).stdout
        )

    # As if nothing larger than 64 KiB were kept. A machine short of memory takes a few back itself.
    lost = new_pages({"MALLOC_MMAP_THRESHOLD_": "65536"})
    assert lost > 1000
    assert new_pages(KEPT_MEMORY) < lost / 3


def test_the_page_is_that_of_the_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert training_speed_page.main(["--check"]) == 0, capsys.readouterr().err


def test_a_stale_page_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stale = tmp_path / "page.md"
    stale.write_text(PAGE.read_text(encoding="utf-8").replace("torch", "tensor", 1))
    assert training_speed_page.main(["--check", "--page", str(stale)]) == 1
    assert "training_speed_page" in capsys.readouterr().err


def test_the_rows_say_what_the_page_says_in_words() -> None:
    found = [row for row in rows.read(CSV) if row["status"] == "ok"]
    assert {case[0] for case in cases(found)} == {"MNIST CNN", "ResNet-18"}
    assert {row["threads"] for row in found} == {"1"}
    # What is left is not this package's, and both settings together help.
    assert max(cpu_ratios(found, BOTH, BY_HAND).values()) < 1.1
    assert max(cpu_ratios(found, BOTH, PLAIN).values()) < 0.95
    memory = {
        ((row["model"], row["batch"]), row["provider"]): float(row["peak_mib"])
        for row in found
        if row["peak_mib"]
    }
    for case in cases(found):
        assert memory[case, SHARED] <= 0.55 * memory[case, "usual, autograd.grad"]
