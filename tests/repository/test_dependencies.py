"""Every dependency is listed with the licence that its own metadata names."""

from __future__ import annotations

import configparser
import re
from importlib.metadata import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
ROWS: dict[str, str] = dict(
    re.findall(r"^\| (\w[\w-]*)[^|]* \| [^|]+ \| ([^|]+) \|$", PAGE, re.MULTILINE)
)
del ROWS["package"]
KEYS = ("License-Expression", "License", "Classifier")
# Words of a licence in our table -> how packages write it.
SPELLINGS = {
    "BSD-3-Clause": r"BSD",
    "Apache-2.0": r"Apache",
    "MIT": r"MIT",
    "MIT, earlier Unlicense": r"MIT|Unlicense",
    "Apache-2.0 or MIT": r"Apache.*MIT|MIT.*Apache",
    "Python Software Foundation": r"Python Software Foundation",
}
USERS = ("convert", "cli", "plots", "report")


def requirements(*extras: str) -> list[Requirement]:
    """Those of setup.cfg, without our own extras."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    texts = [config["options"]["install_requires"]]
    texts += [config["options.extras_require"][extra] for extra in extras]
    found = [Requirement(line) for text in texts for line in text.split("\n") if line.strip()]
    return [requirement for requirement in found if requirement.name != "torchfgsm"]


def required(*extras: str) -> set[str]:
    return {requirement.name for requirement in requirements(*extras)}


def test_the_lowest_versions_that_are_tested_are_those_allowed() -> None:
    lines = (ROOT / "tests" / "lowest.txt").read_text(encoding="utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if not line.startswith("#"))
    for requirement in requirements(*USERS):
        (lowest,) = (s.version for s in requirement.specifier if s.operator == ">=")
        assert Version(tested[requirement.name]) == Version(lowest), requirement.name


def test_the_table_holds_what_users_install() -> None:
    assert required(*USERS) == set(ROWS)


def test_the_text_names_what_developers_install() -> None:
    words = re.sub(r"[\s-]+", " ", PAGE.lower())
    alias = {"nvidia-cuda-nvrtc": "nvrtc", "setuptools": "build"}
    for name in required("docs", "test"):
        assert re.sub(r"-", " ", alias.get(name, name).lower()) in words, name


@pytest.mark.parametrize("name", sorted(set(ROWS)))
def test_the_licence_is_that_of_the_metadata(name: str) -> None:
    found = metadata(name)
    texts = [text for key in KEYS for text in found.get_all(key) or []]
    assert re.search(SPELLINGS[ROWS[name].split(" (")[0]], " ".join(texts))
