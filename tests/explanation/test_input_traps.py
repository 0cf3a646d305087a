"""Traps in the input: smallest batches that have them, counted by hand."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import nn
from toy_models import TwoInputs, batch, mlp
from trap_cases import IDENTITY, L2, LINF, labels, rows, side, traps

from torchfgsm import Recipe
from torchfgsm.explanation.traps.finding import find_traps
from torchfgsm.libraries.configuration import Configuration


def test_non_finite_input_and_output() -> None:
    x = rows([math.nan, math.inf, 0], [0, 0, 1], [1, -math.inf, 0], [0, 1, 0])
    found = traps(IDENTITY, x, labels(0, 2, 0, 1), LINF)
    assert (found["non-finite input"].count, found["non-finite input"].of) == (2, 4)
    assert "3 in all" in found["non-finite input"].message
    assert found["non-finite output"].count == 2
    assert found["non-finite output"].severity == "error"


def test_input_outside_of_the_clip_range() -> None:
    x, y = rows([-0.5, 0, 1], [0, 1, 0.5], [3, 2, 0]), labels(2, 1, 0)
    recipe = dataclasses.replace(LINF, clip_min=0.0, clip_max=1.0)
    trap = traps(IDENTITY, x, y, recipe)["input outside of the clip range"]
    assert (trap.count, trap.of) == (2, 3)
    assert "outside of [0, 1] (3 in all, by up to 2)" in trap.message
    one_sided = dataclasses.replace(LINF, clip_min=0.0)
    assert traps(IDENTITY, x, y, one_sided)[trap.name].count == 1
    assert trap.name not in traps(IDENTITY, x, y, LINF)
    assert trap.name not in traps(IDENTITY, x.clamp(0, 1), y, recipe)


@pytest.mark.parametrize(
    ("highest", "length", "name"),
    [
        (255.0, 0.3, "length in other units than the data"),
        (255.0, 8.0, None),
        (1.0, 0.3, None),
        (1.0, 8.0, "length beyond the data's range"),
        (1.0, 1.0, None),
        (0.25, 0.3, "length beyond the data's range"),
        (0.0, 0.3, None),
    ],
)
@pytest.mark.parametrize("iterated", [False, True])
def test_units(highest: float, length: float, name: str | None, iterated: bool) -> None:
    x, y = rows([0, 0, highest], [highest / 2, 0, 0]), labels(2, 0)
    ball: dict[str, Any] = {"step": length / 8, "epsilon": length} if iterated else {"step": length}
    found = traps(nn.LayerNorm(3), x, y, dataclasses.replace(LINF, **ball))
    assert set(found) == ({name} if name else set())


def test_reach_of_the_other_norms() -> None:
    x, y = rows([0, 0, 1], [1, 0, 0]), labels(2, 0)
    reaches: list[tuple[Any, float]] = [("l2", math.sqrt(3)), ("l1", 3.0)]
    for norm, reach in reaches:
        for length, there in ((0.99 * reach, False), (1.01 * reach, True)):
            recipe = Recipe(step=length, norm=norm, labels="given")
            found = traps(nn.LayerNorm(3), x, y, recipe)
            assert ("length beyond the data's range" in found) == there


def test_step_lost_in_rounding() -> None:
    # Numbers of float32 lie 8 apart at 1e8 and 2 ** -10 apart at 1e4.
    x, y = rows([1e8, 1e4, 1], [1, -1e8, 1e8]), labels(0, 2)
    trap = traps(nn.LayerNorm(3), x, y, dataclasses.replace(LINF, step=0.01))
    assert trap["step lost in rounding"].count == 3
    assert trap["step lost in rounding"].of == 6
    # From 2 ** 24 on a step of 0.9 is lost upwards alone.
    turn = rows([2**24, 2**24])
    assert traps(nn.LayerNorm(2), turn, y[:1], dataclasses.replace(LINF, step=0.9)) == {}
    settled: list[dict[str, Any]] = [{"step": 100.0}, {"norm": "l2"}]
    for changed in settled:
        other = dataclasses.replace(LINF, **changed)
        assert "step lost in rounding" not in traps(nn.LayerNorm(3), x, y, other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    x, y = rows([1, 0, 0], [0, 0, 1], dtype=dtype), labels(0, 2)
    name = f"{str(dtype).removeprefix('torch.')} input"
    found = traps(IDENTITY, x, y, LINF, L2)
    assert name in found
    assert name not in traps(IDENTITY, x.float(), y, LINF)
    by_side = find_traps(IDENTITY, x, y, side(LINF), side(L2), model_output="logits")
    says = [t.side for t in by_side if t.name == name and "guard" in t.message]
    assert says == (["b"] if dtype == torch.float16 else [])


def test_several_inputs_of_cleverhans() -> None:
    x, y = batch()
    features = {"a": x[:, :2], "b": x[:, 2:], "kind": y}
    found = traps(
        TwoInputs(), features, y, Configuration.of("nsl"), Configuration.of("cleverhans3")
    )
    assert (found["several inputs"].count, found["several inputs"].side) == (2, "b")
    assert "several inputs" not in traps(mlp(), x, y, Configuration.of("cleverhans3"))
