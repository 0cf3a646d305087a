"""Compiled kernels on disk: found again, private, whole or not there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from torchfgsm.kernel import cache_folder, cubins, nvrtc
from torchfgsm.kernel.nvrtc import Compiled

NAME = "torchfgsm::perturb_linf<float, 4>"
CODE = b"\x7fELF\0\n\0code"


@pytest.fixture(autouse=True)
def compilations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A cache folder of its own and a compiler that only counts."""
    monkeypatch.setenv("TORCHFGSM_CACHE", str(tmp_path / "cache"))
    done: list[str] = []

    def compile_kernels(names: list[str], architecture: int) -> Compiled:
        done.extend(names)
        return Compiled(CODE + str(architecture).encode(), {n: f"symbol of {n}" for n in names}, "")

    monkeypatch.setattr(nvrtc, "compile_kernels", compile_kernels)
    monkeypatch.setattr(nvrtc, "version", lambda: (13, 0))
    cubins._usable.cache_clear()
    yield done
    cubins._usable.cache_clear()


def entries() -> list[Path]:
    return [path for path in cache_folder().iterdir() if path.is_file()]


def test_a_kernel_is_compiled_once(compilations: list[str]) -> None:
    first = cubins.get(NAME, 90)
    assert first == (CODE + b"90", f"symbol of {NAME}")
    assert cubins.get(NAME, 90) == first
    assert compilations == [NAME]
    assert len(entries()) == 1  # and no temporary file


def test_another_architecture_compiler_or_source_is_another_kernel(
    compilations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cubins.get(NAME, 90)
    assert cubins.get(NAME, 100)[0] == CODE + b"100"
    monkeypatch.setattr(nvrtc, "version", lambda: (13, 1))
    cubins.get(NAME, 90)
    monkeypatch.setattr(nvrtc, "source", lambda: ("other", "header"))
    cubins.get(NAME, 90)
    assert len(compilations) == len(entries()) == 4


def test_folder_and_entries_are_private() -> None:
    before = os.umask(0)
    try:
        cubins.get(NAME, 90)
    finally:
        os.umask(before)
    assert stat.S_IMODE(cache_folder().stat().st_mode) == 0o700
    assert stat.S_IMODE(entries()[0].stat().st_mode) == 0o600


@pytest.mark.parametrize("harm", ["cut short", "changed", "emptied", "of others", "a link"])
def test_a_damaged_or_foreign_entry_is_not_loaded(harm: str, compilations: list[str]) -> None:
    whole = cubins.get(NAME, 90)
    (path,) = entries()
    content = path.read_bytes()
    if harm == "cut short":
        path.write_bytes(content[:-1])
    elif harm == "changed":
        path.write_bytes(content[:-1] + b"!")
    elif harm == "emptied":
        path.write_bytes(b"")
    elif harm == "of others":
        path.chmod(0o666)
    else:
        path.rename(path.with_suffix(".target"))
        path.symlink_to(path.with_suffix(".target"))
    assert cubins.get(NAME, 90) == whole
    assert len(compilations) == 2


@pytest.mark.parametrize("kind", ["writable by others", "a file", "a link"])
def test_a_foreign_folder_is_refused(kind: str, tmp_path: Path, compilations: list[str]) -> None:
    folder = cache_folder()
    folder.parent.mkdir()
    if kind == "writable by others":
        folder.mkdir()
        folder.chmod(0o777)
    elif kind == "a file":
        folder.write_text("")
    else:
        (tmp_path / "elsewhere").mkdir()
        folder.symlink_to(tmp_path / "elsewhere")
    with pytest.warns(UserWarning, match=r"compiled kernels are not kept in .*TORCHFGSM_CACHE"):
        assert cubins.get(NAME, 90)[0] == CODE + b"90"
    cubins.get(NAME, 90)  # no second warning
    assert compilations == [NAME, NAME]
    if folder.is_dir():
        assert list(folder.iterdir()) == []


def test_another_users_folder_is_refused(
    monkeypatch: pytest.MonkeyPatch, compilations: list[str]
) -> None:
    cubins.get(NAME, 90)
    cubins._usable.cache_clear()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.warns(UserWarning, match="belongs to another user"):
        cubins.get(NAME, 90)
    assert len(compilations) == 2


def test_a_full_disk_costs_a_warning(
    monkeypatch: pytest.MonkeyPatch, compilations: list[str]
) -> None:
    def full(*names: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(UserWarning, match="No space left"):
        assert cubins.get(NAME, 90)[0] == CODE + b"90"
    assert entries() == []


def test_the_cache_is_below_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHFGSM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/torchfgsm/kernels")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache/torchfgsm/kernels"
