"""Builds the package from a copy of its sources."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What a build reads; tests, benchmarks and the rest are not copied and cannot be needed.
NEEDED = (
    "pyproject.toml", "setup.cfg", "MANIFEST.in", "README.md", "CHANGELOG.md", "LICENSE",
    "torchfgsm", "converters",
)  # fmt: skip


def copy_sources(source: Path) -> Path:
    """The sources alone, in another folder."""
    source.mkdir()
    for name in NEEDED:
        if (ROOT / name).is_dir():
            # Links stay links: a checkout has torchfgsm/converters -> ../converters.
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, source / name)
    return source


def build_package(source: Path, kind: str) -> Path:
    """What a build of the folder gives."""
    out = source.parent / f"{source.name}-{kind}"
    command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", str(out)]
    variables = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    built = subprocess.run(
        [*command, str(source)], capture_output=True, text=True, timeout=120, env=variables
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = out.iterdir()
    return path
