"""The inputs on which a converted model is compared with its original."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from torchfgsm.converters.annotation import Array, Port
from torchfgsm.converters.errors import ConversionError

Data = Mapping[str, npt.ArrayLike] | npt.ArrayLike
"""Examples: an array (N, ...), or a mapping of them by input name."""

_DATA_LIMIT = 64


def batches(ports: Sequence[Port], data: Data | None) -> dict[str, dict[str, Array]]:
    """Returns named batches of inputs: random, blank and saturated ones, and the user's data.

    Raises:
        ConversionError: the data do not fit the inputs, or an input's size is known from neither.
    """
    given = None if data is None else _given(ports, data)
    shapes = {port.name: _shape(port, given) for port in ports}
    random = np.random.default_rng(0)
    found: dict[str, dict[str, Array]] = {}
    for count in (5, 1):
        for kind in ("random", "blank", "saturated"):
            found[f"{kind} x{count}"] = {
                port.name: _fill(kind, random, (count, *shapes[port.name]), port.dtype)
                for port in ports
            }
    if given is not None:
        found["data"] = {name: array[:_DATA_LIMIT] for name, array in given.items()}
    return found


def _given(ports: Iterable[Port], data: Data) -> dict[str, Array]:
    ports = list(ports)
    names = [port.name for port in ports]
    if not isinstance(data, Mapping):
        if len(names) != 1:
            raise ConversionError(f"expected data as a dict of {names}, got one array")
        data = {names[0]: data}
    if not set(names) <= set(data):
        raise ConversionError(f"expected data for the inputs {names}, got {list(data)}")
    found = {}
    for port in ports:
        array = np.asarray(data[port.name]).astype(port.dtype)
        fits = array.ndim == len(port.shape) + 1 and len(array) > 0
        if not fits or any(
            n not in (None, m) for n, m in zip(port.shape, array.shape[1:], strict=True)
        ):
            raise ConversionError(
                f"expected data for {port.name!r} of shape (N, {', '.join(map(str, port.shape))}), "
                f"N > 0, got {array.shape}"
            )
        found[port.name] = array
    return found


def _shape(port: Port, given: Mapping[str, Array] | None) -> tuple[int, ...]:
    if given is not None:
        return given[port.name].shape[1:]
    if None in port.shape:
        raise ConversionError(
            f"input {port.name!r} has a free size, {port.shape} without the batch: "
            "give data= with examples of the size to compare on"
        )
    return tuple(n for n in port.shape if n is not None)


def _fill(kind: str, random: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    if kind == "random" and np.dtype(dtype).kind == "f":
        return random.random(shape).astype(dtype)
    return np.full(shape, 0 if kind == "blank" else 1, dtype)
