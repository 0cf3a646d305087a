"""Models of the conversions' table, converted and verified: enough of them that every operation of
an ONNX graph takes part, and in a long run all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from benchmarks import rows
from benchmarks.conversions import rows as conversion_rows
from benchmarks.conversions import table as conversions
from benchmarks.conversions.runs import ENVIRONMENTS, Bench
from torchfgsm.originals.environment import EnvironmentUnavailable, python_for

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("one_thread")]
RECORDED = rows.read(conversions.CSV)


@pytest.fixture(scope="module", params=["2", "3"])
def bench(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    try:
        python_for(ENVIRONMENTS[request.param])
    except EnvironmentUnavailable as error:
        pytest.skip(str(error))
    bench = Bench(request.param, tmp_path_factory.mktemp("models"))
    yield bench
    bench.close()


def test_every_operation_of_the_table_converts(bench: Bench) -> None:
    for recorded in conversion_rows.cover(RECORDED):
        if recorded["keras"] == bench.keras:
            (row,) = bench.rows(recorded["model"], (recorded["route"],))
            assert row.verdict == "ok", f"{row.model} by {row.route}: {row.reason}"
            assert row.ops == recorded["ops"], f"{row.model} by {row.route}"


# Models by routes on which tf2onnx, TensorFlow or Keras need a hand, by Keras' version.
MENDED = {
    "2": [
        ("subclassed", "keras"),  # its inputs get other names when it is traced
        ("grouped", "frozen"),  # TensorFlow has no gradient of it on a CPU without XLA
        ("lstm_states", "frozen"),  # a backward LSTM that begins where the forward one ended
    ],
    "3": [
        ("grouped", "saved_model"),
        ("frozen_layers", "saved_model"),  # variables that only lists say are not trained
    ],
}
REFUSED: dict[str, list[tuple[str, str, str]]] = {
    "2": [],
    "3": [
        ("stateful", "saved_model", "assigns to a variable .node '.*lstm.*stateful=False"),
        ("stateful", "tflite", r"a state in variables \(ASSIGN_VARIABLE.*stateful=False"),
    ],
}


def test_what_needs_a_hand_converts(bench: Bench) -> None:
    for model, route in MENDED[bench.keras]:
        (row,) = bench.rows(model, (route,))
        assert row.verdict == "ok", f"{model} by {route}: {row.reason}"
        # The weights of recurrent layers are constants in a frozen graph.
        assert row.trained == row.keras_trained or model == "lstm_states", f"{model} by {route}"


def test_what_cannot_be_converted_says_why(bench: Bench) -> None:
    for model, route, reason in REFUSED[bench.keras]:
        (row,) = bench.rows(model, (route,))
        assert row.verdict == "refused", f"{model} by {route}"
        assert re.search(reason, row.reason), row.reason


@pytest.mark.slow
def test_a_tflite_file_that_tensorflow_cannot_run_is_refused(bench: Bench) -> None:
    if bench.keras == "3":
        pytest.skip("it writes a file that runs")
    (row,) = bench.rows("normalizations", ("tflite",))
    assert "TensorFlow Lite itself cannot run the model" in row.reason
    assert "BROADCAST_TO" in row.reason


@pytest.mark.slow
def test_the_models_of_the_table_convert_as_recorded(bench: Bench) -> None:
    """All but the applications, which take an hour: the benchmark is their test."""
    facts = bench.facts()
    recorded = {(r["model"], r["route"]): r for r in RECORDED if r["keras"] == bench.keras}
    bench.training = True
    worse = []
    for model in (m for m in facts["models"] if m not in facts["large"]):
        for row in bench.rows(model, ("keras", "onnx")):
            before = recorded[row.model, row.route]
            if (row.verdict, row.training) != (before["verdict"], before["training"]):
                worse.append(f"{model} by {row.route}: {row.verdict} {row.reason} {row.training}")
    assert not worse, "\n".join(worse)
