"""Trains a digit classifier in a plain loop, with NSL's or CleverHans' weighting of the losses.

Run: python examples/train_loop.py --weighting nsl
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from torchfgsm import Recipe, Weighting, adversarial_step, fgsm

EPS = 0.1  # in the input's units: pixels lie in [0, 1]
ACCUMULATE = 2  # batches whose gradients make one step of the optimizer
WEIGHTINGS = {
    "clean": None,  # no adversarial examples
    "nsl": Weighting.from_nsl(multiplier=0.2),  # L(x) + 0.2 L(x_adv)
    "cleverhans": Weighting.from_cleverhans(adv_coeff=0.5),  # 0.5 L(x) + 0.5 L(x_adv)
    "adversarial": Weighting.from_cleverhans(adv_coeff=1.0),  # L(x_adv)
}
RECIPE = Recipe.cleverhans3(eps=EPS, clip_min=0.0, clip_max=1.0)


def train(model: nn.Module, x: Tensor, y: Tensor, weighting: Weighting | None) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=6e-3)
    for _ in range(12):
        for number, rows in enumerate(torch.randperm(len(x)).split(32), start=1):
            if weighting is None:
                nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            else:  # adds to the gradients; zeroing and stepping stay yours
                adversarial_step(model, x[rows], y[rows], recipe=RECIPE, weighting=weighting)
            if number % ACCUMULATE == 0:
                nn.utils.clip_grad_norm_(model.parameters(), max_norm=10.0)
                optimizer.step()
                optimizer.zero_grad()


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.inference_mode():
        return (model(x).argmax(dim=1) == y).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weighting", choices=WEIGHTINGS, help="default: all, one after another")
    chosen = parser.parse_args().weighting
    torch.set_num_threads(1)  # so small a model gains nothing from more
    digits = load_digits()
    x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    test_x, test_y = x[1400:], y[1400:]
    for name in [chosen] if chosen else WEIGHTINGS:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
        train(model, x[:1400], y[:1400], WEIGHTINGS[name])
        model.eval()
        attacked = fgsm(model, test_x, test_y, eps=EPS, clip_min=0.0, clip_max=1.0)
        clean, robust = accuracy(model, test_x, test_y), accuracy(model, attacked, test_y)
        print(f"{name:12} clean {clean:.1%}  robust {robust:.1%}")


if __name__ == "__main__":
    main()
