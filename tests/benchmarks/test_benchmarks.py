"""The timed benchmarks work: rows, checks before times, replacement, plots from the rows alone."""

from __future__ import annotations

import dataclasses
import sys
import time
import zipfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import ModuleType

import pytest
import torch

from benchmarks import rows
from benchmarks.rows import Row
from benchmarks.speed import (
    attack_providers,
    contest,
    peers,
    step,
    step_providers,
    training_step,
    whole_attack,
)
from benchmarks.speed.attack_providers import Attack, Target
from benchmarks.speed.contest import Pace, Provider, compete
from benchmarks.speed.models import ARCHITECTURES
from benchmarks.speed.step_inputs import Inputs
from benchmarks.speed.step_providers import COMPILED, MAKERS, Settings, difference, operations
from benchmarks.speed.timing import Sample, TimedElsewhere, Times, interleaved

CPU = torch.device("cpu")
PACE = Pace(0.01, 0.01)


@pytest.mark.parametrize(
    ("script", "ours"),
    [
        (step, {"copy", "torchfgsm", "torch operations"}),
        (whole_attack, {"by hand", "torchfgsm"}),
        (
            training_step,
            {
                "by hand, two forwards",
                "usual, backward",
                "torchfgsm.nsl",
                "torchfgsm, step",
                "torchfgsm",
            },
        ),
    ],
)
def test_quick_run_writes_rows_and_a_plot(
    script: ModuleType, ours: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Compiling takes seconds and a compiler.
    without = [made for made in MAKERS if made.name != COMPILED]
    monkeypatch.setattr(step, "MAKERS", without)
    monkeypatch.setattr(whole_attack, "_QUICK", {"MLP": (4,)})
    monkeypatch.setattr(training_step, "PROCESS_WAYS", ())  # they start TensorFlow
    arguments = ["--quick", "--device", "cpu", "--out", str(tmp_path)]
    assert script.main(arguments) == 0
    name = script.__name__.rpartition(".")[2]
    found = rows.read(tmp_path / f"{name}.csv")
    assert ours <= {row["provider"] for row in found}
    assert {row["status"] for row in found if row["provider"] in ours} == {"ok"}
    for row in found:
        assert row["status"] in ("ok", "different", "unavailable")
        assert bool(row["p50_ms"]) == (row["status"] == "ok")
        assert row["reason"] or row["status"] == "ok"
        assert row["torch"] == torch.__version__
        if row["status"] == "ok":
            times = [float(row[part]) for part in ("p20_ms", "p50_ms", "p80_ms")]
            assert times == sorted(times)
            assert times[0] > 0
            if row["provider"] == row["reference"]:
                assert float(row["ratio"]) == 1
    plot = tmp_path / f"{name}.png"
    drawn = plot.read_bytes()
    plot.unlink()
    monkeypatch.setattr(script, "measure", None)  # a plot needs no measurement
    assert script.main([*arguments, "--from-csv"]) == 0
    assert plot.read_bytes() == drawn


def test_rerun_replaces_the_rows_of_its_key(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    first = Row(benchmark="step", provider="copy", batch=1, p50_ms=2.0)
    other = dataclasses.replace(first, batch=2)
    rows.write(file, [first, other])
    rows.write(file, [dataclasses.replace(first, p50_ms=3.0, status="different", reason="why")])
    found = rows.read(file)
    assert [(row["batch"], row["p50_ms"], row["status"]) for row in found] == [
        ("1", "3", "different"),
        ("2", "2", "ok"),
    ]
    rows.write(file, [dataclasses.replace(first, torch="another")])
    assert len(rows.read(file)) == 3


def counted(result: object, calls: list[int]) -> Callable[[], Callable[[], object]]:
    def call() -> object:
        calls.append(1)
        return result

    return lambda: call


def test_a_wrong_provider_is_reported_and_not_timed() -> None:
    right: list[int] = []
    wrong: list[int] = []

    def check(result: object) -> str:
        return "" if result == 1 else f"{result} is not 1"

    def missing() -> Callable[[], object]:
        raise ImportError("no such library")

    def fails() -> Callable[[], object]:
        turn = count()

        def call() -> object:
            if next(turn):
                raise RuntimeError("out of memory")
            return 1

        return call

    providers = [
        Provider("right", counted(1, right), check),
        Provider("wrong", counted(2, wrong), check),
        Provider("missing", missing, check),
        Provider("fails later", fails, check),
    ]
    case = Row(benchmark="step", provider="")
    found = {row.provider: row for row in compete(case, providers, CPU, PACE, reference="right")}
    assert list(found) == [provider.name for provider in providers]
    assert found["right"].status == "ok"
    assert found["right"].ratio == 1
    assert len(right) > 5
    assert (found["wrong"].status, found["wrong"].reason) == ("different", "2 is not 1")
    assert len(wrong) == 1
    for name in ("wrong", "missing", "fails later"):
        assert found[name].p50_ms is None
        assert found[name].ratio is None
    assert found["missing"].reason == "ImportError: no such library"
    assert found["fails later"].status == "unavailable"
    assert found["fails later"].reason == "RuntimeError: out of memory"


def test_ratios_are_taken_within_rounds_and_per_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {
        "copy": Times([1.0, 2.0, 9.0]),
        "slow": Times([2.0, 4.0, 9.5]),
        "less": Times([2.0, 4.0, 9.5]),
    }
    monkeypatch.setattr(contest, "interleaved", lambda *arguments, **pace: times)
    sizes = {"copy": 2_000_000, "slow": None, "less": 1_000_000}
    providers = [
        Provider(name, counted(1, []), lambda result: "", bytes=size)
        for name, size in sizes.items()
    ]
    case = Row(benchmark="step", provider="")
    copy, slow, less = compete(case, providers, CPU, PACE, reference="copy")
    assert (copy.ratio, slow.ratio, less.ratio) == (1, 2, 4)
    assert (copy.p50_ms, copy.gb_per_s) == (2, 1)
    assert (slow.p50_ms, slow.gb_per_s) == (4, None)
    assert (copy.p20_ms, copy.p80_ms) == pytest.approx((1.4, 6.2))


def test_times_are_of_one_call_in_interleaved_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = 0.0
    order: list[str] = []

    def lasting(name: str, milliseconds: float) -> Callable[[], None]:
        def call() -> None:
            nonlocal seconds
            seconds += milliseconds / 1000
            order.append(name)

        return call

    monkeypatch.setattr(time, "perf_counter", lambda: seconds)
    monkeypatch.setattr(time, "process_time", lambda: seconds / 2)
    calls = {"short": lasting("short", 1), "long": lasting("long", 4)}
    found = interleaved(calls, CPU, seconds=0.0701, sample_ms=2.5)
    assert found["short"].rounds == pytest.approx([1.0] * 10)
    assert found["long"].rounds == pytest.approx([4.0] * 10)
    assert found["long"].cpu == pytest.approx([2.0] * 10)
    # After two calls each, to see how long they last, the short one fills a sample three times.
    turns = [tuple(order[at : at + 4]) for at in range(4, len(order), 4)]
    short_first = ("short", "short", "short", "long")
    assert set(turns) == {short_first, short_first[::-1]}


def test_a_call_elsewhere_is_timed_by_its_own_clocks() -> None:
    asked: list[int] = []

    def repeat(repeats: int) -> Sample:
        asked.append(repeats)
        return Sample(3.0, 2.0)

    providers = [Provider("here", counted(1, []), lambda result: "")]
    providers.append(Provider("there", lambda: TimedElsewhere(repeat), lambda result: ""))
    case = Row(benchmark="step", provider="")
    _, there = compete(case, providers, CPU, Pace(0.01, 7.0), reference="here")
    assert (there.p20_ms, there.p50_ms, there.p80_ms, there.cpu_ms) == (3, 3, 3, 2)
    # The first call, two to see how long it lasts, then as many as fill a sample.
    assert asked[:3] == [1, 1, 1]
    assert len(asked) >= 8
    assert set(asked[3:]) == {3}


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_step_is_checked(
    norm: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_providers, "_CHUNK", 200)  # row by row
    x, grad = Inputs.random(3, 200, dtype, CPU).sets[0]
    settings = Settings.of(norm, 200)
    moved = operations(x, grad, norm, settings.eps)
    assert difference(moved, x, grad, settings) == ""
    assert difference(operations(x, -grad, norm, settings.eps), x, grad, settings) != ""
    assert difference(operations(x, grad, norm, 0.9 * settings.eps), x, grad, settings) != ""
    one_row = moved.clone()
    one_row[2] = x[2]
    assert "away" in difference(one_row, x, grad, settings)
    assert "expected" in difference(moved.double(), x, grad, settings)
    assert "expected" in difference(moved[:2], x, grad, settings)


def test_inputs_take_turns_and_exceed_the_caches() -> None:
    inputs = Inputs.random(1000, 3072, torch.float32, CPU)
    assert 3 * 4 * 1000 * 3072 * len(inputs.sets) >= 256e6
    assert float(inputs.sets[0][0].amin()) >= 0
    seen: list[int] = []
    call = inputs.in_turn(lambda x, grad: seen.append(x.data_ptr()))
    for _ in range(2 * len(inputs.sets)):
        call()
    assert seen[: len(inputs.sets)] == [x.data_ptr() for x, _ in inputs.sets]
    assert seen[len(inputs.sets) :] == seen[: len(inputs.sets)]


@pytest.mark.parametrize("attack", ["fgsm", "pgd-10"])
def test_a_wrong_attack_is_different(attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    maker = attack_providers.Maker

    def descends(target: Target) -> Attack:
        right = whole_attack.by_hand(target)
        return lambda x, y: 2 * x - right(x, y)

    def labels_wrong(target: Target) -> Attack:
        right = whole_attack.by_hand(target)
        return lambda x, y: right(x, (y + 1) % 10 if y is not None else None)

    makers = (maker("descends", descends), maker("wrong labels", labels_wrong))
    monkeypatch.setattr(attack_providers, "MAKERS", makers)
    found = whole_attack.measure_case(CPU, "MLP", 4, attack, "given", PACE)
    assert [row.status for row in found] == ["ok", "ok", "different", "different"]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("ResNet-18", 11_173_962), ("ResNet-50", 25_557_032), ("ViT-B/16", 86_567_656)],
)
def test_models_are_the_known_ones(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = ARCHITECTURES[name].make()
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_models_and_batches_repeat() -> None:
    architecture = ARCHITECTURES["MLP"]
    before = torch.get_rng_state()
    (x, _), (x2, _) = architecture.batches(2, 2, CPU)
    assert torch.equal(x, architecture.batches(2, 1, CPU)[0][0])
    assert not torch.equal(x, x2)
    assert torch.equal(architecture.build(CPU)(x), architecture.build(CPU)(x))
    assert torch.equal(before, torch.get_rng_state())


def test_wheels_are_found_behind_what_is_installed(tmp_path: Path) -> None:
    wheel = tmp_path / "carried_along-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("carried_along.py", "value = 7\n")
        archive.writestr("torchfgsm.py", "raise RuntimeError('a wheel went first')\n")
    before = list(sys.path)
    with peers.on_path(tmp_path):
        assert peers.module("carried_along").value == 7
        assert sys.path[:-1] == before
    assert sys.path == before
    with pytest.raises(FileNotFoundError, match="benchmarks"), peers.on_path(tmp_path / "x"):
        pass
