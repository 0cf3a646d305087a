"""Attacks one model with each library's preset, and says on which choices the presets differ.

Run: python examples/attack_model.py
"""

import math

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from torchfgsm import Recipe, attack

EPS = 0.1  # in the input's units: pixels lie in [0, 1]
RECIPES = {
    "nsl": Recipe.nsl(adv_step_size=EPS, adv_grad_norm="infinity"),
    "cleverhans3": Recipe.cleverhans3(eps=EPS),
    "cleverhans-tf2": Recipe.cleverhans_tf2(eps=EPS, norm=math.inf),
    "cleverhans-torch": Recipe.cleverhans_torch(eps=EPS, norm=math.inf),
}


def trained(x: torch.Tensor, y: torch.Tensor) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval()


def main() -> None:
    digits = load_digits()
    x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    model = trained(x[:1400], y[:1400])
    x, y = x[1400:], y[1400:]
    for name, recipe in RECIPES.items():
        # NSL needs the labels; CleverHans takes the model's own prediction unless they are given.
        x_adv = attack(model, x, y if recipe.labels == "given" else None, recipe=recipe)
        score = (model(x_adv).argmax(dim=1) == y).float().mean().item()
        print(f"{name:17} accuracy under attack {score:.1%}")
        for field, (theirs, ours) in recipe.diff(RECIPES["nsl"]).items():
            print(f"{'':17}   {field}: {theirs!r}, nsl {ours!r}")


if __name__ == "__main__":
    main()
