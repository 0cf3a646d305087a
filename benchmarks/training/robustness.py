"""Digits models that both originals train at their defaults and as each other, and their twins.

Every training is run by the original, live, and by this package from the same initial weights on
the same batches; one attack, that none of them saw, is made on all of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from benchmarks import digits
from benchmarks.training.optimizers import Optimizer
from benchmarks.training.parity import examples
from benchmarks.training.rows import Row
from benchmarks.training.runs import Array, Config, Snapshot, Trainings
from torchfgsm import Recipe, pgd

# In the pixels' range [0, 1]; 0 is no attack.
RADII = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
ITERATIONS = 20
BATCH = 50  # 28 batches in each pass over the 1400 digits
EPOCHS = 20
# TensorFlow 1 holds the rate in float32. One that Keras has as the same number, and NSL's share of
# it, too: 560 steps make a difference of 1e-8 visible.
_OPTIMIZER = Optimizer("momentum", 2**-5)

NSL = Config("nsl", "l2", 0.001, 0.2, _OPTIMIZER)
CLEVERHANS = Config("cleverhans3", "linf", 0.3, 0.5, _OPTIMIZER, pass_y=False)
LABELLED = dataclasses.replace(CLEVERHANS, pass_y=True)
CASES = {
    "clean examples only": dataclasses.replace(NSL, weight=0.0),
    "NSL at its defaults": NSL,
    "CleverHans 3 as NSL's defaults": NSL.translated(),
    "CleverHans 3 at its defaults": CLEVERHANS,
    "CleverHans 3 with true labels": LABELLED,
    "NSL as CleverHans 3 with true labels": LABELLED.translated(),
}


def robustness(trainings: Trainings, seeds: Sequence[int], epochs: int = EPOCHS) -> Iterator[Row]:
    """Accuracy under the attack by radius, and how far the twin's weights are."""
    _refuse_other_defaults()
    data = digits.load()
    x, y = data.x.permute(0, 2, 3, 1).contiguous(), data.y
    steps = epochs * len(data.train_x) // BATCH
    for precision in ("float32", "float64"):
        for seed in seeds:
            given = examples(steps, BATCH, seed)
            for case, config in CASES.items():
                twins = {
                    "original": trainings.by_original,
                    "port": trainings.by_port,
                }
                found = {
                    side: run(config, given, "plain", seed=seed, precision=precision, at=(steps,))
                    for side, run in twins.items()
                }
                snapshots = {side: states[steps] for side, states in found.items()}
                for side, measure, value in measured(trainings, snapshots, x, y):
                    yield trainings.row(
                        part="robustness",
                        library=config.library,
                        case=case,
                        model="plain",
                        norm=config.norm,
                        optimizer=config.optimizer.name,
                        precision=precision,
                        side=side,
                        seed=seed,
                        steps=steps,
                        measure=measure,
                        value=value,
                    )


def measured(
    trainings: Trainings, snapshots: dict[str, Snapshot], x: torch.Tensor, y: torch.Tensor
) -> Iterator[tuple[str, str, float]]:
    """(side, measure, value): accuracies by radius, and the port's distance in weights."""
    for side, snapshot in snapshots.items():
        for radius in RADII:
            yield side, f"accuracy at {radius:g}", accuracy(trainings, snapshot, x, y, radius)
    expected, actual = (_flat(snapshots[side]) for side in ("original", "port"))
    distance = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
    yield "port", "weights", float(distance)


def accuracy(
    trainings: Trainings, snapshot: Snapshot, x: torch.Tensor, y: torch.Tensor, radius: float
) -> float:
    """The share of the digits that a state still reads right under PGD, in float64."""
    model = trainings.with_weights("plain", snapshot.weights)
    attacked = x.double()
    if radius:
        attacked = pgd(
            model,
            attacked,
            y,
            eps=radius,
            iterations=ITERATIONS,
            clip_min=0.0,
            clip_max=1.0,
            random_start=False,
        )
    with torch.no_grad():
        return float((model(attacked).argmax(1) == y).double().mean())


def _flat(snapshot: Snapshot) -> Array:
    return np.concatenate([snapshot.weights[name].ravel() for name in sorted(snapshot.weights)])


def _refuse_other_defaults() -> None:
    """Says when the defaults above are no longer those of the presets.

    Raises:
        ValueError: They are not.
    """
    for config, preset in ((NSL, Recipe.nsl()), (CLEVERHANS, Recipe.cleverhans3())):
        other = set(config.recipe().diff(preset)) - {"model_mode"}
        if other:
            raise ValueError(f"{config.library}: not the defaults in {', '.join(sorted(other))}")
