"""The public API is what was recorded, and every name of it is documented."""

from __future__ import annotations

import importlib
import inspect

import pytest
from public_api import MODULES, RECORD, lines, names


def test_names_signatures_and_defaults_are_those_that_were_recorded() -> None:
    recorded = RECORD.read_text(encoding="utf-8").splitlines()
    found = list(lines())
    gone = [line for line in recorded if line not in found]
    new = [line for line in found if line not in recorded]
    assert (gone, new) == ([], []), (
        "the public API changed: say so in CHANGELOG.md and record it with "
        "`python tests/support/public_api.py`"
    )


@pytest.mark.parametrize("path", MODULES)
def test_every_public_name_is_documented(path: str) -> None:
    module = importlib.import_module(path)
    assert inspect.getdoc(module)
    values = [(name, getattr(module, name)) for name in names(module)]
    bare = [name for name, value in values if callable(value) and not inspect.getdoc(value)]
    assert bare == []
