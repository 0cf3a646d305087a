"""The protocol between the port and its workers, with a script that needs no TensorFlow."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torchfgsm.originals.process import Worker, WorkerError

PYTHON = Path(sys.executable)
SCRIPT = Path(__file__).parent / "protocol_worker.py"


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker(PYTHON, SCRIPT) as running:
        yield running


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie whose parent has not waited for it yet is dead too.
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    return False


def wait_until(condition: Any, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


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
        ("unknown", "LookupError", "no handler 'unknown'; this worker has dies, echo"),
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


@pytest.mark.parametrize(
    ("method", "how"), [("dies", "exit code 7"), ("killed", "killed by SIGSEGV")]
)
def test_death_is_told_with_its_cause(worker: Worker, method: str, how: str) -> None:
    with pytest.raises(WorkerError, match=how) as caught:
        worker.call(method)
    assert caught.value.kind == "Died"
    assert ("the last words" in str(caught.value)) == (method == "dies")
    with pytest.raises(WorkerError, match="has been closed"):
        worker.call("echo")


def test_death_in_the_middle_of_a_reply(worker: Worker) -> None:
    with pytest.raises(WorkerError, match="ended during 'half'"):
        worker.call("half")


def test_death_before_a_large_request_is_read(worker: Worker) -> None:
    os.kill(worker.call("state").values["pid"], signal.SIGKILL)
    with pytest.raises(WorkerError, match=r"ended during 'echo' \(killed by SIGKILL"):
        worker.call("echo", {"large": np.zeros(1_000_000)})


def test_a_timeout_ends_the_whole_process_group(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with Worker(PYTHON, SCRIPT, timeout=2.0) as worker:
        with pytest.raises(WorkerError, match=r"did not answer 'sleeps' in 2 s") as caught:
            worker.call("sleeps", file=str(pids))
        assert caught.value.kind == "TimedOut"
    for pid in map(int, pids.read_text().split()):
        assert wait_until(lambda pid=pid: not alive(pid))


@pytest.mark.parametrize(
    "data",
    [
        b"not a frame, but long enough to be read as the beginning of one",
        bytes(24),  # as if both lengths were 0
        b"tfgsm\x00\x011" + b"\xff" * 16,  # our mark, and lengths beyond any memory
    ],
)
def test_garbage_is_told_and_ends_the_worker(worker: Worker, data: bytes) -> None:
    pid = worker.call("state").values["pid"]
    with pytest.raises(WorkerError, match="expected a frame, got bytes starting with") as caught:
        worker.call("garbage", bytes=list(data))
    assert caught.value.kind == "Garbage"
    assert wait_until(lambda: not alive(pid))


def test_an_interrupted_call_ends_the_worker(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(count: int, deadline: float) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, "_receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        worker.call("echo")
    with pytest.raises(WorkerError, match="has been closed"):
        worker.call("echo")


def test_close_ends_the_process_and_may_be_repeated() -> None:
    worker = Worker(PYTHON, SCRIPT)
    pid = worker.call("state").values["pid"]
    worker.close()
    worker.close()
    assert not alive(pid)


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
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


@pytest.mark.parametrize("busy", [False, True])
def test_no_orphan_when_the_parent_is_killed(tmp_path: Path, busy: bool) -> None:
    pids = tmp_path / "pids"
    call = "sleeps" if busy else "state"
    parent = f"""
import sys, threading, time
from pathlib import Path
from torchfgsm.originals.process import Worker
worker = Worker(Path(sys.executable), Path({str(SCRIPT)!r}))
threading.Thread(target=lambda: worker.call({call!r}, file={str(pids)!r}), daemon=True).start()
print(worker._process.pid, flush=True)
time.sleep(300)
"""
    process = subprocess.Popen([PYTHON, "-c", parent], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert not busy or wait_until(lambda: pids.exists() and pids.read_text())
        assert alive(pid)
    finally:
        process.kill()
        process.communicate()
    assert wait_until(lambda: not alive(pid))
    if busy:  # what a handler itself started is not ours to find
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pids.read_text().split()[1]), 9)


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
