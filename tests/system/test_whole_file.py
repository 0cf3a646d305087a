"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from torchfgsm.system import whole_file


@pytest.fixture(params=["unnamed", "named"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With files that have no name meanwhile, and on a file system without them."""
    if request.param == "named":
        real = os.open

        def without(path: Any, flags: int, *mode: int) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            return real(path, flags, *mode)

        monkeypatch.setattr(os, "open", without)
    return str(request.param)


def test_new_and_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    for content in (b"first", b"", b"the second, longer"):
        whole_file.write(path, content)
        assert path.read_bytes() == content
        assert path.stat().st_mode & 0o777 == 0o644
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "fchmod", "replace"])
@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "no room"), KeyboardInterrupt()])
def test_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, call: str, fault: BaseException
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def failing(*_: Any) -> None:
        raise fault

    with monkeypatch.context() as patch:
        holder: Any = Path if call == "replace" else os
        patch.setattr(holder, call, failing)
        with pytest.raises(type(fault)):
            whole_file.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_killed(tmp_path: Path) -> None:
    try:
        os.close(os.open(tmp_path, os.O_TMPFILE | os.O_WRONLY))
    except OSError:
        pytest.skip("this file system has no files without a name")
    path = tmp_path / "file"
    path.write_bytes(b"old")
    code = f"""
import os, pathlib, runpy
write = runpy.run_path({whole_file.__file__!r})["write"]
os.fsync = lambda handle: os.kill(os.getpid(), {int(signal.SIGKILL)})
write(pathlib.Path({str(path)!r}), b"new")
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        whole_file.write(tmp_path / "none" / "file", b"")
