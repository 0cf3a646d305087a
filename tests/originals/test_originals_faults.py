"""What goes wrong with a worker's process: a clear error, and nothing is left of it."""

from __future__ import annotations

import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from processes import SUPPORT, alive, wait_until

from torchfgsm.originals import guarded
from torchfgsm.originals.process import Worker, WorkerError

PYTHON = Path(sys.executable)
SCRIPT = SUPPORT / "protocol_worker.py"


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker(PYTHON, SCRIPT) as running:
        yield running


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


def test_pipes_closed_by_a_process_that_lives_on(worker: Worker) -> None:
    with pytest.raises(WorkerError, match=r"ended during 'closes' \(it closed its pipes\)"):
        worker.call("closes")


def test_a_process_that_reads_nothing_is_a_timeout(tmp_path: Path) -> None:
    script = tmp_path / "deaf.py"
    script.write_text("import time; time.sleep(300)")
    with (
        Worker(PYTHON, script, timeout=0.5) as worker,
        pytest.raises(WorkerError, match=r"did not answer 'echo' in 0.5 s") as caught,
    ):
        worker.call("echo", {"large": np.zeros(1_000_000)})
    assert caught.value.kind == "TimedOut"


def test_memory_beyond_the_limit_is_told_and_ends_the_worker() -> None:
    with Worker(PYTHON, SCRIPT, memory_limit=200_000_000) as worker:
        pid = worker.call("state").values["pid"]
        with pytest.raises(WorkerError) as caught:
            worker.call("grows", step=100_000)
    assert caught.value.kind == "OutOfMemory"
    found = re.fullmatch(
        r"worker protocol_worker ended during 'grows': it took (0\.\d+) GB of memory, at most 0.2 "
        r"GB are allowed: TORCHFGSM_MEMORY_LIMIT sets another limit, in gigabytes",
        caught.value.message,
    )
    assert found
    assert 0.2 <= float(found[1]) < 2
    assert not alive(pid)


def test_a_reply_larger_than_the_memory_is_not_read() -> None:
    with Worker(PYTHON, SCRIPT, memory_limit=400_000_000) as worker:
        assert worker.call("large", size=1000).arrays["x"].size == 1000
        forged = list(struct.pack("!8sQQ", b"tfgsm\x00\x011", 2, 500_000_000))
        with pytest.raises(WorkerError, match="at most 400000000 bytes, got 500000000") as caught:
            worker.call("garbage", bytes=forged)
    assert caught.value.kind == "Garbage"


def test_the_limit_is_the_variables_or_most_of_the_machines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    group = tmp_path / "memory.max"
    monkeypatch.setattr(guarded, "_CONTROL_GROUPS", (tmp_path / "none", group))
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    monkeypatch.delenv("TORCHFGSM_MEMORY_LIMIT", raising=False)
    group.write_text("max\n")
    assert guarded.memory_limit() == int(0.9 * machine)
    group.write_text("1000000000\n")
    assert guarded.memory_limit() == 900_000_000
    monkeypatch.setenv("TORCHFGSM_MEMORY_LIMIT", "1.5")
    assert guarded.memory_limit() == 1_500_000_000
    for wrong in ("much", "-1", "0", "nan", "inf", "2GB"):
        monkeypatch.setenv("TORCHFGSM_MEMORY_LIMIT", wrong)
        with pytest.raises(ValueError, match=rf"LIMIT: expected gigabytes.* got '{wrong}'"):
            Worker(PYTHON, SCRIPT)


def test_much_output_neither_fills_the_disk_nor_disturbs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard of this test empties the log after 1 MB; what is printed comes to 20 MB."""
    guard = tmp_path / "guard.py"
    source = guarded._GUARD.read_text()
    guard.write_text(source.replace("_LARGEST_LOG = 64 << 20", "_LARGEST_LOG = 1 << 20"))
    assert guard.read_text() != source
    monkeypatch.setattr(guarded, "_GUARD", guard)
    with Worker(PYTHON, SCRIPT) as worker:
        found = worker.call("chatters", size=20_000_000, pause=0.0005).values["largest"]
        assert found < 10_000_000
        with pytest.raises(WorkerError) as caught:
            worker.call("killed")
    # Control characters would be commands to the terminal.
    assert caught.value.remote_traceback.splitlines()[-1] == "?[2Jthe last? words"
    assert len(caught.value.remote_traceback) < 100_000


def test_a_log_that_cannot_be_written_is_no_fault(worker: Worker) -> None:
    assert worker.call("full").values == {}
    assert worker.call("echo", x=1).values == {"x": 1}


def test_temporary_files_of_the_worker_go_with_it() -> None:
    with Worker(PYTHON, SCRIPT) as worker:
        file = Path(worker.call("leaves_files").values["file"])
        assert file.exists()
        with pytest.raises(WorkerError, match="SIGSEGV"):
            worker.call("killed")
    assert not file.parent.exists()


def test_a_forked_process_does_not_end_its_parents_worker() -> None:
    code = f"""
import gc, os, sys
from pathlib import Path
from torchfgsm.originals.process import Worker
worker = Worker(Path(sys.executable), Path({str(SCRIPT)!r}))
child = os.fork()
if child == 0:
    worker.close()
    sys.exit(0)
os.waitpid(child, 0)
child = os.fork()  # holds copies of everything, as a data loader's process does
if child == 0:
    import time
    time.sleep(300)
try:
    assert worker.call("echo", x=1).values == {{"x": 1}}
    assert worker._folder.exists()
    worker.close()
    assert not worker._folder.exists()
finally:
    os.kill(child, 9)
"""
    done = subprocess.run(
        [PYTHON, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_a_parent_without_standard_streams() -> None:
    """As a service may be started: their numbers are free for other files."""
    code = f"""
import os, sys
from pathlib import Path
os.close(0), os.close(1)
from torchfgsm.originals.process import Worker
with Worker(Path(sys.executable), Path({str(SCRIPT)!r})) as worker:
    assert worker.call("echo", x=1).values == {{"x": 1}}
"""
    done = subprocess.run([PYTHON, "-c", code], stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_timeout_ends_the_whole_process_group(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with Worker(PYTHON, SCRIPT, timeout=2.0) as worker:
        with pytest.raises(WorkerError, match=r"did not answer 'sleeps' in 2 s") as caught:
            worker.call("sleeps", file=str(pids))
        assert caught.value.kind == "TimedOut"
    for pid in map(int, pids.read_text().split()):
        assert not alive(pid)


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


@pytest.mark.parametrize("call", ["state", "sleeps", "holds_the_interpreter"])
def test_nothing_is_left_when_the_parent_is_killed(tmp_path: Path, call: str) -> None:
    pids, folder = tmp_path / "pids", tmp_path / "temporary"
    folder.mkdir()
    parent = f"""
import sys, threading, time
from pathlib import Path
from torchfgsm.originals.process import Worker
worker = Worker(Path(sys.executable), Path({str(SCRIPT)!r}))
pid = worker.call("state").values["pid"]
threading.Thread(target=lambda: worker.call({call!r}, file={str(pids)!r}), daemon=True).start()
print(pid, flush=True)
time.sleep(300)
"""
    process = subprocess.Popen(
        [PYTHON, "-c", parent],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    try:
        assert process.stdout is not None
        left = {int(process.stdout.readline())}
        if call != "state":
            assert wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
            left |= set(map(int, pids.read_text().split()))
        assert all(map(alive, left))
        assert list(folder.iterdir())
    finally:
        process.kill()
        process.communicate()
    assert wait_until(lambda: not any(map(alive, left)))
    assert wait_until(lambda: not list(folder.iterdir()))
