"""Providers of one case: each is checked first, and timed only when its result is right."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from benchmarks.rows import Row, on_device
from benchmarks.speed.timing import Times, interleaved, reason_of

Check = Callable[[Any], str]


@dataclass(frozen=True)
class Provider:
    """Someone who computes a case.

    Attributes:
        name: As in the rows.
        make: Builds the call; whatever it raises is the reason why there is none.
        check: Says what is wrong with the result of the first call, "" when nothing is.
        version: Gives the version; asked after `make`.
        bytes: What a call must read and write at least, or None.
        note: What is worth knowing about it, for the row.
        peak_mib: Measured memory, where the device does not tell it.
    """

    name: str
    make: Callable[[], Callable[[], object]]
    check: Check
    version: Callable[[], str] = lambda: ""
    bytes: int | None = None
    note: str = ""
    peak_mib: Callable[[], float] | None = None


@dataclass(frozen=True)
class Pace:
    """How long to measure.

    Attributes:
        seconds: Of all rounds of a case together, about.
        sample_ms: Of one sample, at least.
        host: Time what the host is busy with, without waiting for the device.
    """

    seconds: float
    sample_ms: float
    host: bool = False


def compete(
    case: Row,
    providers: Iterable[Provider],
    device: torch.device,
    pace: Pace,
    *,
    reference: str,
) -> list[Row]:
    """The rows of one case.

    Args:
        case: The fields that all rows of the case share.
        providers: Who takes part.
        device: Where the case runs.
        pace: How long to measure.
        reference: Name of the provider to which the ratios are taken.

    Returns:
        One row per provider, in their order: timed, different or unavailable.
    """
    rows: dict[str, Row] = {}
    calls: dict[str, Callable[[], object]] = {}
    asked = list(providers)
    for provider in asked:
        found, call = _first_call(provider, device)
        rows[provider.name] = on_device(
            dataclasses.replace(
                case,
                provider=provider.name,
                provider_version=_version(provider),
                bytes=provider.bytes,
                reference=reference,
                **found,
            ),
            device,
        )
        if call is not None:
            calls[provider.name] = call
    times = interleaved(calls, device, **vars(pace))
    return [_timed(rows[p.name], times, rows, reference) for p in asked]


def _first_call(
    provider: Provider, device: torch.device
) -> tuple[dict[str, Any], Callable[[], object] | None]:
    """Status, reason and memory of the first call; the call itself when it may be timed."""
    before = 0
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    try:
        call = provider.make()
        result = call()
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
        wrong = provider.check(result)
    except Exception as error:  # whatever a peer raises is its row's reason
        return {"status": "unavailable", "reason": reason_of(error)}, None
    if wrong:
        return {"status": "different", "reason": wrong}, None
    found: dict[str, Any] = {"reason": provider.note}
    if device.type == "cuda":
        found.update(peak_mib=(peak - before) / 2**20, memory="allocated on the device")
    elif provider.peak_mib is not None:
        found.update(peak_mib=provider.peak_mib(), memory="saved for backward")
    return found, call


def _version(provider: Provider) -> str:
    try:
        return provider.version()
    except ImportError:
        return ""


def _timed(row: Row, all_times: dict[str, Times], rows: dict[str, Row], reference: str) -> Row:
    """The row with its times, where it has any."""
    times = all_times.get(row.provider)
    if times is None:
        return row
    if times.reason:
        return dataclasses.replace(row, status="unavailable", reason=times.reason)
    middle = times.percentile(50)
    base = all_times.get(reference)
    ratio = None
    if base is not None and base.rounds:
        ratio = median(own / other for own, other in zip(times.rounds, base.rounds, strict=True))
        per_byte = rows[reference].bytes
        if row.bytes and per_byte:
            ratio *= per_byte / row.bytes
    return dataclasses.replace(
        row,
        p20_ms=times.percentile(20),
        p50_ms=middle,
        p80_ms=times.percentile(80),
        cpu_ms=median(times.cpu) if times.cpu else None,
        gb_per_s=row.bytes / middle / 1e6 if row.bytes else None,
        ratio=ratio,
    )
