"""The wheel holds exactly the package, and `converters` is no name of its own there."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What a build reads; tests, benchmarks and the rest are not copied and cannot be needed.
NEEDED = ("pyproject.toml", "setup.cfg", "README.md", "LICENSE", "torchfgsm", "converters")
INFO = "torchfgsm-{version}.dist-info/"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    source = tmp_path_factory.mktemp("source")
    for name in NEEDED:
        if (ROOT / name).is_dir():
            # Links stay links: a checkout has torchfgsm/converters -> ../converters.
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    built = subprocess.run([*command, str(source)], capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
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
