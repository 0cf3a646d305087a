"""The two sides of an explanation, judged against the originals by the main table's rules."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

from torchfgsm.explanation.explaining import explain
from torchfgsm.explanation.result import Explanation
from torchfgsm.parity.cases import Case, all_cases
from torchfgsm.parity.data import Array, Data
from torchfgsm.parity.judge import judge
from torchfgsm.parity.verdict import Verdict

DEFAULTS = [
    case for case in all_cases() if case.name in ("nsl / defaults", "cleverhans3 / defaults")
]


def defaults_explained(model: nn.Module, data: Data, dtype: torch.dtype) -> Explanation:
    """NSL's defaults against CleverHans 3's on a converted model with one input."""
    (x,) = (torch.from_numpy(value).to(dtype) for value in data.x.values())
    y = torch.from_numpy(data.y)
    return explain(copy.deepcopy(model).to(dtype), x, y, a="nsl", b="cleverhans3", epsilons=())


def judged(case: Case, model: nn.Module, data: Data, expected: Mapping[str, Array]) -> Verdict:
    """The verdict on the side of an explanation that stands for a case."""

    def side(dtype: torch.dtype) -> dict[str, Array]:
        found = defaults_explained(model, data, dtype)
        end = found.a if case.library == "nsl" else found.b
        assert end.configuration.library == case.library
        (name,) = data.x
        return {f"adv/{name}": found.inputs["x"] + end.perturbations["x"]}

    return judge(
        case, data, expected, side(torch.float32), lambda turns: {}, lambda: side(torch.float64)
    )
