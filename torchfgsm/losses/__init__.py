"""Losses: Keras' own semantics for the NSL mirror, and per-example losses for the attacks."""

from torchfgsm.losses.keras import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    KerasLoss,
    SparseCategoricalCrossentropy,
)
from torchfgsm.losses.keras_distances import (
    CategoricalHinge,
    CosineSimilarity,
    Hinge,
    Huber,
    KLDivergence,
    LogCosh,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    SquaredHinge,
)
from torchfgsm.losses.keras_focal import BinaryFocalCrossentropy, CategoricalFocalCrossentropy
from torchfgsm.losses.per_example import (
    cross_entropy,
    probability_cross_entropy,
    softmax_cross_entropy,
    sparse_softmax_cross_entropy,
)

__all__ = [
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "CategoricalHinge",
    "CosineSimilarity",
    "Hinge",
    "Huber",
    "KLDivergence",
    "KerasLoss",
    "LogCosh",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Poisson",
    "SparseCategoricalCrossentropy",
    "SquaredHinge",
    "cross_entropy",
    "probability_cross_entropy",
    "softmax_cross_entropy",
    "sparse_softmax_cross_entropy",
]
