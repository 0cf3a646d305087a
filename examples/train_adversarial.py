"""Trains a digit classifier in a plain torch loop: without, and with both libraries' weightings.

Run: python examples/train_adversarial.py
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from torchfgsm import Weighting, fgsm, pgd

EPS = 0.1  # in the input's units: pixels lie in [0, 1]
WEIGHTINGS = {
    "clean examples only": Weighting(1, 0),
    "NSL, multiplier 0.2": Weighting.from_nsl(0.2),
    "CleverHans 3, adv_coeff 0.5": Weighting.from_cleverhans(0.5),
    "CleverHans 3, adversarial only": Weighting.from_cleverhans(1.0),
}


def train(weighting: Weighting, x: torch.Tensor, y: torch.Tensor) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(10):
        for batch in torch.randperm(len(x)).split(64):
            clean, labels = x[batch], y[batch]
            attacked = fgsm(model, clean, labels, eps=EPS, clip_min=0.0, clip_max=1.0)
            optimizer.zero_grad()
            loss = weighting.combine(
                F.cross_entropy(model(clean), labels), F.cross_entropy(model(attacked), labels)
            )
            loss.backward()
            optimizer.step()
    return model.eval()


def accuracy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    with torch.no_grad():
        return (model(x).argmax(dim=1) == y).float().mean().item()


def main() -> None:
    digits = load_digits()
    x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    train_x, train_y, test_x, test_y = x[:1400], y[:1400], x[1400:], y[1400:]
    print(f"{'':32}  clean   PGD, eps {EPS}")
    for name, weighting in WEIGHTINGS.items():
        model = train(weighting, train_x, train_y)
        attacked = pgd(model, test_x, test_y, eps=EPS, clip_min=0.0, clip_max=1.0)
        clean_score, score = accuracy(model, test_x, test_y), accuracy(model, attacked, test_y)
        print(f"{name:32}  {clean_score:.1%}   {score:.1%}")


if __name__ == "__main__":
    main()
