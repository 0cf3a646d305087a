"""Runs in each of two processes under torchrun: adversarial training of sharded batches.

Writes what the first process found to the file named on the command line, as JSON: for each case
the largest distance of a gradient from that of one process on the whole batch, and how many
all-reduces there were.
"""

import contextlib
import dataclasses
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

import torchfgsm
from torchfgsm import Recipe, Weighting, adversarial_loss, adversarial_step, fgsm, pgd
from torchfgsm.cleverhans.torch import fast_gradient_method

KEPT = dataclasses.replace(Recipe.nsl(0.1, "l2"), model_mode="keep_and_update")
PGD = Recipe.cleverhans3(eps=0.1, nb_iter=3, rand_init=False)
RECIPES: dict[str, dict[str, Any]] = {
    "NSL": {"recipe": KEPT},
    "attack in eval mode": {"recipe": Recipe.nsl(0.1, "infinity")},
    "three steps": {"recipe": dataclasses.replace(PGD, model_mode="keep")},
    "own prediction": {"recipe": Recipe.cleverhans3(eps=0.1), "pass_y": False},
    "adversarial only": {"recipe": KEPT, "weighting": Weighting(0.0, 1.0)},
}
ATTACKS: dict[str, Any] = {
    "none": lambda model, x, y: None,
    "fgsm": lambda model, x, y: fgsm(model, x, y, eps=0.1),
    "pgd": lambda model, x, y: pgd(model, x, y, eps=0.1, iterations=2),
    "cleverhans": lambda model, x, y: fast_gradient_method(model, x, 0.1, math.inf, y=y),
    "kept": lambda model, x, y: torchfgsm.attack(model, x, y, recipe=KEPT),
}
SECOND_ORDER = {"recipe": Recipe.cleverhans3(eps=0.1, ord=2)}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)
    ).double()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(8, 4, dtype=torch.float64, generator=generator)
    return x, torch.randint(3, (8,), generator=generator)


def shard() -> tuple[Tensor, Tensor]:
    x, y = batch()
    return x.chunk(2)[dist.get_rank()], y.chunk(2)[dist.get_rank()]


def train(model: nn.Module, x: Tensor, y: Tensor, *, step: bool, **arguments: Any) -> None:
    arguments = {"weighting": Weighting.from_nsl(0.3), **arguments}
    if step:
        adversarial_step(model, x, y, **arguments)
    else:
        adversarial_loss(model, x, y, **arguments).loss.backward()


def distance(model: nn.Module, calls: int = 1, **arguments: Any) -> float:
    """From the gradients of one process that trains on the whole batch as often."""
    whole = network()
    for _ in range(calls):
        train(whole, *batch(), step=False, **arguments)
    pairs = zip(model.parameters(), whole.parameters(), strict=True)
    return max(float((gradient(p) - gradient(q)).abs().max()) for p, q in pairs)


def gradient(parameter: nn.Parameter) -> Tensor:
    found = parameter.grad
    if found is None:
        raise RuntimeError("a parameter has no gradient")
    return found.full_tensor() if hasattr(found, "full_tensor") else found


class Reductions:
    """Counts the all-reduces of a DistributedDataParallel model."""

    def __init__(self, model: DistributedDataParallel) -> None:
        self.count = 0
        model.register_comm_hook(None, self.hook)

    def hook(self, state: Any, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        self.count += 1
        return allreduce_hook(state, bucket)


def data_parallel(
    *, step: bool = True, calls: int = 1, compiled: bool = False, wrap: Any = None, **arguments: Any
) -> dict[str, Any]:
    """Trains on this process's shard, under no_sync in all calls but the last."""
    model = DistributedDataParallel(network(), **(wrap or {}))
    reductions = Reductions(model)
    called = torch.compile(model, backend="eager") if compiled else model
    for left in reversed(range(calls)):
        with model.no_sync() if left else contextlib.nullcontext():
            train(called, *shard(), step=step, **arguments)
    return {"distance": distance(model, calls, **arguments), "reductions": reductions.count}


def fully_sharded(*, step: bool = False, **arguments: Any) -> dict[str, Any]:
    model, mesh = network(), init_device_mesh("cpu", (2,))
    for layer in (model[0], model[2], model[4], model):
        fully_shard(layer, mesh=mesh)
    train(model, *shard(), step=step, **arguments)
    return {"distance": distance(model, **arguments)}


def tensor_parallel(*, step: bool, **arguments: Any) -> dict[str, Any]:
    plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    model = parallelize_module(network(), init_device_mesh("cpu", (2,)), plan)
    train(model, *batch(), step=step, **arguments)
    return {"distance": distance(model, **arguments)}


def refused(wrapped: nn.Module, *, step: bool, **arguments: Any) -> dict[str, Any]:
    calls: list[nn.Module] = []
    wrapped.register_forward_pre_hook(lambda module, *_: calls.append(module))
    try:
        train(wrapped, *shard(), step=step, **arguments)
    except TypeError as error:
        return {"error": str(error), "calls": len(calls)}
    return {"error": None, "calls": len(calls)}


def apart_after_training(attack: Any) -> float:
    """How far two replicas are apart after training, when only the first has attacked more often.

    A static graph counts passes, and buffers are sent in every forward pass of the wrapper.
    """
    norm = nn.BatchNorm1d(4).double()
    model = DistributedDataParallel(nn.Sequential(norm, network()), static_graph=True)
    for _ in range(1 + dist.get_rank()):
        attack(model, *shard())
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    for _ in range(3):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(shard()[0]), shard()[1]))
        optimizer.step()
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    both = [torch.empty_like(weights) for _ in range(2)]
    dist.all_gather(both, weights)
    return float((both[0] - both[1]).abs().max())


def found() -> dict[str, Any]:
    results: dict[str, Any] = {}
    for name, arguments in RECIPES.items():
        results[f"step, {name}"] = data_parallel(**arguments)
        results[f"loss, {name}"] = data_parallel(step=False, **arguments)
        if hasattr(torch.cpu.Stream, "record_event"):  # torch 2.6 shards on GPUs alone
            results[f"FSDP loss, {name}"] = fully_sharded(**arguments)
    for option in ("find_unused_parameters", "gradient_as_bucket_view"):
        results[f"step, {option}"] = data_parallel(wrap={option: True}, recipe=KEPT)
    results["step, accumulated"] = data_parallel(calls=3, recipe=KEPT)
    results["step, compiled"] = data_parallel(compiled=True, recipe=KEPT)
    results["loss, second order"] = data_parallel(step=False, **SECOND_ORDER)
    results["tensor parallel step"] = tensor_parallel(step=True, recipe=KEPT)
    for name, attack in ATTACKS.items():
        results[f"attacked first, {name}"] = {"apart": apart_after_training(attack)}
    for step, name in ((True, "step"), (False, "loss")):
        static = DistributedDataParallel(network(), static_graph=True)
        results[f"static graph {name}"] = refused(static, step=step, recipe=KEPT)
    sharded = fully_shard(network(), mesh=init_device_mesh("cpu", (2,)))
    results["FSDP step"] = refused(sharded, step=True, recipe=KEPT)
    results["FSDP second order"] = refused(sharded, step=False, **SECOND_ORDER)
    return results


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    results = found()
    if dist.get_rank() == 0:
        Path(sys.argv[1]).write_text(json.dumps(results), encoding="utf-8")
    dist.barrier()
    os._exit(0)  # gloo's threads can abort a process that ends in the usual way
