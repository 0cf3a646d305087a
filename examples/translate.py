"""Translates an NSL configuration to CleverHans 3 and shows that both attack alike.

Run: python examples/translate.py
"""

import torch
from torch import nn

from torchfgsm import Configuration, attack, translate


def main() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    x, y = torch.rand(64, 16), torch.randint(4, (64,))

    options = {"adv_step_size": 0.1, "adv_grad_norm": "infinity", "multiplier": 0.25}
    nsl = Configuration.of("nsl", options)
    translation = translate(nsl, to="cleverhans3")
    print(translation.code)
    for step in translation.outside:
        print("-", step)

    ours = attack(model, x, y, recipe=nsl.recipe)
    theirs = attack(model, x, y, recipe=translation.recipe)
    print("equal:", torch.equal(ours, theirs))


if __name__ == "__main__":
    main()
