"""How much memory a worker may take."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

VARIABLE = "TORCHFGSM_MEMORY_LIMIT"
"""Gigabytes that one worker may have in memory, instead of the share below."""

_SHARE = 0.9  # of the machine's memory: what goes beyond it only takes others down as well
_CONTROL_GROUPS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def limit() -> int:
    """Returns the bytes that one worker may have in memory.

    Raises:
        ValueError: the variable holds no number of gigabytes.
    """
    given = os.environ.get(VARIABLE)
    if not given:
        return int(_SHARE * _machine())
    with contextlib.suppress(ValueError):
        if 0 < float(given) < math.inf:
            return max(1, int(float(given) * 1e9))
    raise ValueError(f"{VARIABLE}: expected gigabytes, such as 16 or 1.5, got {given!r}")


def _machine() -> int:
    """Bytes of memory that the machine, or the container that this is, has."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in _CONTROL_GROUPS:
        with contextlib.suppress(OSError, ValueError):  # none there, or "max"
            sizes.append(int(file.read_text()))
    return min(size for size in sizes if size > 0)
