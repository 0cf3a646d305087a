"""The table of conversions: its rows, its page, and that the page is that of the rows."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from benchmarks.conversions import rows as conversion_rows
from benchmarks.conversions import table as conversions
from benchmarks.conversions.page import page
from benchmarks.conversions.rows import Row
from benchmarks.conversions.runs import Steps
from benchmarks.conversions.twins import CNN, TWINS
from benchmarks.rows import read

OK = Row(
    model="cnn",
    keras="2",
    route="keras",
    output_error=2e-7,
    gradient_error=3e-7,
    trained=10,
    keras_trained=10,
    export_s=1.0,
    build_s=0.2,
    verify_s=0.3,
    torch="2.14",
)
REFUSED = dataclasses.replace(
    OK, route="h5", verdict="refused", reason="layer 'a|b' is not supported", trained=None
)


def recorded() -> conversion_rows.Rows:
    return read(conversions.CSV)


def test_the_page_is_that_of_the_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert conversions.main(["--check"]) == 0, capsys.readouterr().err


def test_a_stale_page_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stale = tmp_path / "conversions.md"
    stale.write_text(conversions.PAGE.read_text(encoding="utf-8").replace("ok", "fine", 1))
    assert conversions.main(["--check", "--page", str(stale)]) == 1
    assert "--from-csv" in capsys.readouterr().err
    assert conversions.main(["--from-csv", "--page", str(stale)]) == 0
    assert stale.read_text(encoding="utf-8") == conversions.PAGE.read_text(encoding="utf-8")


def test_every_model_was_converted_by_every_route_in_both_versions() -> None:
    routes: dict[tuple[str, str], list[str]] = {}
    for row in recorded():
        routes.setdefault((row["model"], row["keras"]), []).append(row["route"])
    large = {
        model for model, found in routes.items() if found == list(conversion_rows.LARGE_ROUTES)
    }
    small = routes.keys() - large
    assert all(routes[model] == list(conversion_rows.ROUTES) for model in small)
    of = {k: {model for model, keras in routes if keras == k} for k in ("2", "3")}
    assert of["2"] == {model for model in of["3"] if not model.endswith("_keras3")}
    assert len(large) == 20
    assert len(small) > 120


def test_what_is_recorded_as_ok_is_within_the_tolerances() -> None:
    rows = [row for row in recorded() if row["verdict"] == "ok"]
    for row in rows:
        # Of TFLite there is its interpreter alone, to which the verification itself compares.
        assert row["route"] == "tflite" or float(row["output_error"]) < 1e-5, row
        assert float(row["gradient_error"] or 0) < 1e-3, row
        if row["route"] == "keras":
            assert row["trained"] == row["keras_trained"], row
    for row in recorded():
        assert bool(row["reason"]) == (row["verdict"] != "ok"), row


def test_a_rerun_replaces_the_rows_of_its_models(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    conversion_rows.write(file, [OK, REFUSED])
    conversion_rows.write(file, [dataclasses.replace(REFUSED, verdict="ok", torch="2.15")])
    found = read(file)
    assert [(row["route"], row["verdict"], row["torch"]) for row in found] == [
        ("keras", "ok", "2.14"),
        ("h5", "ok", "2.15"),
    ]


def test_a_cover_holds_every_operation_and_takes_the_quick_ones() -> None:
    def row(model: str, verdict: str, ops: str, seconds: float) -> dict[str, str]:
        times = {"export_s": str(seconds), "build_s": "0", "verify_s": "0"}
        return {"model": model, "route": "keras", "verdict": verdict, "ops": ops, **times}

    rows = [
        row("slow", "ok", "Add Conv Relu", 100.0),
        row("wrong", "different", "Add Conv Relu Loop", 1.0),
        row("quick", "ok", "Add Conv", 1.0),
        row("other", "ok", "Relu", 2.0),
    ]
    assert [r["model"] for r in conversion_rows.cover(rows)] == ["quick", "other"]
    found = conversion_rows.cover(recorded())
    for rows in (found, [row for row in recorded() if row["verdict"] == "ok"]):
        held = {operation for row in rows for operation in row["ops"].split()}
        assert held == {operation for row in found for operation in row["ops"].split()}


def test_the_page_counts_and_gives_reasons(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    unsaved = dataclasses.replace(OK, route="tflite", verdict="not saved", reason="no kernel")
    untrained = dataclasses.replace(OK, model="mlp", training="the mean is 1e-3 away")
    conversion_rows.write(file, [OK, REFUSED, unsaved, untrained])
    lines = page(read(file), []).splitlines()
    assert "| .keras | 2 of 2 |" in lines
    assert "| .h5 | 0 of 1 |" in lines
    assert "| .tflite | 0 of 0 (1 Keras cannot save) |" in lines
    assert "| cnn | 2 | .h5 | refused | layer 'a\\|b' is not supported |" in lines
    assert "| mlp | 2 | .keras | training step | the mean is 1e-3 away |" in lines
    (line,) = [line for line in lines if line.startswith("| cnn | 2 | ok |")]
    assert line.endswith("| 2e-07 | 3e-07 | 10 | | 1.0 + 0.2 + 0.3 |".replace("| |", "|  |"))


def test_steps_share_the_time_of_a_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 3.0, 6.0, 10.0, 15.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    steps = Steps()
    for step in ("starting TensorFlow", "exporting", "building", "verifying: 1", "verifying: 2"):
        steps(step)
    assert steps.seconds() == {"export_s": 2.0, "build_s": 3.0, "verify_s": 9.0}


def test_speed_was_measured_of_results_that_agree() -> None:
    rows = read(conversions.SPEED_CSV)
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["provider"] for row in rows} >= {"by hand", "torchfgsm", "TensorFlow"}


@pytest.mark.parametrize(
    ("name", "size", "parameters"), [("CNN", 32, 114_186), ("ResNet50", 64, 23_555_082)]
)
def test_twins_have_the_known_sizes(name: str, size: int, parameters: int) -> None:
    twin = TWINS[name]().eval()
    assert sum(parameter.numel() for parameter in twin.parameters()) == parameters
    assert twin(torch.rand(1, 3, size, size)).shape == (1, 10)


def test_a_twin_refuses_to_go_without_a_weight() -> None:
    with pytest.raises(ValueError, match="head"):
        CNN().take({"conv1/kernel": torch.zeros(3, 3, 3, 32).numpy()})
