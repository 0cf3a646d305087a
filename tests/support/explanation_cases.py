"""Explanations made by hand, for the tests of reports."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from torchfgsm.explanation.result import (
    Explanation,
    FieldEffect,
    Measures,
    PathStep,
    Settings,
    Side,
    TrainingEffect,
    TrainingExplanation,
    Trap,
)
from torchfgsm.libraries.configuration import Configuration

Array = npt.NDArray[Any]
HOSTILE = "<img src=http://example.com/x.png onerror=alert(1)>|`$&\x1b[31m\n"
NO_CHANGE = Measures(0.0, 0.0, 1.0, 0, 0.0, 0.0)


def measures(relative_l2: float, sign_flips: float = 0.0, cosine: float = 0.5) -> Measures:
    return Measures(sign_flips, relative_l2, cosine, 4, 1.5, -0.25)


def effect(
    name: str, values: tuple[Any, Any], from_a: Measures | None, from_b: Measures | None
) -> FieldEffect:
    return FieldEffect(
        name=name,
        values=values,
        sentences=(f"{name} as in NSL.", f"{name} as in CleverHans."),
        sources=("nsl.lib.one", "cleverhans.attacks.two"),
        from_a=from_a,
        from_b=from_b,
        reason="" if from_a and from_b else f"{name} alone is refused",
    )


def explanation(
    shapes: Mapping[str, tuple[int, ...]] | None = None, count: int = 4, **fields: Any
) -> Explanation:
    """NSL's defaults against CleverHans 3's, with made-up numbers.

    Args:
        shapes: Shape of one example of each feature.
        count: Number of examples.
        fields: Fields of the explanation in place of those made here.
    """
    generator = np.random.default_rng(0)
    shapes = {"x": (1, 8, 8)} if shapes is None else shapes

    def arrays(size: float) -> dict[str, Array]:
        return {
            name: (size * generator.uniform(-1, 1, (count, *shape))).astype(np.float32)
            for name, shape in shapes.items()
        }

    a = Side(
        Configuration.of("nsl", {"multiplier": 0.3}), arrays(0.001), np.arange(count) % 3,
        0.5, 0.75, ((0.1, 0.9), (0.2, 0.6), (0.4, 0.2)),
    )  # fmt: skip
    b = Side(
        Configuration.of("cleverhans3"), arrays(0.3), (np.arange(count) + 1) % 3,
        2.0, 0.25, ((0.1, 0.7), (0.2, 0.4), (0.4, 0.1)),
    )  # fmt: skip
    made = Explanation(
        a=a,
        b=b,
        inputs={name: np.abs(v) for name, v in arrays(1.0).items()},
        labels=np.arange(count) % 3,
        clean_predictions=np.arange(count) % 3,
        clean_loss=0.25,
        clean_accuracy=1.0,
        total=measures(298.5, 0.0625),
        effects=(
            effect("norm", ("l2", "linf"), measures(7.25), measures(0.908)),
            effect("step", (0.001, 0.3), measures(299.0, cosine=1.0), measures(0.997)),
            effect("labels", ("given", "predicted"), measures(0.327, 0.0625), None),
        ),
        path=(
            PathStep(("norm",), (("l2", "linf"),), measures(7.25), measures(0.995)),
            PathStep(("step",), ((0.001, 0.3),), measures(298.0), measures(0.3125, 0.0625)),
            PathStep(("labels",), (("given", "predicted"),), measures(0.31, 0.0625), NO_CHANGE),
        ),
        remainder=0.125,
        traps=(
            Trap("label leaking", "note", 3, 4, "Some labels are the prediction.", "b"),
            Trap("saturated probabilities", "error", 2, 4, "They kill the gradient.", "a"),
        ),
        training=TrainingExplanation(
            losses=(0.75, 1.25),
            gradient=0.5,
            scaled=0.0625,
            effects=(
                TrainingEffect(
                    "weighting", ("1 : 0.3", "0.5 : 0.5"), ("NSL adds.", "CleverHans mixes."),
                    0.375, 0.5, 0.0, -0.375, 0.4, math.nan,
                ),
            ),
            remainder=0.03125,
        ),
        equal=(
            Settings(
                "b", "import cleverhans\nattack.generate(x, eps=0.001, ord=2)\n",
                ("Give CleverHans the true labels.",),
            ),
            Settings("a", reason="NSL has none."),
        ),
        facts={"torchfgsm": "0.1.0", "seed": 7},
    )  # fmt: skip
    return dataclasses.replace(made, **fields)
