"""The command of a page that is written from rows: writes it, or checks that it is not stale."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import rows

Rows = list[dict[str, str]]


def run(
    name: str,
    about: str | None,
    page: Callable[[Rows], str],
    defaults: tuple[Path, Path],
    arguments: list[str] | None,
) -> int:
    """Writes the page, or checks it; returns the exit code.

    Args:
        name: The module's name in `benchmarks`.
        about: Its docstring.
        page: Makes the text of the rows.
        defaults: The file of rows and that of the page.
        arguments: The command line; None: the process' own.
    """
    parser = argparse.ArgumentParser(prog=f"benchmarks.{name}", description=about)
    parser.add_argument("--check", action="store_true", help="fail when the page is stale")
    parser.add_argument("--csv", type=Path, default=defaults[0], metavar="CSV")
    parser.add_argument("--page", type=Path, default=defaults[1], metavar="MD")
    options = parser.parse_args(arguments)
    text = page(rows.read(options.csv))
    if not options.check:
        options.page.write_text(text, encoding="utf-8")
        return 0
    if options.page.read_text(encoding="utf-8") == text:
        return 0
    print(
        f"the page is not that of the rows: run python -m benchmarks.{name}",
        file=sys.stderr,
    )
    return 1
