"""The libraries that are compared with, and what reads models: wheels, and how to import them.

`python -m benchmarks.speed.peers DIR [--python 3.12]` downloads pinned wheels, for a machine
without a network too; `--wheels DIR` of the other scripts puts them on Python's path, behind what
is installed. A library that cannot be imported is a row that says so.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

# Name of the distribution by the name in the rows.
DISTRIBUTIONS = {
    "cleverhans": "cleverhans",
    "torchattacks": "torchattacks",
    "foolbox": "foolbox",
    "art": "adversarial-robustness-toolbox",
}

# The libraries, and of what they ask for only what importing them needs: `pip download` without
# its dependency resolution, which would end at old versions or at TensorFlow.
WHEELS = (
    "onnx2torch==1.5.15",
    "cleverhans==4.0.0",
    "torchattacks==3.5.1",
    "foolbox==3.3.4",
    "adversarial-robustness-toolbox==1.20.1",
    "eagerpy==0.30.0",
    "six==1.17.0",
    "tqdm==4.67.1",
    "GitPython==3.1.45",
    "gitdb==4.0.12",
    "smmap==5.0.2",
    "requests==2.32.5",
    "urllib3==2.5.0",
    "idna==3.10",
    "certifi==2025.10.5",
    "charset-normalizer==3.4.3",
    "scipy==1.16.2",
    "scikit-learn==1.7.2",
    "threadpoolctl==3.6.0",
    "joblib==1.5.2",
)
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def download(folder: Path, python: str) -> int:
    """Fetches the wheels into a folder; pip's exit code."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--python-version", python, "--implementation", "cp", "--dest", str(folder)]
    for platform in _PLATFORMS:
        command += ["--platform", platform]
    return subprocess.run([*command, *WHEELS], check=False).returncode


@contextmanager
def on_path(wheels: Path | None) -> Iterator[None]:
    """Python finds the packages of a folder of wheels, after those that are installed.

    Args:
        wheels: The folder, or None for what is installed.

    Raises:
        FileNotFoundError: The folder holds no wheel.
    """
    if wheels is None:
        yield
        return
    files = sorted(wheels.glob("*.whl"))
    if not files:
        raise FileNotFoundError(
            f"expected wheels in {wheels}, found none: `python -m benchmarks.speed.peers {wheels}`"
        )
    with tempfile.TemporaryDirectory() as name:
        for file in files:
            with zipfile.ZipFile(file) as archive:
                archive.extractall(name)
        sys.path.append(name)
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.path.remove(name)


def module(name: str) -> Any:
    """A module of a peer.

    Raises:
        ImportError: It is not there, or something that it needs is not.
    """
    return importlib.import_module(name)


def version(peer: str) -> str:
    """Version of an installed peer by its name in the rows.

    Raises:
        ImportError: It is not installed.
    """
    return metadata.version(DISTRIBUTIONS[peer])


def version_of(peer: str) -> Callable[[], str]:
    """What asks for the version of a peer when it has been imported."""
    return lambda: version(peer)


def main(arguments: list[str] | None = None) -> int:
    """Downloads the wheels; 0 when all came."""
    parser = argparse.ArgumentParser(prog="benchmarks.speed.peers", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="where the wheels go")
    parser.add_argument("--python", default="3.12", help="the version that will run them")
    options = parser.parse_args(arguments)
    return download(options.folder, options.python)


if __name__ == "__main__":
    sys.exit(main())
