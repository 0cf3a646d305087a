"""Trains a digit classifier in several processes with DistributedDataParallel.

Run: torchrun --nproc-per-node 2 examples/train_ddp.py
"""

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from torchfgsm import Recipe, Weighting, adversarial_step, fgsm

EPS = 0.1  # in the input's units: pixels lie in [0, 1]
RECIPE = Recipe.cleverhans3(eps=EPS, clip_min=0.0, clip_max=1.0)
WEIGHTING = Weighting.from_cleverhans(adv_coeff=0.5)


def train(model: nn.Module, data: TensorDataset) -> None:
    sampler = DistributedSampler(data, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for epoch in range(10):
        sampler.set_epoch(epoch)
        for x, y in DataLoader(data, batch_size=32, sampler=sampler):
            optimizer.zero_grad()
            # One all-reduce, in the second of the two backward passes.
            adversarial_step(model, x, y, recipe=RECIPE, weighting=WEIGHTING)
            optimizer.step()


def accuracies(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> list[float]:
    """Clean and robust, of all processes' examples; each takes every n-th."""
    x, y = x[dist.get_rank() :: dist.get_world_size()], y[dist.get_rank() :: dist.get_world_size()]
    attacked = fgsm(model, x, y, eps=EPS, clip_min=0.0, clip_max=1.0)
    with torch.inference_mode():
        right = [(model(inputs).argmax(dim=1) == y).sum() for inputs in (x, attacked)]
    counts = torch.stack([*right, torch.tensor(len(y))])
    dist.all_reduce(counts)
    return (counts[:2] / counts[2]).tolist()


def main() -> None:
    dist.init_process_group("gloo")
    torch.set_num_threads(1)  # so small a model gains nothing from more
    digits = load_digits()
    x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    torch.manual_seed(0)
    model = DistributedDataParallel(
        nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    )
    train(model, TensorDataset(x[:1400], y[:1400]))
    # The module inside: ranks attack different numbers of examples, without waiting for each other.
    clean, robust = accuracies(model.module.eval(), x[1400:], y[1400:])
    if dist.get_rank() == 0:
        print(f"{dist.get_world_size()} processes: clean {clean:.1%}  robust {robust:.1%}")
    dist.barrier()  # no process ends while another one needs it
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
