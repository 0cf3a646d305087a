"""Runs the kernels under compute-sanitizer on a GPU: `python tests/support/sanitize.py`.

memcheck looks for reads and writes out of bounds, racecheck for two threads at the same shared
memory, synccheck for barriers that not all threads meet: what the emulator on the CPU cannot show.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

import torch
from kernel_cases import Case, difference, drawn, plain

TOOLS = ("memcheck", "racecheck", "synccheck")
FOUND = 9  # exit code of compute-sanitizer where it found something
# One example over the blocks of clusters of 2, 4 and 8, and beyond what stays on the chip.
COLUMNS = (40_000, 70_000, 150_528, 400_000)


def clusters() -> list[Case]:
    """Calls whose examples are shared by the blocks of a cluster."""
    found = []
    for norm in ("l2", "l1"):
        for columns in COLUMNS:
            x, grad = torch.rand(3, columns), torch.randn(3, columns)
            found.append(plain(norm, x, grad))
            if norm == "l2":  # a ball takes a second reduction over the cluster
                found.append(plain(norm, x, grad, radius=0.13))
    return found


def run_kernels() -> int:
    """Compares every call with the reference; what the tools watch."""
    op = torch.ops.torchfgsm.perturb.default
    cases = [*clusters(), *drawn(60, seed=7)]
    for case in cases:
        found = [tensor.cpu() for tensor in op(*case.to("cuda").arguments)]
        reason = difference(case, found, op(*case.arguments))
        if reason is not None:
            print(f"{case.name}: {reason}")
            return 1
    print(f"{len(cases)} calls equal the reference")
    return 0


def main() -> int:
    """Runs each tool over the calls; 0 where none found anything, 1 where one did, 2 without."""
    program = shutil.which("compute-sanitizer")
    if program is None or not torch.cuda.is_available():
        print("needs compute-sanitizer, which is part of the CUDA toolkit, and a CUDA device")
        return 2
    failed = []
    for tool in TOOLS:
        command = [program, "--tool", tool, "--error-exitcode", str(FOUND), sys.executable]
        done = subprocess.run([*command, __file__, "--run"])
        print(f"{tool}: {'found nothing' if done.returncode == 0 else 'FAILED'}", flush=True)
        failed += [tool] if done.returncode else []
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run_kernels() if "--run" in sys.argv[1:] else main())
