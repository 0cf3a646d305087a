"""Every dependency is listed with the licence that its own metadata names."""

from __future__ import annotations

import configparser
import re
from importlib.metadata import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
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
    "Python Software Foundation": r"Python Software Foundation",
}


def required(*extras: str) -> set[str]:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    texts = [config["options"]["install_requires"]]
    texts += [config["options.extras_require"][extra] for extra in extras]
    lines = [line for text in texts for line in text.split("\n") if line.strip()]
    names = {re.split(r"[\[<>=;, ]", line.strip())[0] for line in lines}
    return names - {"torchfgsm"}


def test_the_table_holds_what_users_install() -> None:
    users = required("convert", "cli", "plots", "report")
    assert users == set(ROWS)


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
