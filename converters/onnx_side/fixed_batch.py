"""ONNX files that were written for a batch of one size, as exporters do unless they are told.

A graph seldom depends on that size: where only the shapes it states hold it, they are freed, and
the file itself, run on batches of its own size, judges whether that was right.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from torchfgsm.converters.annotation import Array
from torchfgsm.converters.onnx_side import graph as onnx_graph

Call = Callable[[Mapping[str, Array]], list[Any]]


def batch_of(graph: Any) -> int | None:
    """Returns the one batch size that all inputs of a model state, None where it is free.

    Inputs that are one number have none.
    """
    weights = {tensor.name for tensor in graph.graph.initializer}
    inputs = [value for value in graph.graph.input if value.name not in weights]
    sizes = {_first(value) for value in inputs if not onnx_graph.is_scalar(value)}
    return sizes.pop() if len(sizes) == 1 else None


def freed(graph: Any, size: int) -> Any:
    """Returns a copy of a model that states no batch size, but computes the same for that one."""
    from onnx import shape_inference

    result = copy.deepcopy(graph)
    known = onnx_graph.constants(graph)
    inferred = shape_inference.infer_shapes(graph, data_prop=True).graph
    values = [*inferred.input, *inferred.value_info, *inferred.output]
    batched = {value.name for value in values if _first(value) == size}
    for value in [*result.graph.input, *result.graph.output]:
        if value.name not in known and _first(value) == size:
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del result.graph.value_info[:]
    for node in result.graph.node:
        target = known.get(node.input[1]) if node.op_type == "Reshape" else None
        if target is None or not target.size or target[0] != size:
            continue
        target = target.copy()
        if -1 not in target:
            target[0] = -1
        elif node.input[0] in batched:
            target[0] = 0  # the input's own
        node.input[1] = f"{node.output[0]}/any_batch"
        onnx_graph.set_constant(result, node.input[1], target)
    onnx_graph.remove_dead(result)
    return result


def in_parts(call: Call, size: int) -> Call:
    """Returns a call of any number of examples, of one that takes so many at a time."""

    def run(feed: Mapping[str, Array]) -> list[Any]:
        numbers = {name: x for name, x in feed.items() if not x.ndim}
        rows = {name: x for name, x in feed.items() if x.ndim}
        count = len(next(iter(rows.values())))
        rest = -count % size
        wide = {name: np.concatenate([x, x[-1:].repeat(rest, 0)]) for name, x in rows.items()}
        parts = [
            call(numbers | {name: x[i : i + size] for name, x in wide.items()})
            for i in range(0, count + rest, size)
        ]
        return [np.concatenate(arrays)[:count] for arrays in zip(*parts, strict=True)]

    return run


def _first(value: Any) -> int | None:
    """Returns the first size of a value, None where it is free or there is none."""
    sizes = value.type.tensor_type.shape.dim
    # Some programs write -1 for a free size.
    return sizes[0].dim_value if len(sizes) and sizes[0].dim_value > 0 else None
