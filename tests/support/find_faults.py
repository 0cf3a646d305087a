"""Says of each library of kernels whether the cases find a fault in it.

Called as `find_faults.py DTYPE=LIBRARY ...`; prints "found" or "missed" for each. Each is looked at
in a fork: besides giving wrong results, a fault may write over memory.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from emulation import COUNT, HOPPER, wrong
from kernel_cases import drawn


def main() -> None:
    """Prints a word for each."""
    cases = drawn(COUNT)
    torch.set_num_threads(1)  # a fork has no other
    looking: dict[int, int] = {}
    words = [""] * len(sys.argv[1:])

    def wait() -> None:
        child, status = os.wait()
        words[looking.pop(child)] = "found" if status else "missed"

    for place, argument in enumerate(sys.argv[1:]):
        dtype, _, library = argument.partition("=")
        if len(looking) == 2:
            wait()
        child = os.fork()
        if child == 0:
            these = (case for case in cases if str(case.x[0].dtype) == f"torch.{dtype}")
            os._exit(any(wrong([case], Path(library), HOPPER)[0] for case in these))
        looking[child] = place
    while looking:
        wait()
    print(*words)


if __name__ == "__main__":
    main()
