"""Losses: Keras' own semantics for the NSL mirror, and per-example losses for the attacks."""

from torchfgsm.losses.keras import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    MeanSquaredError,
    SparseCategoricalCrossentropy,
)
from torchfgsm.losses.per_example import (
    cross_entropy,
    probability_cross_entropy,
    softmax_cross_entropy,
    sparse_softmax_cross_entropy,
)

__all__ = [
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "MeanSquaredError",
    "SparseCategoricalCrossentropy",
    "cross_entropy",
    "probability_cross_entropy",
    "softmax_cross_entropy",
    "sparse_softmax_cross_entropy",
]
