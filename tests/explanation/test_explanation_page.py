"""The page of an explanation in headless Chromium: it renders, and asks nobody for anything."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from browser import CHROMIUM, screenshot, visit
from explanation_cases import HOSTILE, explanation
from matplotlib import image

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, a table of features, and names that try to leave the page."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    shapes = {"x": (1, 8, 8), "y": (8, 8, 3), HOSTILE: (5,)}
    explanation(shapes, facts={HOSTILE: HOSTILE}).save(path)
    return path


@pytest.mark.parametrize(
    ("body", "errors", "requests"),
    [
        ("<p>still</p>", 0, 0),
        ('<img src="http://example.com/a.png">', 0, 1),
        ('<style>@import "http://example.com/a.css";</style>', 0, 1),
        ("<script>not_there()</script>", 1, 0),
    ],
)
def test_the_check_sees_what_it_looks_for(
    tmp_path: Path, body: str, errors: int, requests: int
) -> None:
    path = tmp_path / "page.html"
    path.write_text(f"<!doctype html><title>t</title>{body}")
    found = visit(path)
    assert len(found.requests) == requests, found
    assert len(found.errors) == errors, found


def test_the_page_renders_without_errors_or_requests(page: Path, tmp_path: Path) -> None:
    found = visit(page)
    assert found.errors == ()
    assert found.requests == ()
    free = tmp_path / "free.html"
    free.write_text(_without_policy(page))
    assert visit(free).requests == ()
    assert "<h1>NSL 1.4.0 against CleverHans 3.1.0</h1>" in found.dom
    assert "The largest cause is step" in found.dom
    assert found.dom.count("data:image/png") == 2 * 4 * 4  # features, examples, columns
    assert found.dom.count("<svg") == 1
    assert "onerror=alert(1)&gt;" in found.dom  # as text


def _without_policy(page: Path) -> str:
    """The page without the policy that forbids it scripts and requests."""
    text, count = re.subn("<meta http-equiv.*?>", "", page.read_text())
    assert count == 1
    return text


def test_light_and_dark(page: Path, tmp_path: Path) -> None:
    means = []
    for dark in (False, True):
        path = tmp_path / f"{dark}.png"
        screenshot(page, path, dark=dark)
        pixels = image.imread(path)[..., :3]
        assert pixels.std() > 0.1  # not blank
        means.append(pixels.mean())
    assert means[0] > 0.8
    assert means[1] < 0.3


def test_the_width_of_a_phone_is_enough(page: Path, tmp_path: Path) -> None:
    """Wide tables scroll within the page."""
    width = "document.documentElement.scrollWidth <= window.innerWidth"
    path = tmp_path / "narrow.html"
    path.write_text(
        _without_policy(page)
        + f"<script>document.title = String({width}) + window.innerWidth</script>"
    )
    assert "<title>true" in visit(path, width=500).dom
    path.write_text(path.read_text().replace("<h1>", '<h1 style="width: 3000px">'))
    assert "<title>false" in visit(path, width=500).dom
