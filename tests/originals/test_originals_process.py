"""The protocol between the port and its workers, with a script that needs no TensorFlow."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import SUPPORT, alive

from torchfgsm.originals.process import Worker, WorkerError

PYTHON = Path(sys.executable)
SCRIPT = SUPPORT / "protocol_worker.py"


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker(PYTHON, SCRIPT) as running:
        yield running


def bits(array: np.ndarray[Any, Any]) -> tuple[Any, ...]:
    return array.dtype, array.shape, array.tobytes()


def test_arrays_round_trip_bit_for_bit(worker: Worker) -> None:
    arrays: dict[str, Any] = {
        "x/image": np.random.default_rng(0).random((2, 3)),
        "a/b/c:0": np.array([1.5, -0.0, np.nan, np.inf], np.float32),
        "file": np.array(3.0),
        "x.npy": np.zeros((0, 4), np.float16),
        "": np.arange(6).reshape(2, 3)[:, ::2],
        "fortran": np.asfortranarray(np.arange(12, dtype=np.int8).reshape(3, 4)),
        "bool": np.array([True, False]),
        "uint64": np.array(2**64 - 1, np.uint64),
        "big-endian": np.array([1.0, 2.0], ">f8"),
        "text": np.array(["é", "long enough"]),
        "ünïcode": np.array([1 + 2j]),
    }
    reply = worker.call("echo", arrays)
    assert list(reply.arrays) == list(arrays)
    for name, array in arrays.items():
        assert bits(reply.arrays[name]) == bits(array), name


def test_an_array_larger_than_any_pipe(worker: Worker) -> None:
    large = np.random.default_rng(1).random(700_000)
    assert bits(worker.call("echo", {"large": large}).arrays["large"]) == bits(large)


def test_parameters_round_trip(worker: Worker) -> None:
    values = {
        "none": None,
        "inf": float("inf"),
        "nested": {"list": [1, 2.5, "é", True]},
        "method": "m",
        "arrays": 1,
    }
    assert worker.call("echo", None, **values).values == values
    assert np.isnan(worker.call("echo", x=float("nan")).values["x"])
    assert worker.call("echo", x=np.float64(0.1)).values == {"x": 0.1}


def test_arrays_that_need_pickle_are_refused_here_and_there(worker: Worker) -> None:
    with pytest.raises(TypeError, match="'bad' has dtype object; expected numbers"):
        worker.call("echo", {"bad": np.array([None])})
    with pytest.raises(WorkerError, match="'x' has dtype object") as caught:
        worker.call("objects")
    assert caught.value.kind == "TypeError"
    assert worker.call("echo", x=1).values == {"x": 1}


@pytest.mark.parametrize(
    ("method", "kind", "message"),
    [
        ("raises", "KeyError", "'the key'"),
        ("leaves", "SystemExit", "on purpose"),
        ("unsendable", "TypeError", "object cannot be sent as JSON"),
        ("nothing", "TypeError", "unpack"),
        ("unknown", "LookupError", "no handler 'unknown'; this worker has chatters, closes"),
    ],
)
def test_a_remote_exception_is_told_and_the_worker_lives_on(
    worker: Worker, method: str, kind: str, message: str
) -> None:
    with pytest.raises(WorkerError) as caught:
        worker.call(method, key="the key")
    assert caught.value.kind == kind
    assert message in caught.value.message
    assert "Traceback" in caught.value.remote_traceback
    assert caught.value.remote_traceback.rstrip() in str(caught.value)
    assert worker.call("echo", x=1).values == {"x": 1}


@pytest.mark.parametrize("source", ["raise RuntimeError('broken script')", "import no_such_module"])
def test_a_script_that_cannot_be_loaded_says_so_at_the_first_call(
    tmp_path: Path, source: str
) -> None:
    path = tmp_path / "broken.py"
    path.write_text(source)
    with Worker(PYTHON, path) as worker, pytest.raises(WorkerError) as caught:
        worker.call("echo")
    assert "broken.py" in caught.value.remote_traceback


def test_output_does_not_disturb_the_protocol(worker: Worker) -> None:
    assert worker.call("noisy").values == {}
    assert worker.call("echo", x=1).values == {"x": 1}


def test_close_ends_the_process_and_may_be_repeated() -> None:
    worker = Worker(PYTHON, SCRIPT)
    pid = worker.call("state").values["pid"]
    worker.close()
    worker.close()
    assert not alive(pid)


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gc.collect()  # what earlier tests left
    descriptors = len(os.listdir("/proc/self/fd"))
    worker = Worker(PYTHON, SCRIPT)
    worker.call("echo")
    assert list(tmp_path.iterdir())
    del worker  # never closed
    gc.collect()
    with pytest.raises(FileNotFoundError):
        Worker(Path("/no/such/python"), SCRIPT)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert not list(tmp_path.iterdir())


def test_the_child_is_isolated_and_runs_on_the_processor_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/from/the/parent")
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    with Worker(PYTHON, SCRIPT) as worker:
        state = worker.call("state").values
    assert state["env"] == {
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "CUDA_VISIBLE_DEVICES": "",
        "TF_USE_LEGACY_KERAS": None,
    }
    assert state["isolated"] == 1
    assert "/from/the/parent" not in state["path"]
    assert state["float"] == 0.5


def test_several_workers_at_once() -> None:
    with Worker(PYTHON, SCRIPT) as first, Worker(PYTHON, SCRIPT) as second:
        pid = second.call("state").values["pid"]
        first.close()
        assert second.call("state").values["pid"] == pid
        second.close()
        # The other worker's ends of the pipes were not handed on to it.
        assert not alive(pid)


def test_a_missing_script_is_told_before_anything_runs() -> None:
    with pytest.raises(FileNotFoundError, match="expected a worker script"):
        Worker(PYTHON, Path("/no/such/script.py"))
