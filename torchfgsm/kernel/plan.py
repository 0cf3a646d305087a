"""Which kernels a call launches, and how: pure Python, so that it is tested without a GPU.

Each dtype has nine kernels; `instantiations` lists them all, and no plan asks for another.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

# C++ type and bytes of each dtype that the kernels take.
CTYPES = {
    "float32": ("float", 4),
    "float64": ("double", 8),
    "bfloat16": ("torchfgsm::bf16", 2),
    "float16": ("torchfgsm::f16", 2),
}
_ACCESS = 16  # bytes of the widest load
_THREADS = 512  # of the largest block, THREADS in perturb.cu
_BLOCK = 256
_PER_THREAD = 4  # vectors of an example that a thread takes before its group grows
# Shared memory of a block of perturb_rows: three of these blocks fit into an SM of sm_90, two into
# one of sm_80, one into any other.
_ON_CHIP = 74 * 1024
# A plan's largest request: the last warp of a block may hold less than it has room for.
MOST_SHARED = _ON_CHIP + 32 * _ACCESS
_LARGEST_CLUSTER = 8  # the portable limit
_WAVES = 8  # blocks per SM that keep the memory busy
_MAX_PARTS = 1024
_MAX_ROWS = 65535  # of a grid's second dimension; the kernels loop over the rest


@dataclass(frozen=True)
class Device:
    """What a plan must know of a GPU.

    Attributes:
        multiprocessors: How many it has.
        architecture: Compute capability, 90 for 9.0.
    """

    multiprocessors: int
    architecture: int


@dataclass(frozen=True)
class Input:
    """One input as the kernels see it.

    Attributes:
        dtype: A key of `CTYPES`.
        rows: Examples.
        columns: Elements of an example.
        wide: Every tensor can be read in whole 16-byte vectors.
        plain: Step and bounds are numbers, and there is no origin, ball, mask or clip_grad.
    """

    dtype: str
    rows: int
    columns: int
    wide: bool
    plain: bool

    @property
    def vector(self) -> int:
        """Elements of one access."""
        return _ACCESS // CTYPES[self.dtype][1] if self.wide else 1


@dataclass(frozen=True)
class Launch:
    """One kernel launch.

    Attributes:
        kernel: C++ name of the instantiation.
        source: Index of the input that it works on.
        grid: Blocks along x and y.
        threads: Threads of a block.
        shared: Bytes of dynamic shared memory.
        group: Threads of a block that share one example.
        cluster: Blocks that share one example.
        parts: Into how many parts this input's examples are cut for reduction.
        first_part: Where these begin among the parts of all inputs.
        projecting: The perturbation is reduced and not the gradient.
    """

    kernel: str
    source: int
    grid: tuple[int, int]
    threads: int = _BLOCK
    shared: int = 0
    group: int = 1
    cluster: int = 1
    parts: int = 0
    first_part: int = 0
    projecting: bool = False


@dataclass(frozen=True)
class Plan:
    """The launches of one call, in order.

    Attributes:
        launches: What is launched.
        parts: Parts of an example over all inputs, whose sums the call must have room for; 0: none.
    """

    launches: tuple[Launch, ...]
    parts: int = 0


def kernel_name(kernel: str, *arguments: object) -> str:
    """The C++ name of an instantiation."""
    return f"torchfgsm::perturb_{kernel}<{', '.join(map(str, arguments))}>"


def instantiations(dtypes: Sequence[str] = tuple(CTYPES)) -> list[str]:
    """Every kernel that a plan can ask for."""
    names = []
    for dtype in dtypes:
        ctype, size = CTYPES[dtype]
        wide = _ACCESS // size
        names.append(kernel_name("rows", ctype, wide, "false"))
        for vector in (wide, 1):
            names.append(kernel_name("rows", ctype, vector, "true"))
            names += [kernel_name(k, ctype, vector) for k in ("linf", "partial", "apply")]
    return names


@functools.lru_cache(maxsize=4096)
def plan(inputs: tuple[Input, ...], norm: str, shrinks: bool, device: Device) -> Plan:
    """The launches that perturb inputs whose norm is taken jointly.

    Args:
        inputs: One, or all the inputs of a joint norm.
        norm: "linf", "l2" or "l1".
        shrinks: Perturbations are projected to an L2 ball, which takes a second reduction.
        device: The GPU.

    Returns:
        The plan. Without a reduction, or with examples that fit on the chip, one launch an input.
    """
    if norm == "linf":
        return Plan(tuple(_linf(i, given, device) for i, given in enumerate(inputs)))
    if len(inputs) == 1:
        on_chip = _rows(0, inputs[0], device)
        if on_chip is not None:
            return Plan((on_chip,))
    return _in_parts(inputs, shrinks, device)


def _linf(index: int, given: Input, device: Device) -> Launch:
    ctype = CTYPES[given.dtype][0]
    if given.plain:
        vectors = given.rows * given.columns // given.vector
        blocks = min(-(-vectors // (2 * _BLOCK)), device.multiprocessors * _WAVES)
        return Launch(kernel_name("linf", ctype, given.vector), index, (max(1, blocks), 1))
    # A block takes one example; several small ones share one.
    small = given.columns // given.vector < _BLOCK // 2
    on_chip = _rows(index, given, device) if small else None
    return on_chip or _apply(index, given, device)


def _rows(index: int, given: Input, device: Device) -> Launch | None:
    """One launch with each example on the chip, or None where it does not fit."""
    ctype, size = CTYPES[given.dtype]
    vectors = given.columns // given.vector
    group = min(_THREADS, _power_of_two(-(-vectors // _PER_THREAD)))
    cluster = _power_of_two(-(-given.columns * size // _ON_CHIP))
    if cluster > (_LARGEST_CLUSTER if device.architecture >= 90 else 1):
        return None
    threads = max(group, _BLOCK)
    lanes = group * cluster
    full, rest = divmod(vectors, lanes)
    if group == threads:
        held = full * threads + min(threads, -(-rest // (32 * cluster)) * 32)
    else:
        held = (full + (rest > 0)) * threads
    plain = given.plain and given.wide
    return Launch(
        kernel_name("rows", ctype, given.vector, str(not plain).lower()),
        index,
        (-(-given.rows // (threads // group)) * cluster, 1),
        threads=threads,
        shared=held * given.vector * size,
        group=group,
        cluster=cluster,
    )


def _in_parts(inputs: Sequence[Input], shrinks: bool, device: Device) -> Plan:
    """Sums of parts of each example first, then the step; twice the sums where a ball shrinks."""
    first, sums = 0, []
    for index, given in enumerate(inputs):
        vectors = given.columns // given.vector
        parts = min(
            -(-vectors // (_BLOCK * _PER_THREAD)),
            -(-device.multiprocessors * _WAVES // given.rows),
            _MAX_PARTS,
        )
        name = kernel_name("partial", CTYPES[given.dtype][0], given.vector)
        grid = (parts, min(given.rows, _MAX_ROWS))
        sums.append(Launch(name, index, grid, parts=parts, first_part=first))
        first += parts
    again = [dataclasses.replace(launch, projecting=True) for launch in sums] if shrinks else []
    steps = [_apply(index, given, device) for index, given in enumerate(inputs)]
    return Plan((*sums, *again, *steps), first)


def _apply(index: int, given: Input, device: Device) -> Launch:
    vectors = given.columns // given.vector
    blocks = min(-(-vectors // (2 * _BLOCK)), -(-device.multiprocessors * _WAVES // given.rows))
    name = kernel_name("apply", CTYPES[given.dtype][0], given.vector)
    return Launch(name, index, (max(1, blocks), min(given.rows, _MAX_ROWS)))


def _power_of_two(count: int) -> int:
    """The smallest power of two that is at least `count`, and at least 1."""
    return 1 << max(count - 1, 0).bit_length()
