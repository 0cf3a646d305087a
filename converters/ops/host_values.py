"""Shape arithmetic on Python numbers, which needs no copy between device and host.

A host value is a size, or what integer operations make of sizes and constants: a Python number
(rank 0) or a list of them (rank 1). :func:`analyse` finds them in a graph before it is built. In
torch.compile and torch.export the numbers are symbolic sizes.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torchfgsm.converters.ops.operation import Host, argument, operation

__all__ = ["Evaluate", "HostTensor", "argument", "build", "evaluator"]

Evaluate = Callable[..., Any]
_Make = Callable[[Mapping[str, Any], int], Evaluate | None]


class HostTensor(nn.Module):
    """Makes a tensor of a host value, on the device that the module is on.

    Args:
        dtype: of the tensor; float32 follows the module's own dtype.
    """

    like: Tensor

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("like", torch.zeros((), dtype=dtype), persistent=False)

    def forward(self, value: Any) -> Tensor:
        """Returns the tensor of a number or of a list of numbers."""
        if not isinstance(value, (list, tuple)):
            return self.like.new_full((), value)
        # Filled on the device: torch.tensor would copy from the host.
        made = [self.like.new_full((1,), number) for number in value]
        return torch.cat(made) if made else self.like.new_empty((0,))


def evaluator(operation_type: str, attributes: Mapping[str, Any], outputs: int) -> Evaluate | None:
    """Returns the function on Python numbers that a node computes, None where there is none.

    Args:
        operation_type: the ONNX operation.
        attributes: its attributes.
        outputs: how many outputs it has.

    Returns:
        A function of the inputs' numbers, where None stands for a number that is not known yet.
    """
    make = _MAKERS.get(operation_type)
    return make(attributes, outputs) if make else None


def build(node: Any, graph: Any) -> tuple[nn.Module, tuple[str, ...]]:
    """Builds a node that computes a host value."""
    if node.operation_type in ("Shape", "Size"):
        function = shape_of(node.operation_type, node.attributes)
        return operation(function, node.input_values[0])
    found = evaluator(node.operation_type, node.attributes, len(node.output_values))
    assert found is not None  # noqa: S101 - the analysis called it
    arguments = []
    for i, name in enumerate(node.input_values):
        arguments.append(argument(node, graph, i) if name not in graph.hosts else Host(name))
    return operation(found, *arguments)


def shape_of(operation_type: str, attributes: Mapping[str, Any]) -> Evaluate:
    """Returns the function of a tensor that a Shape or Size node computes."""
    if operation_type == "Size":
        return _size
    return functools.partial(_shape, start=attributes.get("start"), end=attributes.get("end"))


def _shape(x: Tensor, start: int | None, end: int | None) -> list[int]:
    return list(x.shape)[start:end]


def _size(x: Tensor) -> int:
    return math.prod(x.shape)


def _elementwise(function: Evaluate, *values: Any) -> Any:
    if not any(isinstance(v, list) for v in values):
        return None if any(v is None for v in values) else function(*values)
    # One list of length 1 fits any other, one of none too. torch 2.6 compiles no max with a key.
    length = max([len(v) for v in values if isinstance(v, list) and len(v) != 1] or [1])
    columns = [v * length if isinstance(v, list) and len(v) == 1 else v for v in values]
    columns = [c if isinstance(c, list) else [c] * length for c in columns]
    return [_elementwise(function, *row) for row in zip(*columns, strict=True)]


def _divide(a: Any, b: Any) -> Any:
    # ONNX rounds towards zero, as C does.
    quotient = a // b
    return quotient + 1 if quotient < 0 and quotient * b != a else quotient


def _extremum(function: Evaluate, *values: Any) -> Any:
    return functools.reduce(function, values)


def _where(condition: Any, yes: Any, no: Any) -> Any:
    return yes if condition else no


def _invert(value: Any) -> Any:
    return not value


def _both(a: Any, b: Any) -> Any:
    return a and b


def _either(a: Any, b: Any) -> Any:
    return a or b


def _cast(kind: type, value: Any) -> Any:
    if isinstance(value, list):
        return [_cast(kind, v) for v in value]
    # A symbolic size stays one: int() would fix it.
    if value is None or (kind is int and not isinstance(value, (bool, float))):
        return value
    return value if isinstance(value, kind) else kind(value)


def _gather(data: list[Any], indices: Any) -> Any:
    return [data[i] for i in indices] if isinstance(indices, list) else data[indices]


def _slice(data: list[Any], starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    (start,), (end,) = starts, ends
    return data[slice(start, end, steps[0] if steps else None)]


def _concat(*lists: list[Any]) -> list[Any]:
    return [value for values in lists for value in values]


def _squeeze(data: list[Any], axes: Any = None) -> Any:
    (value,) = data
    return value


def _unsqueeze(value: Any, axes: Any = None) -> Any:
    if isinstance(value, list) or len(axes or [0]) > 1:
        raise ValueError("two dimensions are no list of numbers")
    return [value]


def _reshape(value: Any, shape: list[int]) -> Any:
    if len(shape) > 1:
        raise ValueError("two dimensions are no list of numbers")
    if shape:
        return value if isinstance(value, list) else [value]
    return value[0] if isinstance(value, list) else value


def _split(count: int, data: list[Any], sizes: Sequence[int] | None = None) -> Any:
    length = -(-len(data) // count)
    ends = [sum(sizes[: i + 1]) if sizes else (i + 1) * length for i in range(count)]
    parts = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return parts[0] if count == 1 else tuple(parts)


def _reduce(function: Evaluate, keep: bool, data: list[Any], axes: Any = None) -> Any:
    result = None if any(v is None for v in data) else function(data)
    return [result] if keep else result


def _plain(function: Evaluate) -> _Make:
    return lambda attributes, outputs: function


def _each(function: Evaluate) -> _Make:
    return _plain(functools.partial(_elementwise, function))


def _reduction(function: Evaluate) -> _Make:
    return lambda attributes, outputs: functools.partial(
        _reduce, function, bool(attributes.get("keepdims", 1))
    )


def _make_cast(attributes: Mapping[str, Any], outputs: int) -> Evaluate | None:
    from onnx import TensorProto

    kinds = {
        TensorProto.INT32: int,
        TensorProto.INT64: int,
        TensorProto.BOOL: bool,
        TensorProto.FLOAT: float,
        TensorProto.DOUBLE: float,
    }
    kind = kinds.get(attributes["to"])
    return functools.partial(_cast, kind) if kind else None


def _make_slice(attributes: Mapping[str, Any], outputs: int) -> Evaluate:
    if "starts" in attributes:
        return functools.partial(_slice, starts=attributes["starts"], ends=attributes["ends"])
    return _slice


def _make_split(attributes: Mapping[str, Any], outputs: int) -> Evaluate:
    if "split" in attributes:
        return functools.partial(_split, outputs, sizes=attributes["split"])
    return functools.partial(_split, outputs)


_MAKERS: dict[str, _Make] = {
    "Abs": _each(abs),
    "Add": _each(operator.add),
    "And": _each(_both),
    "Cast": _make_cast,
    "Concat": _plain(_concat),
    "Div": _each(_divide),
    "Equal": _each(operator.eq),
    "Gather": _plain(_gather),
    "Greater": _each(operator.gt),
    "GreaterOrEqual": _each(operator.ge),
    "Identity": _each(lambda value: value),
    "Less": _each(operator.lt),
    "LessOrEqual": _each(operator.le),
    "Max": _each(functools.partial(_extremum, torch.sym_max)),
    "Min": _each(functools.partial(_extremum, torch.sym_min)),
    "Mod": lambda attributes, outputs: (
        None if attributes.get("fmod") else functools.partial(_elementwise, operator.mod)
    ),
    "Mul": _each(operator.mul),
    "Neg": _each(operator.neg),
    "Not": _each(_invert),
    "Or": _each(_either),
    "ReduceMax": _reduction(functools.partial(functools.reduce, torch.sym_max)),
    "ReduceMin": _reduction(functools.partial(functools.reduce, torch.sym_min)),
    "ReduceProd": _reduction(math.prod),
    "ReduceSum": _reduction(sum),
    "Reshape": _plain(_reshape),
    "Slice": _make_slice,
    "Split": _make_split,
    "Squeeze": _plain(_squeeze),
    "Sub": _each(operator.sub),
    "Unsqueeze": _plain(_unsqueeze),
    "Where": _each(_where),
}
