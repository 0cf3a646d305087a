"""Runs the quick tests against the wheel as it is installed, not against the checkout.

The wheel is built and installed into a folder; tests and what they read are copied to another that
has no sources of the package. Another Python, with other versions of the dependencies, is named by
--python.

Called as `python tests/support/installed.py [--python PYTHON] [pytest's options and files ...]`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from packages import ROOT, build_package, copy_sources

COPIED = (
    "tests", "benchmarks", "examples", "docs", "README.md", "CHANGELOG.md", "LICENSE", "setup.cfg",
    "pyproject.toml", "mkdocs.yml", "Makefile",
)  # fmt: skip
# Test file -> why it cannot run without the checkout.
LEFT_OUT = {
    "test_docs.py": "the pages are built from the docstrings of the sources",
    "test_imports.py": "reads the sources' imports",
    "test_packaging.py": "builds the sources",
}
_BOTH_CORES = ("-n", "auto", "--maxprocesses", "4", "--dist", "worksteal")
CHECK = "import pathlib, torchfgsm; print(pathlib.Path(torchfgsm.__file__).parent.parent)"


def main() -> None:
    """Builds, installs, copies and runs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", type=Path, default=Path(sys.executable))
    arguments, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        installed, tests = folder / "installed", folder / "copied"
        _install(build_package(copy_sources(folder / "source"), "wheel"), installed)
        shutil.rmtree(folder / "source")
        _copy(tests)
        # Workers that tests run in TensorFlow's environments look where a checkout has them.
        (tests / "converters").symlink_to(installed / "torchfgsm" / "converters")
        python = [str(arguments.python.absolute())]
        variables = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
        seen = subprocess.check_output([*python, "-c", CHECK], text=True, cwd=tests, env=variables)
        if Path(seen.strip()) != installed:
            sys.exit(f"expected torchfgsm from {installed}, got it from {seen.strip()}")
        pytest = [*python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        options = options or ["-m", "not slow and not live", *_BOTH_CORES]
        done = subprocess.run([*pytest, *options], cwd=tests, env=variables, check=False)
    sys.exit(done.returncode)


def _install(wheel: Path, folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(folder), str(wheel)], check=True)


def _copy(folder: Path) -> None:
    folder.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", *LEFT_OUT)
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, folder / name)


if __name__ == "__main__":
    main()
