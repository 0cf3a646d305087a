"""The rooms of the package; `python tests/support/rooms.py` writes the table of CONTRIBUTING."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Room -> floor. A module imports from lower floors and from its own room, never from a room beside.
FLOORS = {
    "version": 0,
    "converters.tensorflow_side": 0,
    "system": 1,
    "originals": 1,
    "models": 1,
    "losses": 2,
    "judging": 2,
    "core": 3,
    "kernel": 4,
    "graphs": 4,
    "training": 4,
    "converters": 4,
    "nsl": 5,
    "cleverhans": 5,
    "libraries": 5,
    "evaluation": 5,
    "translation": 6,
    "parity": 6,
    "explanation": 7,
    "cli": 8,
}


def sources() -> dict[str, Path]:
    """Dotted name -> file of every module of the package, converters' under their own name."""
    found = {}
    for path in sorted((ROOT / "torchfgsm").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[1] != "converters":  # the symlink; its files come below, once
            found[".".join(parts).removesuffix(".__init__")] = path
    for path in sorted((ROOT / "converters").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(("torchfgsm", *parts)).removesuffix(".__init__")] = path
    return found


def room_of(name: str) -> str:
    """The room of a module, by its longest name; "" of the package itself."""
    inner = name.partition(".")[2]
    rooms = [room for room in FLOORS if inner == room or inner.startswith(f"{room}.")]
    return max(rooms, key=len, default="")


def job_of(room: str) -> str:
    """The first line of a room's docstring."""
    place = sources()[f"torchfgsm.{room}"]
    return (ast.get_docstring(ast.parse(place.read_text(encoding="utf-8"))) or "").splitlines()[0]


def table() -> str:
    """The rooms as a Markdown table, the highest floor first."""
    lines = ["| floor | room | job |", "|---|---|---|"]
    for room, floor in sorted(FLOORS.items(), key=lambda item: -item[1]):
        if room != "version":
            lines.append(f"| {floor} | `{room}` | {job_of(room)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    page = ROOT / "CONTRIBUTING.md"
    before, _, rest = page.read_text(encoding="utf-8").partition("<!-- rooms:begin -->")
    after = rest.partition("<!-- rooms:end -->")[2]
    page.write_text(
        f"{before}<!-- rooms:begin -->\n\n{table()}\n\n<!-- rooms:end -->{after}", encoding="utf-8"
    )
