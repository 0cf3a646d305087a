"""The timed attacks under each norm, and the page about them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import rows
from benchmarks.speed import attack_providers, attack_speed_page, whole_attack
from benchmarks.speed.attack_providers import Attack, Target
from benchmarks.speed.contest import Pace
from benchmarks.speed.whole_attack import AGAIN, REFERENCE, displaced

CPU = torch.device("cpu")
PACE = Pace(0.01, 0.01)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_another_attack_is_different(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def descends(target: Target) -> Attack:
        right = whole_attack.by_hand(target)
        return lambda x, y: 2 * x - right(x, y)

    makers = (
        *(made for made in attack_providers.MAKERS if made.name == "torchfgsm"),
        attack_providers.Maker("descends", descends),
    )
    monkeypatch.setattr(attack_providers, "MAKERS", makers)
    found = whole_attack.measure_case(CPU, "MLP", 4, "fgsm", "predicted", PACE, norm=norm)
    assert [(row.provider, row.status) for row in found] == [
        (REFERENCE, "ok"),
        (AGAIN, "ok"),
        ("torchfgsm", "ok"),
        ("descends", "different"),
    ]
    assert {row.norm for row in found} == {norm}


def test_a_perturbation_may_be_off_by_float_noise_alone() -> None:
    x = torch.zeros(2, 4)
    expected = torch.tensor([[3.0, 4.0, 0.0, 0.0]] * 2)

    def of(second: list[float]) -> str:
        return displaced(torch.stack([expected[0], torch.tensor(second)]), expected, x)

    assert of([3.0, 4.04, 0.0, 0.0]) == ""
    assert "50.00%" in of([3.0, 4.06, 0.0, 0.0])
    assert "50.00%" in of([3.0, float("nan"), 0.0, 0.0])
    assert "float64" in displaced(expected.double(), expected, x)


def test_the_page_is_that_of_the_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert attack_speed_page.main(["--check"]) == 0, capsys.readouterr().err
    stale = tmp_path / "page.md"
    stale.write_text(attack_speed_page.PAGE.read_text(encoding="utf-8") + "more\n")
    assert attack_speed_page.main(["--check", "--page", str(stale)]) == 1
    assert "attack_speed_page" in capsys.readouterr().err


def test_the_page_asks_for_what_is_missing() -> None:
    found = rows.read(attack_speed_page.CSV)
    without = [row for row in found if row["provider"] != AGAIN]
    with pytest.raises(ValueError, match="expected one row of by hand, again"):
        attack_speed_page.page(without)
