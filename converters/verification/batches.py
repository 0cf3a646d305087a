"""The inputs on which a converted model is compared with its original."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from torchfgsm.converters.annotation import Array, Port
from torchfgsm.converters.errors import ConversionError
from torchfgsm.converters.verification.hints import Hints

Data = Mapping[str, npt.ArrayLike] | npt.ArrayLike
"""Examples: an array (N, ...), or a mapping of them by input name."""

_DATA_LIMIT = 64
_ELEMENTS = 2**20
"""Numbers that one batch may hold: a network of images in float64 needs gigabytes beyond it."""
_CONSTANTS = (-3.0, -2.5, -1.0, -0.5, 0.0, 0.5, 1.0, 2.5, 3.0, 6.0)
_PIXEL_CONSTANTS = (127.5, 255.0)


def batches(
    ports: Sequence[Port], data: Data | None, hints: Hints | None = None
) -> dict[str, dict[str, Array]]:
    """Returns named batches of inputs: five random examples, one, kinks, and the user's data.

    The kinks are what random numbers never hit and real images do: examples of one value
    throughout (the points at which activations have their kinks), half of zeros, equal neighbours,
    whole numbers, and a board of zeros and ones.

    Raises:
        ConversionError: the data do not fit the inputs, or an input's size is known from neither.
    """
    hints = hints or Hints()
    given = None if data is None else _given(ports, data)
    scalars = {port.name: _scalar(port, given, hints) for port in ports if port.scalar}
    fills = [_Fill(port, _shape(port, given), hints) for port in ports if not port.scalar]
    if not fills:
        raise ConversionError("expected an input of examples (N, ...), got single numbers alone")
    found = {
        f"random x{count}": {fill.port.name: fill.random(count) for fill in fills}
        for count in (5, 1)
    }
    found |= _split("kinks", {fill.port.name: fill.kinks() for fill in fills})
    if given is not None:
        rows = {n: array[:_DATA_LIMIT] for n, array in given.items() if n not in scalars}
        found |= _split("data", rows)
    size = next((port.batch for port in ports if port.batch is not None), None)
    if size is not None:
        parts = [_of_one_size(title, batch, size) for title, batch in found.items()]
        found = {title: batch for part in parts for title, batch in part.items()}
    return {title: {**batch, **scalars} for title, batch in found.items()}


def training_batch(
    ports: Sequence[Port], count: int, hints: Hints | None = None
) -> dict[str, Array]:
    """Returns random inputs for a training step, (count, ...) each."""
    return {p.name: _Fill(p, _shape(p, None), hints or Hints()).random(count) for p in ports}


class _Fill:
    """Fills the examples of one input."""

    def __init__(self, port: Port, shape: tuple[int, ...], hints: Hints) -> None:
        self.port, self.shape = port, shape
        self._float = np.dtype(port.dtype).kind == "f"
        self._limit = 2 if port.dtype == "bool" else hints.limits.get(port.tensor, 2)
        self._pixels = port.tensor in hints.pixels
        constants = {*_CONSTANTS, *hints.kinks, *(_PIXEL_CONSTANTS if hints.pixels else ())}
        self._constants = sorted(constants)
        self._random = np.random.default_rng([0, *port.name.encode()])

    def random(self, count: int) -> Array:
        """Returns random examples, (count, ...)."""
        return self._draw((count, *self.shape)).astype(self.port.dtype)

    def kinks(self) -> Array:
        """Returns one example of each kind, the same kinds for every input."""
        size = int(np.prod(self.shape))
        half = self._draw((size,))
        half[: size // 2] = 0
        neighbours = np.repeat(self._draw((size // 2 + 1,)), 2)[:size]
        board = np.indices(self.shape).sum(axis=0).ravel() % 2
        whole = np.round(self._draw((size,)))
        constants = [np.full(size, self._value(c)) for c in self._constants]
        rows = np.stack([half, neighbours, board, whole, *constants])
        return rows.reshape(-1, *self.shape).astype(self.port.dtype)

    def _draw(self, shape: tuple[int, ...]) -> Array:
        values = self._random.random(shape)
        if self._float:
            return values * 255 if self._pixels else values
        return np.floor(self._limit * values)

    def _value(self, constant: float) -> float:
        return constant if self._float else int(abs(constant)) % self._limit


def _split(title: str, batch: dict[str, Array]) -> dict[str, dict[str, Array]]:
    """Returns parts of the batch that are small enough for one call."""
    count = len(next(iter(batch.values())))
    size = sum(array.size for array in batch.values()) // count
    step = max(1, min(count, _ELEMENTS // max(size, 1)))
    starts = range(0, count, step)
    return {
        title if step == count else f"{title} from {i}": {
            name: array[i : i + step] for name, array in batch.items()
        }
        for i in starts
    }


def _of_one_size(title: str, batch: dict[str, Array], size: int) -> dict[str, dict[str, Array]]:
    """Returns parts of the batch of just this size; the last example fills the last one up."""
    count = len(next(iter(batch.values())))
    rest = -count % size
    whole = {name: np.concatenate([x, x[-1:].repeat(rest, 0)]) for name, x in batch.items()}
    return {
        title if count + rest == size else f"{title} from {i}": {
            name: array[i : i + size] for name, array in whole.items()
        }
        for i in range(0, count, size)
    }


def _scalar(port: Port, given: Mapping[str, Array] | None, hints: Hints) -> Array:
    """Returns the number that goes with every batch: the user's, or one at random."""
    if given is not None:
        return given[port.name]
    return _Fill(port, (), hints).random(1).reshape(())


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
        if port.scalar and array.size == 1:
            found[port.name] = array.reshape(())
            continue
        fits = array.ndim == len(port.shape) + 1 and len(array) > 0
        if port.scalar:
            raise ConversionError(f"expected one number for {port.name!r}, got {array.shape}")
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
