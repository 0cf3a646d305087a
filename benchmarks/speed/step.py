"""The step alone against a copy of as many bytes: `python -m benchmarks.speed.step`.

`torchfgsm.perturb` on the device, the same step in plain torch operations, these compiled, and the
steps of the peers, in three norms. Every result is first compared with the step computed in
float64. The copy moves each byte of x once in and once out, the step those of x, the gradient and
the result: so ratios are of time per byte. Inputs and results are taken in turn from sets that
together exceed the caches. The host cost is that of a call on a tiny tensor.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence

import torch

from benchmarks import plots
from benchmarks.rows import Row
from benchmarks.speed.command import Options, run
from benchmarks.speed.contest import Pace, Provider, compete
from benchmarks.speed.step_inputs import Inputs, Step
from benchmarks.speed.step_providers import (
    COMPILED,
    EAGER,
    MAKERS,
    ON_HOST,
    Maker,
    Settings,
    difference,
)

REFERENCE = "copy"

_NORMS = ("linf", "l2", "l1")
_MB = 1_000_000
_EXAMPLE = 3072
_SIZES = {
    "cuda": (1, 4, 16, 64, 256, 1000, 4000),
    "cpu": (1, 16, 64),
}
_EXAMPLES = (784, 12288, 150_528, 1_500_000)
_EXAMPLES_AT = {"cuda": 256, "cpu": 16}
# On so little the device is never behind the host.
_TINY = (4, 16)

# What a device may allocate, in bytes.
_LIMIT = 60 * 2**30


def measure(options: Options) -> Iterator[list[Row]]:
    """The rows, case by case."""
    device = options.device
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, _LIMIT / total), device)
    tiny = Pace(0.1 if options.quick else 2.0, 1.0, host=True)
    for norm in _NORMS:
        yield host_cost(device, norm, tiny)
    if options.quick:
        for norm in _NORMS:
            # Compiling takes seconds: once is enough to see that it works.
            makers = [made for made in MAKERS if made.name != COMPILED or norm == "linf"]
            yield measure_case(device, norm, torch.float32, (2, 784), Pace(0.1, 0.2), makers)
        return
    for dtype in (torch.float32, torch.bfloat16):
        for norm in _NORMS:
            for shape in _shapes(device.type, dtype):
                yield measure_case(device, norm, dtype, shape, Pace(1.5, 4.0))


def _shapes(device: str, dtype: torch.dtype) -> list[tuple[int, int]]:
    """Batch and length of an example: by size first, then by length at one size."""
    sizes = [(size, _EXAMPLE) for size in _SIZES[device]]
    sizes += [(_EXAMPLES_AT[device], example) for example in _EXAMPLES]
    return [(max(1, size * _MB // (example * dtype.itemsize)), example) for size, example in sizes]


def measure_case(
    device: torch.device,
    norm: str,
    dtype: torch.dtype,
    shape: tuple[int, int],
    pace: Pace,
    makers: Sequence[Maker] = MAKERS,
) -> list[Row]:
    """The rows of one case, one per provider."""
    batch, example = shape
    settings = Settings.of(norm, example)
    inputs = Inputs.random(batch, example, dtype, device)
    size = batch * example * dtype.itemsize
    case = Row(
        benchmark="step",
        provider="",
        attack="step",
        norm=norm,
        dtype=str(dtype).removeprefix("torch."),
        batch=batch,
        example=example,
    )
    torch.compiler.reset()
    x = inputs.sets[0][0]
    copy = Provider(
        REFERENCE,
        lambda: inputs.in_turn(lambda x, grad: x.clone()),
        lambda result: "" if torch.equal(result, x) else "it is not a copy",
        lambda: torch.__version__,
        bytes=2 * size,
    )
    steps = [
        dataclasses.replace(_provider(made, settings, inputs, inputs.in_turn), bytes=3 * size)
        for made in makers
    ]
    return compete(case, [copy, *steps], device, pace, reference=REFERENCE)


def _provider(
    made: Maker, settings: Settings, inputs: Inputs, calls: Callable[[Step], Callable[[], object]]
) -> Provider:
    return Provider(
        made.name,
        lambda: calls(made.make(settings, inputs)),
        lambda result: difference(result, *inputs.sets[0], settings),
        made.version,
        note=made.note,
    )


def host_cost(device: torch.device, norm: str, pace: Pace) -> list[Row]:
    """What a call costs the host; ratios to the plain torch operations."""
    batch, example = _TINY
    settings = Settings.of(norm, example)
    inputs = Inputs.random(batch, example, torch.float32, device)
    case = Row(
        benchmark="host cost",
        provider="",
        attack="step",
        norm=norm,
        batch=batch,
        example=example,
    )
    providers = [_provider(made, settings, inputs, inputs.first) for made in ON_HOST]
    rows = compete(case, providers, device, pace, reference=EAGER)
    # The memory of a tiny tensor is not worth a number.
    return [dataclasses.replace(row, peak_mib=None, memory="") for row in rows]


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; 0 when every case was measured."""
    return run("step", __doc__ or "", measure, plots.bandwidth, arguments)


if __name__ == "__main__":
    sys.exit(main())
