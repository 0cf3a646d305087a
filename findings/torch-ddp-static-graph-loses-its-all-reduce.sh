#!/usr/bin/env bash
# One input gradient before the first training step, and DDP(static_graph=True) trains apart in silence.
#
# Guess: torch.autograd.grad(loss, x), which touches no parameter's .grad, leaves DDP's bookkeeping
#   alone, or DDP complains: replicas stay equal.
# Real (torch 2.13.0, gloo, two processes on a CPU): without static_graph they stay equal. With it,
#   when the gradient is taken through the DDP module before the first loss.backward(), no later step
#   reduces: no error, no warning, and the replicas' weights drift apart. After one ordinary step, or
#   through ddp.module, the same gradient does no harm. Adversarial training that crafts its first
#   batch before its first step meets just this.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/replicas.py" <<'PY'
import warnings

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

CASES = {
    "static_graph, no input gradient": (True, None, True),
    "no static_graph, input gradient first": (False, "ddp", True),
    "static_graph, input gradient first": (True, "ddp", False),
    "static_graph, input gradient of ddp.module first": (True, "inner", True),
    "static_graph, input gradient after a step": (True, "after", True),
}


def train(rank, static, attack):
    torch.manual_seed(rank)
    x, y = torch.rand(8, 16), torch.randint(3, (8,))
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Linear(16, 3), static_graph=static)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    for step in range(3):
        if attack is not None and step == (attack == "after"):
            leaf = x.clone().requires_grad_()
            used = model.module if attack == "inner" else model
            torch.autograd.grad(F.cross_entropy(used(leaf), y), leaf)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    both = [torch.empty_like(weights) for _ in range(2)]
    dist.all_gather(both, weights)
    return float((both[0] - both[1]).abs().max())


def main(rank, store):
    warnings.simplefilter("error")
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    for name, (static, attack, equal) in CASES.items():
        apart = train(rank, static, attack)
        if rank == 0:
            print(f"{name}: replicas {apart:.2g} apart")
        if (apart == 0) != equal:
            raise SystemExit(f"changed: {name}")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    import sys

    mp.spawn(main, args=(sys.argv[1],), nprocs=2)
PY
OMP_NUM_THREADS=1 "$folder/venv/bin/python" "$folder/replicas.py" "$folder/store"
