"""The wheel holds exactly the package, and `converters` is no name of its own there."""

from __future__ import annotations

import hashlib
import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packages import ROOT, build_package, copy_sources

INFO = "torchfgsm-{version}.dist-info/"


@pytest.fixture(scope="module")
def wheel_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_package(copy_sources(tmp_path_factory.mktemp("wheel") / "source"), "wheel")


@pytest.fixture(scope="module")
def wheel(wheel_file: Path) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(wheel_file) as archive:
        yield archive


def _version() -> str:
    namespace: dict[str, str] = {}
    exec((ROOT / "torchfgsm" / "version.py").read_text(), namespace)
    return namespace["__version__"]


def _expected() -> set[str]:
    """Every module and data file of the source folders, the converters under their import name."""
    found = set()
    for folder, target in (("torchfgsm", "torchfgsm"), ("converters", "torchfgsm/converters")):
        for path in (ROOT / folder).rglob("*"):
            inside = path.relative_to(ROOT / folder)
            # The link's own content is counted under converters/.
            linked = folder == "torchfgsm" and inside.parts[0] == "converters"
            if path.is_file() and not linked and "__pycache__" not in inside.parts:
                found.add(f"{target}/{inside.as_posix()}")
    return found


def test_wheel_holds_exactly_the_package(wheel: zipfile.ZipFile) -> None:
    names = [name for name in wheel.namelist() if not name.endswith("/")]
    assert len(names) == len(set(names))
    info = INFO.format(version=_version())
    metadata = ("METADATA", "WHEEL", "RECORD", "top_level.txt", "entry_points.txt")
    extra = {f"{info}{name}" for name in (*metadata, "licenses/LICENSE")}
    assert set(names) == _expected() | extra


def test_what_the_package_reads_is_shipped(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert "torchfgsm/py.typed" in names
    assert "torchfgsm/converters/__init__.py" in names
    for name in ("tensorflow-2.15", "cleverhans-3", "tensorflow-2.21"):
        assert f"torchfgsm/originals/requirements/{name}.txt" in names
    assert "torchfgsm/originals/workers/serve.py" in names


def test_converters_is_not_a_top_level_package(wheel: zipfile.ZipFile) -> None:
    info = INFO.format(version=_version())
    assert wheel.read(f"{info}top_level.txt").decode().split() == ["torchfgsm"]
    assert {name.split("/")[0] for name in wheel.namelist()} == {"torchfgsm", info.rstrip("/")}


def test_bare_name_is_refused_in_a_checkout() -> None:
    with pytest.raises(ImportError, match=r"imported as torchfgsm\.converters"):
        __import__("converters")


def test_the_same_wheel_comes_of_the_source_distribution(wheel_file: Path, tmp_path: Path) -> None:
    """Two builds in other folders, from files of another time: the same bytes."""
    source = copy_sources(tmp_path / "elsewhere")
    for path in source.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (1_000_000_000, 1_000_000_000))
    packed = build_package(source, "sdist")
    with tarfile.open(packed) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        archive.extractall(tmp_path / "unpacked", filter="data")
    folders = {name.split("/")[0] for name in names if "/" in name}
    assert folders == {"torchfgsm", "converters", "torchfgsm.egg-info"}
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    again = build_package(unpacked, "wheel")
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (wheel_file, again)]
    assert digests[0] == digests[1]
