"""Gradients checked without a second implementation, by differences in float64."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np

from torchfgsm.comparison import Comparison, compare
from torchfgsm.converters.judging import FLOAT32_TOLERANCE
from torchfgsm.converters.measuring import Question, is_float, measure, objective_totals
from torchfgsm.converters.model import ConvertedModel
from torchfgsm.converters.objectives import NONE

_DIRECTIONS = 3
_STEP = 1e-7


def compare_slopes(model: ConvertedModel, question: Question, title: str) -> Comparison | None:
    """Compares input gradients with differences of the model's own values, in float64.

    Each gradient is compared along random directions, in which every entry takes part. Returns
    None where no gradient exists.
    """
    twin = copy.deepcopy(model).double()
    wide = question.in_precision("float64")
    random = np.random.default_rng(2)
    names = [n for n in model.input_names if is_float(wide.batch[n])]
    if not names or all(objective.kind == NONE for objective in question.objectives):
        return None
    # Away from exact zeros and ones: a difference across a kink is no derivative.
    start = {n: wide.batch[n] + 0.01 * random.random(wide.batch[n].shape) for n in names}
    gradients = measure(twin, replace(wide, batch={**wide.batch, **start}))
    expected, actual = {}, {}
    for i in range(_DIRECTIONS):
        steps = {n: random.standard_normal(start[n].shape) for n in names}
        ahead, behind = ({n: start[n] + side * steps[n] for n in names} for side in (_STEP, -_STEP))
        difference = objective_totals(
            twin, replace(wide, batch={**wide.batch, **ahead})
        ) - objective_totals(twin, replace(wide, batch={**wide.batch, **behind}))
        products = [gradients[f"gradient {n}"] * steps[n] for n in names]
        rows = np.concatenate([p.reshape(len(p), -1) for p in products], axis=1)
        size = np.maximum(np.abs(rows).sum(axis=1), 1e-30)
        expected[f"slope {i}"] = difference / (2 * _STEP) / size
        actual[f"slope {i}"] = rows.sum(axis=1) / size
    return compare(expected, actual, atol=FLOAT32_TOLERANCE, title=title)
