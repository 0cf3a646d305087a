"""The documentation's sources and its built site, as the tests read them.

`python tests/support/documentation.py` writes into the pages what their code prints now: read the
diff.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))

_BLOCK = re.compile(
    r"(?P<above>[^\n]*)\n```python\n(?P<code>.*?)\n```\n(?:\n```text\n(?P<text>.*?)```\n)?",
    re.DOTALL,
)
_NOT_RUN = re.compile(r"<!-- not run: needs (?P<needs>.+) -->")
# What a browser fetches by itself. Of <link> only some kinds are fetched.
_FETCHED = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "image": ("href", "xlink:href"),
    "img": ("src", "srcset"),
    "input": ("src",),
    "link": ("href",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "track": ("src",),
    "use": ("href", "xlink:href"),
    "video": ("src", "poster"),
}
_LINKS_ONLY = {"alternate", "canonical", "next", "prev"}
_IN_STYLE = re.compile(r"""(?:url\(|@import)\s*['"]?\s*([^'")\s;]+)""")
_EXTERNAL = re.compile(r"^\s*(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)


@dataclass(frozen=True)
class Block:
    """A Python block of a page.

    Attributes:
        code: The code.
        text: What it prints, as the page shows it below; "" where it shows nothing.
        needs: What it needs that is not everywhere; "" where it is run.
    """

    code: str
    text: str
    needs: str


def blocks(page: str) -> list[Block]:
    """The Python blocks of a page, in order."""
    text = "\n" + (DOCS / page).read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        mark = _NOT_RUN.fullmatch(match["above"])
        found.append(Block(match["code"], match["text"] or "", mark["needs"] if mark else ""))
    assert len(found) == text.count("\n```python\n"), f"{page} has a block of another form"
    return found


def printed(page: str) -> Iterator[tuple[Block, str]]:
    """Runs a page's blocks, whose names are shared down the page: each with what it prints."""
    namespace: dict[str, Any] = {"__name__": "page"}
    for number, block in enumerate(blocks(page)):
        code = compile(block.code, f"{page}, block {number}", "exec")
        if block.needs:
            continue
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(code, namespace)
        yield block, output.getvalue()


def write(page: str) -> None:
    """Writes into a page what its blocks print."""
    path = DOCS / page
    text = path.read_text(encoding="utf-8")
    for block, output in printed(page):
        code = f"\n```python\n{block.code}\n```\n"
        old, new = (code + (f"\n```text\n{t}```\n" if t else "") for t in (block.text, output))
        text = text.replace(old, new, 1)
    path.write_text(text, encoding="utf-8")


def build(project: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Builds the site of a project's folder strictly: a warning fails."""
    return subprocess.run(
        # Not --quiet: MkDocs counts only the warnings that it prints.
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )


def external(text: str) -> list[str]:
    """What a browser would fetch from elsewhere when it shows this page."""
    reader = _Reader()
    reader.feed(text)
    return [address for address in reader.fetched if _EXTERNAL.match(address)]


def external_in_style(text: str) -> list[str]:
    """What a style sheet fetches from elsewhere."""
    return [address for address in _IN_STYLE.findall(text) if _EXTERNAL.match(address)]


class _Reader(HTMLParser):
    """Collects what a page fetches."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_style = tag == "style"
        found = {name: value or "" for name, value in attrs}
        self.fetched += _IN_STYLE.findall(found.get("style", ""))
        if tag == "link" and set(found.get("rel", "").split()) <= _LINKS_ONLY:
            return
        self.fetched += list(_addresses(found, _FETCHED.get(tag, ())))

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.fetched += _IN_STYLE.findall(data)

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False


def _addresses(found: dict[str, str], names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        value = found.get(name, "")
        if name == "srcset":
            yield from (part.split()[0] for part in value.split(",") if part.strip())
        else:
            yield value


if __name__ == "__main__":
    for name in PAGES:
        write(name)
