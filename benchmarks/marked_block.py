"""The part of a page that a benchmark writes, between two marks in comments."""

from __future__ import annotations


def with_block(page: str, name: str, block: str) -> str:
    """The page with the text between its marks replaced.

    Args:
        page: The page's text.
        name: What the marks are called: `<!-- name:begin -->` and `<!-- name:end -->`.
        block: What stands between them.

    Raises:
        ValueError: The marks are not there.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"expected the marks {begin} and {end} in the page")
    return f"{before}{begin}\n{block}\n{end}{after}"
