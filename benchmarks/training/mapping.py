"""NSL's multiplier for CleverHans' adv_coeff: what it makes equal, with which optimizer.

Both originals train, live and in float64, from the same weights on the same batches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.training.optimizers import Optimizer
from benchmarks.training.parity import examples
from benchmarks.training.rows import Row
from benchmarks.training.runs import Config, Trainings

COEFFICIENTS = (0.1, 0.3, 0.5, 0.9)
STEPS = 100
# Rates that float32 has: TensorFlow 1 holds them so.
OPTIMIZERS = (
    Optimizer("sgd", 2**-4),
    Optimizer("momentum", 2**-6),
    Optimizer("adam", 2**-9),
)
SAME, RATE, EPSILON = "the same optimizer", "rate times 1 - a", "epsilon / (1 - a)"
_EPS = 0.1


def mapping(trainings: Trainings, seeds: Sequence[int]) -> Iterator[Row]:
    """The relative distance of NSL's update in `STEPS` steps from CleverHans 3's."""
    for seed in seeds:
        start = _flat(trainings.model("plain", seed, "float64").to_keras_weights())
        given = examples(STEPS, seed=seed)

        def trained(config: Config, seed: int = seed, given: Any = given) -> Any:
            found = trainings.by_original(
                config, given, "plain", seed=seed, precision="float64", at=(STEPS,)
            )
            return _flat(found[STEPS].weights)

        for optimizer in OPTIMIZERS:
            for coefficient in COEFFICIENTS:
                theirs = Config("cleverhans3", "linf", _EPS, coefficient, optimizer)
                expected = trained(theirs)
                for name, changed in changes(optimizer, 1 - coefficient).items():
                    actual = trained(theirs.translated(changed))
                    distance = np.linalg.norm(actual - expected)
                    yield trainings.row(
                        part="mapping",
                        library="cleverhans3 against nsl",
                        case=name,
                        model="plain",
                        norm="linf",
                        optimizer=optimizer.name,
                        precision="float64",
                        side="original",
                        seed=seed,
                        steps=STEPS,
                        measure=f"{coefficient:g}",
                        value=float(distance / np.linalg.norm(expected - start)),
                    )


def changes(optimizer: Optimizer, clean: float) -> dict[str, Optimizer]:
    """NSL's optimizers for a CleverHans loss whose clean part has a weight."""
    found = {
        SAME: optimizer,
        RATE: dataclasses.replace(optimizer, rate=optimizer.rate * clean),
    }
    if optimizer.name == "adam":
        found[EPSILON] = optimizer.for_loss_times(1 / clean)
    return found


def _flat(weights: Mapping[str, Any]) -> Any:
    return np.concatenate([weights[name].ravel() for name in sorted(weights)])
