"""Scikit-learn's digits and a small CNN trained on them."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TRAINING_EXAMPLES = 1400
_EPOCHS = 15
_BATCH = 64


class Digits(NamedTuple):
    """Images (N, 1, 8, 8) in [0, 1] and labels (N,), for training and for attacks."""

    train_x: Tensor
    train_y: Tensor
    x: Tensor
    y: Tensor


def load() -> Digits:
    """The 1797 digits: 1400 to train on, 397 to attack."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None]
    y = torch.tensor(digits.target)
    n = _TRAINING_EXAMPLES
    return Digits(x[:n], y[:n], x[n:], y[n:])


def trained_cnn(digits: Digits) -> nn.Sequential:
    """A CNN that gives logits, trained with fixed seeds for a few seconds, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, 10),
        )
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        for _ in range(_EPOCHS):
            order = torch.randperm(len(digits.train_x))
            for begin in range(0, len(order), _BATCH):
                batch = order[begin : begin + _BATCH]
                optimizer.zero_grad()
                loss = F.cross_entropy(model(digits.train_x[batch]), digits.train_y[batch])
                torch.autograd.backward(loss)
                optimizer.step()
    return model.eval()
