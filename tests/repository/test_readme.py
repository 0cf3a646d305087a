"""What the README shows is true: its code runs, its tables are the measured ones."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from processes import environment

from benchmarks import digits
from benchmarks.evidence import differences, parity
from benchmarks.evidence.difference_measures import Bench

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"(?P<above>[^\n]*)\n```python\n(?P<code>.*?)\n```", re.DOTALL)


def blocks() -> list[str]:
    """The Python blocks, without those marked as needing what is not everywhere."""
    found = FENCE.finditer(README)
    return [m["code"] for m in found if not m["above"].startswith("<!-- needs: ")]


def test_python_blocks_run_in_order() -> None:
    assert len(blocks()) >= 5
    namespace: dict[str, Any] = {}
    for number, code in enumerate(blocks()):
        exec(compile(code, f"README block {number}", "exec"), namespace)


def test_marked_blocks_are_valid_python() -> None:
    for match in FENCE.finditer(README):
        compile(match["code"], "README", "exec")


def test_table_is_the_measured_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert differences.main(["--check"]) == 0, capsys.readouterr().err


def test_parity_table_is_that_of_the_last_run_and_all_of_it_equal() -> None:
    assert parity.main(["--check"]) == 0
    assert all(row["passed"] == "True" for row in parity.read_rows())


def test_a_stale_table_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = tmp_path / "README.md"
    stale.write_text(README.replace("default labels", "other labels"), encoding="utf-8")
    monkeypatch.setattr(differences, "README", stale)
    assert differences.main(["--check"]) == 1
    assert "make bench" in capsys.readouterr().err


def test_settings_of_the_table_make_the_libraries_equal() -> None:
    data = digits.load()
    rows = differences.measure(Bench(digits.trained_cnn(data), data.x, data.y))
    identity = ("difference", "kind", "measure")
    recorded = differences.read_csv()
    assert [[r[k] for k in identity] for r in rows] == [[r[k] for k in identity] for r in recorded]
    for row in rows:
        exact = row["difference"] != "adversarial examples only"
        if row["kind"] == "settled":
            assert float(row["value"]) <= (1e-5 if exact else 1e-2), row


# Those that train are run by test_training_frameworks.py and test_training_ddp.py.
@pytest.mark.parametrize("script", sorted(p.name for p in (ROOT / "examples").glob("attack_*.py")))
def test_example_runs(script: str) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / script)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(),
    )
    assert result.returncode == 0, result.stderr
    assert "%" in result.stdout
