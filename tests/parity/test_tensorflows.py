"""The originals on today's TensorFlow beside the last that they were written for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import SUPPORT

from benchmarks import rows
from benchmarks.evidence import tensorflows
from torchfgsm import converters
from torchfgsm.originals import KERAS_2, WITNESS, EnvironmentUnavailable, Worker, python_for
from torchfgsm.originals.environment import KERAS_3


def test_the_page_is_that_of_the_rows() -> None:
    assert tensorflows.main(["--check"]) == 0


def test_there_is_a_row_for_every_case() -> None:
    found = [row["case"] for row in rows.read(tensorflows.ROWS)]
    assert found == [case.name for case in tensorflows.cases()]


def test_other_bits_are_told() -> None:
    one: dict[str, Any] = {"a": np.array([1, 2], np.float32), "b": np.arange(3)}
    assert tensorflows.same_bits(one, one)
    assert tensorflows.distance(one, one) == 0
    other = {**one, "a": np.nextafter(one["a"], np.float32(3))}
    assert not tensorflows.same_bits(one, other)
    assert not tensorflows.same_bits(one, {"a": one["a"]})
    assert 0 < tensorflows.distance(one, other) < 2e-7


@pytest.fixture
def witness() -> None:
    try:
        python_for(WITNESS)
    except EnvironmentUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.usefixtures("witness")
def test_every_recorded_case_is_as_far_apart_as_its_row_says() -> None:
    """At most twice as far: which of two sums of float32 is taken hangs on the processor."""
    known = {row["case"]: row for row in rows.read(tensorflows.ROWS)}
    for row in tensorflows.measure(tensorflows.cases()):
        assert float(row["distance"]) <= max(2 * float(known[row["case"]]["distance"]), 1e-6), row


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize("suffix", [".keras", ".h5", ""])
@pytest.mark.parametrize("kind", ["cnn", "two_inputs", "softmax_layer", "regularized"])
def test_a_file_of_keras_2_15_gives_the_numbers_that_it_gave_there(
    kind: str, suffix: str, tmp_path: Path
) -> None:
    path, zoo = tmp_path / f"model{suffix}", SUPPORT / "keras_zoo_worker.py"
    with Worker(WITNESS, zoo) as there, Worker(KERAS_2, zoo) as here:
        ports = there.call("build", kind=kind, path=str(path)).values
        random = np.random.default_rng(0)
        arrays = {
            f"x/{name}": random.random((5, *shape), np.float32)
            for name, shape in zip(ports["input_names"], ports["input_shapes"], strict=True)
        }
        found = [side.call("outputs", arrays, path=str(path)).arrays for side in (there, here)]
    assert found[0].keys() == found[1].keys()
    for name, expected in found[0].items():
        np.testing.assert_allclose(found[1][name], expected, rtol=0, atol=1e-6)
    assert converters.load(path).verification


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize("runtime", [KERAS_2, KERAS_3])
def test_the_witness_compares_models_of_later_keras(
    runtime: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from torchfgsm import cli

    path, data = tmp_path / "model.keras", tmp_path / "data.npz"
    with Worker(runtime, SUPPORT / "keras_zoo_worker.py") as zoo:
        zoo.call("build", kind="cnn", path=str(path))
    x = np.random.default_rng(0).random((4, 8, 8, 2), np.float32)
    np.savez(data, x=x, y=np.arange(4) % 5)
    against = ["--against", "nsl,cleverhans3,cleverhans-tf2", "--tensorflow", "2.15"]
    assert cli.main(["compare", str(path), "--data", str(data), *against]) == 0
    assert "TensorFlow 2.15.1" in capsys.readouterr().out
