"""Puts the README's measured tables where a page says `<!-- readme: NAME -->`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

README = Path(__file__).parent.parent / "README.md"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with its tables; MkDocs calls this for each page.

    Raises:
        ValueError: The README has no such table.
    """
    return re.sub(r"<!-- readme: (\w+) -->", lambda match: _table(match[1]), markdown)


def _table(name: str) -> str:
    found = re.search(
        rf"<!-- {name}:begin -->\n(.*?)\n<!-- {name}:end -->",
        README.read_text(encoding="utf-8"),
        re.DOTALL,
    )
    if found is None:
        raise ValueError(f"the README has no table between <!-- {name}:begin --> and :end")
    return found[1]
