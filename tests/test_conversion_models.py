"""Models of the conversions' table, converted and verified: enough of them that every operation of
an ONNX graph takes part, and in a long run all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks import conversion_rows, conversions, rows
from benchmarks.conversion_runs import ENVIRONMENTS, Bench
from torchfgsm.originals.environment import EnvironmentUnavailable, python_for

pytestmark = pytest.mark.live
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


@pytest.mark.slow
def test_all_models_of_the_table_convert_as_recorded(bench: Bench) -> None:
    recorded = {(r["model"], r["route"]): r for r in RECORDED if r["keras"] == bench.keras}
    bench.training = True
    worse = []
    for model in bench.facts()["models"]:
        for row in bench.rows(model, ("keras", "onnx")):
            before = recorded[row.model, row.route]
            if (row.verdict, row.training) != (before["verdict"], before["training"]):
                worse.append(f"{model} by {row.route}: {row.verdict} {row.reason} {row.training}")
    assert not worse, "\n".join(worse)
