"""Reports in files, whole or not at all, and in notebooks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from explanation_cases import explanation

from torchfgsm.explanation.report import pictures


def test_a_notebook_shows_the_same_without_a_page_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = explanation()
    fragment = given._repr_html_()
    assert fragment is not None
    assert fragment.strip().startswith("<article")
    assert fragment.strip() in given.to_html()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert given._repr_html_() is None
    assert given._repr_markdown_() == given.to_markdown()
    with pytest.raises(ImportError, match=r"needs jinja2: pip install 'torchfgsm\[report\]'"):
        given.to_html()


@pytest.mark.parametrize("suffix", [".html", ".md", ".json", ".txt"])
def test_saving(tmp_path: Path, suffix: str) -> None:
    given, path = explanation(), tmp_path / f"out{suffix}"
    given.save(path)
    content = path.read_text()
    assert "The largest cause is step" in content
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with pytest.raises(ValueError, match="is there already; --force"):
        given.save(path)
    path.write_text("older")
    given.save(str(path), overwrite=True)
    assert path.read_text() == content


def test_refused_targets(tmp_path: Path) -> None:
    folder = tmp_path / "folder.html"
    folder.mkdir()
    for path, says in (
        (tmp_path / "out.pdf", r"suffix \.html or \.md or \.json or \.txt"),
        (tmp_path / "none" / "out.html", "expected an existing folder"),
        (folder, "found a folder"),
    ):
        with pytest.raises(ValueError, match=says):
            explanation().save(path)
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("place", ["curve", "replace"])
def test_a_page_appears_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def broken(*_: object) -> None:
        raise OSError("no more")

    owner: Any = pictures if place == "curve" else Path
    monkeypatch.setattr(owner, place, broken)
    old = tmp_path / "old.html"
    old.write_text("older")
    for path in (tmp_path / "new.html", old):
        with pytest.raises(OSError, match="no more"):
            explanation().save(path, overwrite=True)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"old.html": "older"}
