"""Pythons on PATH: those that run are found, whatever the others do."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from torchfgsm.originals import interpreters


def script_in(folder: Path, text: str) -> str:
    folder.mkdir()
    path = folder / "python9.9"
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_a_shim_that_fails_and_a_wrong_version_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_in(tmp_path / "shim", "#!/bin/sh\necho 9.9: not installed >&2\nexit 127\n")
    script_in(tmp_path / "wrong", "#!/bin/sh\necho 9.8\n")
    right = script_in(tmp_path / "right", "#!/bin/sh\necho 9.9\n")
    folders = ["shim", "wrong", "right"]
    monkeypatch.setenv("PATH", os.pathsep.join(str(tmp_path / name) for name in folders))
    assert interpreters.find(("9.10", "9.9")) == ("9.9", right)
    assert interpreters.find(("9.8",)) is None


def test_a_shim_that_prints_no_text_asks_or_hangs_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_in(tmp_path / "bytes", "#!/bin/sh\nprintf '9.9\\377\\n'\n")
    script_in(tmp_path / "asks", "#!/bin/sh\nread answer && echo 9.9\n")
    # What it started holds its output open after its own end.
    script_in(tmp_path / "hangs", "#!/bin/sh\necho 9.9\n(sleep 300)\n")
    folders = ["bytes", "asks", "hangs"]
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / f) for f in folders] + ["/bin"]))
    monkeypatch.setattr(interpreters, "_PATIENCE", 1.0)
    asking, keyboard = os.pipe()  # nobody answers
    here = os.dup(0)
    os.dup2(asking, 0)
    try:
        start = time.monotonic()
        assert interpreters.find(("9.9",)) is None
        assert time.monotonic() - start < 10
    finally:
        os.dup2(here, 0)
        for fd in (asking, keyboard, here):
            os.close(fd)


def test_uv_is_asked_for_a_python_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert interpreters.find(("9.9", "9.8")) is None
    (tmp_path / "uv").write_text("#!/bin/sh\n")
    (tmp_path / "uv").chmod(0o755)
    assert interpreters.find(("9.9", "9.8")) == ("9.9", "9.9")
