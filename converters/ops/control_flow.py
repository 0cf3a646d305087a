"""Loops and branches."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchfgsm.converters.ops import host_analysis
from torchfgsm.converters.ops.operation import Host, argument, operation
from torchfgsm.converters.ops.registry import Build

Built = tuple[nn.Module, tuple[str, ...]]


class Loop(nn.Module):
    """ONNX Loop, run by Python.

    Where the number of turns follows from sizes alone, as in a recurrent layer, it is known on the
    host: nothing is waited for, and torch.compile unrolls the loop. Where the condition is a
    tensor, each turn waits for the device.

    Args:
        body: called with (iteration, condition, carried values, captured values); returns the
            condition, the carried values and one value for each scan output.
        carried: how many values are carried from turn to turn.
        empty: the scan outputs of no turn at all.
    """

    def __init__(self, body: nn.Module, carried: int, empty: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.body, self.carried, self.scans = body, carried, len(empty)
        for i, tensor in enumerate(empty):
            self.register_buffer(f"empty_{i}", tensor, persistent=False)

    def forward(self, limit: Any, condition: Any, *values: Any) -> Any:
        """Runs the body.

        Args:
            limit: the most turns; None where there is no limit.
            condition: whether to begin; None where nothing hinders it.
            values: the carried values at the start, then the captured ones.

        Returns:
            The carried values at the end and the scan outputs (turns, ...).
        """
        carried, captured = values[: self.carried], values[self.carried :]
        collected: list[list[Tensor]] = [[] for _ in range(self.scans)]
        limit = int(limit) if isinstance(limit, Tensor) else limit
        condition = True if condition is None else condition
        turn = 0
        while (limit is None or turn < limit) and bool(condition):
            condition, *found = self.body(turn, condition, *carried, *captured)
            carried = found[: self.carried]
            for sequence, value in zip(collected, found[self.carried :], strict=True):
                sequence.append(value)
            turn += 1
        stacked = [
            torch.stack(sequence) if sequence else getattr(self, f"empty_{i}")
            for i, sequence in enumerate(collected)
        ]
        results = (*carried, *stacked)
        return results if len(results) > 1 else results[0]


class If(nn.Module):
    """ONNX If; a condition that is a tensor is waited for."""

    def __init__(self, yes: nn.Module, no: nn.Module) -> None:
        super().__init__()
        self.yes, self.no = yes, no

    def forward(self, condition: Any, *captured: Any) -> Any:
        """Returns what the branch returns."""
        results = self.yes(*captured) if bool(condition) else self.no(*captured)
        return results if len(results) > 1 else results[0]


class Branch(nn.Module):
    """The one branch of an If that the model can take."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, *captured: Any) -> Any:
        """Returns what the branch returns."""
        results = self.branch(*captured)
        return results if len(results) > 1 else results[0]


def _loop(node: Any, graph: Any) -> Built:
    values = host_analysis.loop_values(node.proto, graph.known)
    proto = _body(node, "body")
    carried = len(node.input_values) - 2
    stays = {i + 1 for i in values.carried} | ({0} if values.condition else set())
    captured = graph.captured(proto)
    body = graph.assemble(proto, captured, values.body, stays)
    # The limit is a number wherever it can be; the rest are where the body takes them as numbers.
    hosts = {0} | {i + 1 for i in stays}
    parts = [_part(node, graph, i, i in hosts) for i in range(carried + 2)]
    loop = Loop(body, carried, _empty(proto, carried))
    return operation(loop, *parts, *_captured(captured, graph))


def _part(node: Any, graph: Any, index: int, host: bool) -> Any:
    """Returns an input of a Loop: a number or the name of one where ``host``, else a tensor's."""
    name = node.input_values[index]
    if not name:
        return None
    known = argument(node, graph, index) if host else None
    if known is None:
        return Host(name) if host and name in graph.hosts else name
    return known[0] if isinstance(known, list) and index < 2 else known


def _empty(proto: Any, carried: int) -> tuple[Tensor, ...]:
    """Returns the scan outputs of no turn; dimensions that are not known are 0, as elsewhere."""
    from onnx import helper

    found = []
    for value in proto.output[1 + carried :]:
        tensor = value.type.tensor_type
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type or 1)
        found.append(
            torch.from_numpy(np.zeros((0, *(d.dim_value for d in tensor.shape.dim)), dtype))
        )
    return tuple(found)


def _if(node: Any, graph: Any) -> Built:
    known = argument(node, graph, 0)
    known = known[0] if isinstance(known, list) else known
    protos = [_body(node, name) for name in ("then_branch", "else_branch")]
    if known is not None:
        protos = [protos[not known]]
    captured = graph.captured(*protos)
    branches = [graph.assemble(proto, captured) for proto in protos]
    if known is not None:
        return operation(Branch(*branches), *_captured(captured, graph))
    condition = node.input_values[0]
    condition = Host(condition) if condition in graph.hosts else condition
    return operation(If(*branches), condition, *_captured(captured, graph))


def _captured(names: tuple[str, ...], graph: Any) -> list[str]:
    return [Host(name) if name in graph.hosts else name for name in names]


def _body(node: Any, attribute: str) -> Any:
    return next(a.g for a in node.proto.attribute if a.name == attribute)


BUILDERS: dict[str, Build] = {"If": _if, "Loop": _loop}
