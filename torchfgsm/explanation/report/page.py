"""A report as one HTML page that needs nothing else, and as a part of a notebook."""

from __future__ import annotations

from typing import Any

from torchfgsm.explanation.report.content import report
from torchfgsm.explanation.result import Explanation
from torchfgsm.system import extras


def to_html(explanation: Explanation) -> str:
    """A whole page: its style and pictures are inside, and it has no scripts.

    Args:
        explanation: What `torchfgsm.explain` found.

    Returns:
        The page.

    Raises:
        ImportError: Jinja2 or matplotlib is missing.
    """
    return _rendered("page.html.j2", explanation)


def to_fragment(explanation: Explanation) -> str:
    """The same as one element with its style, for a page of others.

    Raises:
        ImportError: Jinja2 or matplotlib is missing.
    """
    return _rendered("report.html.j2", explanation)


def check_packages() -> None:
    """Refuses at once what would fail at the end.

    Raises:
        ImportError: Jinja2 or matplotlib is missing.
    """
    extras.require("a report in HTML", "jinja2", "matplotlib")


def _rendered(template: str, explanation: Explanation) -> str:
    check_packages()
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    from torchfgsm.explanation.report import pictures

    environment = Environment(
        loader=PackageLoader("torchfgsm.explanation.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = _prose
    values: dict[str, Any] = {
        "report": report(explanation),
        "grids": pictures.grids(explanation),
        # Drawn by matplotlib from numbers and fixed words alone.
        "curve": Markup(pictures.curve(explanation)),
    }
    return environment.get_template(template).render(values)


def _prose(text: str) -> Any:
    """The text as HTML, with what is between backticks as code."""
    from markupsafe import Markup, escape

    pieces = text.split("`")
    if len(pieces) % 2 == 0:
        return escape(text)
    marked = [
        Markup("<code>{}</code>").format(piece) if i % 2 else escape(piece)
        for i, piece in enumerate(pieces)
    ]
    return Markup("").join(marked)
