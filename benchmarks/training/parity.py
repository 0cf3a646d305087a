"""Port and originals through the same 100 steps, in float64 and in float32."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from benchmarks.training.optimizers import Library, Optimizer
from benchmarks.training.rows import Row
from benchmarks.training.runs import Config, Examples, Precision, Snapshot, Trainings
from torchfgsm.parity.digits import load_digits

STEPS = (1, 10, 100)
LIBRARIES: tuple[Library, ...] = ("nsl", "cleverhans3")
KINDS = ("plain", "batchnorm")
NORMS: dict[Literal["linf", "l2", "l1"], float] = {"linf": 0.1, "l2": 0.5, "l1": 1.0}
OPTIMIZERS = (
    Optimizer("sgd", 0.1),
    Optimizer("momentum", 0.03),
    Optimizer("adam", 2e-3),
)
BATCH = 32
_WEIGHT = 0.25  # multiplier or adv_coeff
_TRAINING = 1400
_STATISTICS = "moving_"
_FUSED = "norm1/moving_variance:0"
_MOMENTUM = 0.875  # of the models' BatchNormalization


def examples(steps: int, batch: int = BATCH, seed: int = 0) -> Examples:
    """Training digits for so many steps, shuffled anew in each pass over them."""
    images, classes = load_digits()
    random, count = np.random.default_rng(seed), steps * batch
    passes = [random.permutation(_TRAINING) for _ in range(-(-count // _TRAINING))]
    order = np.concatenate(passes)[:count]
    return Examples(images[order], classes[order], batch)


def configs(library: Library) -> Iterator[Config]:
    """Every norm with every optimizer."""
    for norm, eps in NORMS.items():
        for optimizer in OPTIMIZERS:
            yield Config(library, norm, eps, _WEIGHT, optimizer)


def rounding(trainings: Trainings, library: Library, kind: str) -> Iterator[Row]:
    """How far each side is from the original in float64 after each of `STEPS`.

    The measures are the largest relative distances of "weights" (of a tensor's largest entry),
    "statistics" (the same) and "losses", and for the original in float64 the "loss" it reports. A
    port in float64 is compared with the original itself; in float32 both sides have a distance.
    """
    for config in configs(library):
        for side, precision, steps, found in _trained(trainings, config, kind):
            for measure, value in found.items():
                yield trainings.row(
                    part="rounding",
                    library=library,
                    case=f"{_WEIGHT:g}",
                    model=kind,
                    norm=config.norm,
                    optimizer=config.optimizer.name,
                    precision=precision,
                    side=side,
                    seed=0,
                    steps=steps,
                    measure=measure,
                    value=value,
                )


def _trained(
    trainings: Trainings, config: Config, kind: str
) -> Iterator[tuple[str, str, int, dict[str, float]]]:
    """(side, precision, steps, values by measure) of one configuration."""
    given = examples(STEPS[-1])
    start = trainings.model(kind, precision="float64").to_keras_weights()
    truth = trainings.by_original(config, given, kind, precision="float64", at=STEPS)
    for steps in STEPS:
        yield "original", "float64", steps, {"loss": truth[steps].losses["loss"]}
    precisions: tuple[Precision, ...] = ("float64", "float32")
    for precision in precisions:
        sides = {"port": trainings.by_port(config, given, kind, precision=precision, at=STEPS)}
        if precision == "float32":
            sides["original"] = trainings.by_original(config, given, kind, at=STEPS)
        for side, found in sides.items():
            for steps in STEPS:
                expected = truth[steps]
                if config.library == "nsl" and precision == "float32":
                    expected = as_fused(expected, start, 2 * steps)
                yield side, precision, steps, distances(found[steps], expected)


def as_fused(snapshot: Snapshot, start: Mapping[str, Any], updates: int) -> Snapshot:
    """A float64 state with the moving variance as Keras' fused kernel counts it.

    That kernel, which float64 does not have, takes each batch's variance with Bessel's correction.
    """
    if _FUSED not in snapshot.weights:
        return snapshot
    old = _MOMENTUM**updates * start[_FUSED]
    count = BATCH * 8 * 8
    corrected = old + (snapshot.weights[_FUSED] - old) * count / (count - 1)
    return Snapshot({**snapshot.weights, _FUSED: corrected}, snapshot.losses)


def distances(found: Snapshot, expected: Snapshot) -> dict[str, float]:
    """The largest relative distances, by what they are of.

    Raises:
        ValueError: The two have not the same weights or losses.
    """
    if found.weights.keys() != expected.weights.keys() or found.losses.keys() != (
        expected.losses.keys()
    ):
        raise ValueError(
            f"expected {[*expected.weights, *expected.losses]}, "
            f"got {[*found.weights, *found.losses]}"
        )
    groups: dict[str, list[float]] = {"weights": [], "statistics": [], "losses": []}
    for name, array in expected.weights.items():
        scale = float(np.abs(array).max()) or 1.0
        group = "statistics" if _STATISTICS in name else "weights"
        # NaN must not hide behind a comparison.
        distance = float(np.abs(found.weights[name] - array).max()) / scale
        groups[group].append(math.inf if math.isnan(distance) else distance)
    for name, loss in expected.losses.items():
        distance = abs(found.losses[name] - loss) / abs(loss)
        groups["losses"].append(math.inf if math.isnan(distance) else distance)
    return {name: max(values) for name, values in groups.items() if values}
