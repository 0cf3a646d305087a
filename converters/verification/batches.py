"""The inputs on which a converted model is compared, by what its graph tells: kinks, pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from torchfgsm.converters.annotation import Array, Port
from torchfgsm.converters.errors import ConversionError
from torchfgsm.converters.onnx_side import graph as onnx_graph

_SWITCHES = {
    "Clip", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min",
}  # fmt: skip
_VIEWS = {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
# Keras 3 lets negative indices count from the end of the table.
_INDEX_STEPS = _VIEWS | {"Add", "Clip", "Max", "Min", "Where"}
_PIXEL_SCALE = 50.0
_PIXEL_OFFSET = 16.0
_MOST_KINKS = 16
_LARGEST_KINK = 1e4


@dataclass(frozen=True)
class Hints:
    """What is known of good inputs.

    Attributes:
        kinks: values at which an operation of the graph has a kink.
        limits: for inputs that are indices, by ONNX value, the size of the smallest table.
        pixels: ONNX values of the inputs that expect numbers of 0 to 255.
    """

    kinks: tuple[float, ...] = ()
    limits: Mapping[str, int] = field(default_factory=dict)
    pixels: frozenset[str] = frozenset()


def hints_of(graph: Any) -> Hints:
    """Reads an ONNX model; weights may be initializers, constants must be."""
    constants = onnx_graph.constants(graph)
    inputs = [value.name for value in graph.graph.input]
    kinks = sorted({k for k in _kinks(graph, constants) if abs(k) <= _LARGEST_KINK})
    limits = {name: _limits(graph, name, constants) for name in inputs}
    return Hints(
        tuple(kinks[:_MOST_KINKS]),
        {name: min(found) for name, found in limits.items() if found},
        frozenset(name for name in inputs if _takes_pixels(graph, name, constants)),
    )


def _kinks(graph: Any, constants: Mapping[str, Array]) -> Iterator[float]:
    for node in graph.graph.node:
        attributes = {a.name: a.f for a in node.attribute}
        if node.op_type in _SWITCHES:
            found = [constants[name] for name in node.input if name in constants]
            yield from (float(a.item()) for a in found if a.size == 1 and a.dtype.kind == "f")
        if node.op_type == "Clip":
            yield from (attributes[key] for key in ("min", "max") if key in attributes)
        if node.op_type == "ThresholdedRelu":
            yield attributes.get("alpha", 1.0)
        if node.op_type == "Shrink":
            yield from (side * attributes.get("lambd", 0.5) for side in (-1, 1))
        if node.op_type == "HardSigmoid":
            slope, offset = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
            yield from (-offset / slope, (1 - offset) / slope)


def _limits(graph: Any, name: str, constants: Mapping[str, Array]) -> list[int]:
    """Returns the sizes of the tables that an input is an index of."""
    indices, found = {name}, []
    for node in graph.graph.node:
        names = list(node.input)
        if node.op_type == "Gather" and names[1] in indices and names[0] in constants:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            found.append(constants[names[0]].shape[axis])
        elif node.op_type == "OneHot" and names[0] in indices and names[1] in constants:
            found.append(int(constants[names[1]].item()))
        elif node.op_type in _INDEX_STEPS and indices.intersection(names):
            indices.update(node.output)
    return found


def _takes_pixels(graph: Any, name: str, constants: Mapping[str, Array]) -> bool:
    """Whether the first thing that happens to an input is to be divided by about 255."""
    values = {name}
    for node in graph.graph.node:
        if not values.intersection(node.input):
            continue
        if node.op_type in _VIEWS:
            values.update(node.output)
        known = [constants[n] for n in node.input if n in constants]
        sizes = [np.abs(array).max() for array in known if array.size and array.dtype.kind == "f"]
        if not sizes:
            continue
        scaled = node.op_type == "Mul" and sizes[0] <= 1 / _PIXEL_SCALE
        divided = node.op_type == "Div" and sizes[0] >= _PIXEL_SCALE
        shifted = node.op_type in ("Add", "Sub") and sizes[0] >= _PIXEL_OFFSET
        if scaled or divided or shifted:
            return True
    return False


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
