"""Finds the host values of a graph before it is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from torchfgsm.converters.ops.host_values import evaluator

# What is known of a host value: a number or a list, None for each number that is not known yet.
Known = Mapping[str, Any]

_LARGEST = 64
# These move numbers but compute none, so that Python's floats are as good as float32.
_EXACT = frozenset(
    ("Cast", "Concat", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Unsqueeze")
)


class _Unmeasured(list[Any]):
    """A list of numbers whose length is not known; it is as long as any index in a model."""

    def __init__(self) -> None:
        super().__init__([None] * 16)


@dataclass(frozen=True)
class LoopValues:
    """What of a Loop are host values.

    Attributes:
        body: what is known of the body's inputs.
        carried: which carried values stay host values from turn to turn.
        condition: whether the condition does.
    """

    body: dict[str, Any]
    carried: frozenset[int]
    condition: bool


def analyse(graph: Any, outer: Known) -> dict[str, Any]:
    """Returns the host values of a graph.

    Args:
        graph: a GraphProto after shape inference, whose weights are inputs.
        outer: the host values and constants known around it, its inputs among them.

    Returns:
        What is known of each, constants and ``outer`` among them.
    """
    known = {**outer, **constants(graph)}
    shapes = _shapes(graph)
    for node in graph.node:
        if node.op_type == "Loop":
            found = _loop_outputs(node, known)
        elif node.op_type in ("Shape", "Size"):
            found = [_measured(node, shapes, known)]
        else:
            found = _evaluated(node, known)
        known.update({n: v for n, v in zip(node.output, found, strict=False) if n and v != []})
    return known


def constants(graph: Any) -> dict[str, Any]:
    """Returns the small constants of a graph that can be host values."""
    from onnx import numpy_helper

    arrays = {
        t.name: numpy_helper.to_array(t)
        for t in graph.initializer
        if len(t.dims) <= 1 and int(np.prod(t.dims)) <= _LARGEST
    }
    return {name: array.tolist() for name, array in arrays.items() if array.dtype.kind in "biuf"}


def folded(graph: Any, known: Known) -> dict[str, npt.NDArray[Any]]:
    """Returns the values that nodes compute from nothing but what is known, as arrays."""
    from onnx import helper

    types = {
        info.name: info.type.tensor_type.elem_type for info in [*graph.value_info, *graph.output]
    }
    arrays = {}
    for node in graph.node:
        for name in node.output:
            if name in known and types.get(name) and _complete(known[name]):
                dtype = helper.tensor_dtype_to_np_dtype(types[name])
                arrays[name] = np.array(known[name], dtype)
    return arrays


def loop_values(node: Any, known: Known) -> LoopValues:
    """Returns what of a Loop are host values, given what is known around it."""
    body = next(a.g for a in node.attribute if a.name == "body")
    starts = dict(enumerate(node.input[2:]))
    carried = {i for i, name in starts.items() if name in known and _whole(known[name])}
    condition = not node.input[1] or node.input[1] in known
    while True:
        given: dict[str, Any] = {body.input[0].name: None}
        if condition:
            given[body.input[1].name] = None
        for i in carried:
            name = body.input[i + 2].name
            same = body.output[i + 1].name == name
            given[name] = known[starts[i]] if same else _blurred(known[starts[i]])
        # A body's own names hide those of the graph around it.
        hidden = {value.name for value in body.input}
        inside = analyse(body, {n: v for n, v in known.items() if n not in hidden} | given)
        kept = {i for i in carried if _alike(inside, body.output[i + 1].name, given, body, i)}
        stays = condition and body.output[0].name in inside
        if (kept, stays) == (carried, condition):
            return LoopValues(given, frozenset(carried), condition)
        carried, condition = kept, stays


def _loop_outputs(node: Any, known: Known) -> list[Any]:
    found = loop_values(node, known)
    body = next(a.g for a in node.attribute if a.name == "body")
    return [
        found.body[body.input[i + 2].name] if i in found.carried else []
        for i in range(len(node.input) - 2)
    ]


def _alike(inside: Known, name: str, given: Known, body: Any, index: int) -> bool:
    before = given[body.input[index + 2].name]
    return name in inside and _rank(inside[name]) == _rank(before) and _whole(inside[name])


def _evaluated(node: Any, known: Known) -> list[Any]:
    """Returns what is known of a node's outputs, [] for what is no host value."""
    from onnx import helper

    names = list(node.input)
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    function = evaluator(node.op_type, attributes, len(node.output))
    if node.domain or function is None or any(n and n not in known for n in names):
        return []
    values = [known[n] if n else None for n in names]
    try:
        result = function(*values)
    except (IndexError, TypeError, ValueError, ZeroDivisionError):
        return []
    results = list(result) if isinstance(result, tuple) else [result]
    floats = any(not _whole(value) for value in results)
    if any(not _flat(value) for value in results) or (floats and node.op_type not in _EXACT):
        return []
    if any(isinstance(v, _Unmeasured) for v in values):
        results = [_Unmeasured() if isinstance(r, list) else r for r in results]
    return results


def _measured(node: Any, shapes: Mapping[str, list[Any]], known: Known) -> Any:
    name = node.input[0]
    shape: Any = shapes.get(name)
    if name in known and not isinstance(known[name], _Unmeasured):
        shape = [len(known[name])] if isinstance(known[name], list) else None
    if node.op_type == "Size":
        return None if shape is None or None in shape else int(np.prod(shape))
    ends = {a.name: a.i for a in node.attribute}
    if shape is None:
        return _Unmeasured()
    # An empty shape, of a scalar, is left to the device.
    return shape[ends.get("start") : ends.get("end")]


def _shapes(graph: Any) -> dict[str, list[Any]]:
    infos = [*graph.input, *graph.value_info, *graph.output]
    shapes = {
        info.name: [d.dim_value if d.HasField("dim_value") else None for d in dims.dim]
        for info in infos
        if info.type.tensor_type.HasField("shape")
        for dims in [info.type.tensor_type.shape]
    }
    return shapes | {t.name: list(t.dims) for t in graph.initializer}


def _rank(value: Any) -> int:
    return int(isinstance(value, list))


def _flat(value: Any) -> bool:
    return not (isinstance(value, list) and any(isinstance(v, list) for v in value))


def _whole(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return not any(isinstance(v, float) for v in values)


def _complete(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return not isinstance(value, _Unmeasured) and None not in values


def _blurred(value: Any) -> Any:
    if isinstance(value, _Unmeasured):
        return _Unmeasured()
    return [None] * len(value) if isinstance(value, list) else None
