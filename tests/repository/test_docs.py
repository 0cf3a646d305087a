"""The documentation builds without a warning, fetches nothing, and its code prints what it says."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from browser import CHROMIUM, visit
from documentation import (
    DOCS,
    PAGES,
    ROOT,
    Block,
    blocks,
    build,
    external,
    external_in_style,
    printed,
)
from public_api import MODULES, names

from torchfgsm.cli import main
from torchfgsm.originals import KERAS_2, WORKERS, EnvironmentUnavailable, python_for

COMMANDS = ("attack", "compare", "convert", "demo", "env", "explain", "translate")
# What a block needs -> what goes before its first line, where TensorFlow is today's.
_PREPARED = (
    f"import sys; sys.path.append({str(WORKERS)!r}); import stand_ins; stand_ins.keras_2()\n"
)
ORIGINALS = {
    "TensorFlow 2.15 and NSL": "stand_ins.estimator()\n",
    "TensorFlow 2 and CleverHans 4": "",
    "TensorFlow 1 and CleverHans 3": "stand_ins.cleverhans_3(); stand_ins.tensorflow_1()\n",
}
WITH_CODE = [page for page in PAGES if blocks(page)]
OF_ORIGINALS = [
    pytest.param(page, block, id=f"{page}: {block.needs}")
    for page in WITH_CODE
    for block in blocks(page)
    if block.needs and block.text
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_a_page_without_its_place_and_a_dead_link_fail(tmp_path: Path) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    for name in ("mkdocs.yml", "README.md", "CHANGELOG.md", "torchfgsm"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "docs" / "stray.md").write_text("# Stray\n", encoding="utf-8")
    with (tmp_path / "docs" / "gpu.md").open("a", encoding="utf-8") as page:
        page.write("\n[no anchor](limits.md#no-such-anchor) and [no page](no-such-page.md)\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    for found in ("stray.md", "no-such-anchor", "no-such-page.md"):
        assert found in done.stderr


def test_no_page_fetches_anything_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) >= len(PAGES)
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert external(text) == [], page
        # The theme's script fetches where a page has one of these.
        assert 'class="mermaid"' not in text
        assert 'data-md-component="source"' not in text
    styles = list(site.rglob("*.css"))
    assert styles
    for style in styles:
        assert external_in_style(style.read_text(encoding="utf-8")) == [], style


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://a.example/b.js"></script>',
        '<link rel="stylesheet" href="//a.example/b.css">',
        '<link rel="preconnect" href="https://a.example">',
        '<img alt="" srcset="here.png 1x, https://a.example/b.png 2x">',
        "<style>@font-face { src: url('https://a.example/b.woff2') }</style>",
        '<p style="background: url(http://a.example/b.png)">',
        '<iframe src="HTTPS://a.example"></iframe>',
    ],
)
def test_what_comes_from_elsewhere_is_found(text: str) -> None:
    assert len(external(text)) == 1
    assert external('<a href="https://a.example">web</a><img src="data:image/png;base64,AA">') == []


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_pages_opened_from_files_can_be_searched_and_ask_nobody(site: Path) -> None:
    found = visit(site / "index.html", query="?q=maximize_within_unit_norm")
    assert "nsl.html#torchfgsm.nsl.maximize_within_unit_norm" in found.dom
    assert found.errors == ()
    assert found.requests == ()


def test_the_reference_has_every_public_name(site: Path) -> None:
    reference = "".join(p.read_text(encoding="utf-8") for p in (site / "api").glob("*.html"))
    entries = re.findall(r'id="(torchfgsm\.[\w.]+)"', reference)
    found = {id(pkgutil.resolve_name(entry)) for entry in entries}
    for path in (*MODULES, "torchfgsm.explanation", "torchfgsm.translation"):
        module = importlib.import_module(path)
        public = {name: getattr(module, name) for name in names(module)}
        bare = [
            name for name, value in public.items() if callable(value) and id(value) not in found
        ]
        assert bare == [], path


@pytest.mark.parametrize("page", WITH_CODE)
def test_code_prints_what_the_page_shows(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for block, output in printed(page):
        assert output == block.text, block.code


def run_original(*arguments: str) -> str:
    """What a program prints beside the originals' packages."""
    try:
        python = python_for(KERAS_2)
    except EnvironmentUnavailable as error:
        pytest.skip(str(error))
    done = subprocess.run([str(python), *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize(("page", "block"), OF_ORIGINALS)
def test_originals_print_what_this_package_prints(page: str, block: Block) -> None:
    own = [other.text for other in blocks(page) if not other.needs]
    assert block.text in own


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.parametrize(("page", "block"), OF_ORIGINALS)
def test_originals_print_what_the_page_shows(page: str, block: Block) -> None:
    before = _PREPARED + ORIGINALS[block.needs]
    assert run_original("-c", before + block.code) == block.text


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.parametrize("worker", ["nsl", "cleverhans3"])
def test_originals_print_the_lines_of_the_page_of_differences(worker: str) -> None:
    script = ROOT / "tests" / "support" / f"differences_{worker}_worker.py"
    sections = json.loads(run_original(str(script)))
    page = (DOCS / "differences.md").read_text(encoding="utf-8")
    texts = {part.split("\n")[0]: part for part in page.split("\n### ")}
    assert len(sections) >= 8
    for section, lines in sections.items():
        printed = re.findall(r"```text\n(.*?)```", texts[section], re.DOTALL)
        assert set(lines) <= set("".join(printed).splitlines()), section


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command_is_on_its_page(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (DOCS / "command-line.md").read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        main([command, "-h"])
    options = set(re.findall(r"(--[a-z][a-z-]*)", capsys.readouterr().out)) - {"--help"}
    assert options
    assert [option for option in sorted(options) if f"`{option}" not in page] == []


def test_every_command_has_a_section(capsys: pytest.CaptureFixture[str]) -> None:
    page = (DOCS / "command-line.md").read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        main(["-h"])
    commands = re.findall(r"^    (\w+)(?: |$)", capsys.readouterr().out, re.MULTILINE)
    assert sorted(commands) == sorted(COMMANDS)
    assert [name for name in commands if f"## {name}\n" not in page] == []
