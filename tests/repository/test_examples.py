"""Examples of explaining and translating run, the notebook among them, and say what they should.

`PYTHONPATH=tests/support python tests/repository/test_examples.py` runs the notebook and stores it
with what it shows.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from processes import environment

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
NOTEBOOK = EXAMPLES / "nsl_against_cleverhans.ipynb"


def run(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / script), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_explaining_writes_a_page(tmp_path: Path) -> None:
    page = tmp_path / "out.html"
    printed = run("explain.py", str(page))
    assert "The largest cause is step" in " ".join(printed.split())
    assert page.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html>")


def test_translating_makes_the_libraries_equal() -> None:
    printed = run("translate.py")
    assert "FastGradientMethod" in printed
    assert printed.endswith("equal: True\n")


def stored() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]


def cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell: Any) -> set[str]:
    """What a cell shows: "stream", or the types of its data."""
    found = set()
    for output in cell.outputs:
        found |= set(output.get("data", {"stream": ""}))
    return found


def executed() -> Any:
    """The notebook as it runs now."""
    notebook = stored()
    folder = {"metadata": {"path": EXAMPLES}}
    NotebookClient(notebook, timeout=120, record_timing=False, resources=folder).execute()
    return notebook


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the notebook's own machinery
def test_the_notebook_runs_and_ends_with_equal_perturbations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # a second thread gains nothing here
    found = cells(executed())
    assert [kinds(cell) for cell in found] == [kinds(cell) for cell in cells(stored())]
    assert found[-1].outputs[0].text.endswith("equal in every bit: True\n")


def test_the_notebook_is_stored_with_what_it_shows() -> None:
    notebook = stored()
    nbformat.validate(notebook)
    shown = [kinds(cell) for cell in cells(notebook)]
    assert any("image/png" in kind for kind in shown)
    assert any("text/html" in kind for kind in shown)
    assert not any(output.output_type == "error" for c in cells(notebook) for output in c.outputs)
    assert NOTEBOOK.stat().st_size < 300_000


if __name__ == "__main__":
    nbformat.write(executed(), NOTEBOOK)  # type: ignore[no-untyped-call]
