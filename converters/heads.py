"""Finds the softmax or sigmoid at the end of a graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from torchfgsm.converters.annotation import Port
from torchfgsm.converters.onnx_graph import producers

_HEADS = ("Softmax", "Sigmoid")
_SHAPES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Cast")


@dataclass(frozen=True)
class Head:
    """What stands at an output.

    Attributes:
        kind: "Softmax" or "Sigmoid" where one can be cut, else None.
        logits: the ONNX value to return: the head's input, or the output itself.
        text: one line for people.
        probabilities: whether the output stays one of probabilities.
    """

    kind: str | None
    logits: str
    text: str
    probabilities: bool = False

    def module(self) -> nn.Module:
        """Returns what turns the logits into the model's own output."""
        if self.kind == "Softmax":
            return nn.Softmax(dim=-1)
        return nn.Sigmoid() if self.kind == "Sigmoid" else nn.Identity()


def find_heads(model: Any, outputs: Sequence[Port]) -> list[Head]:
    """Returns each output's head; the graph stays as it is."""
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    made_by = producers(model)
    return [_find(made_by, port, opset) for port in outputs]


def _find(made_by: dict[str, Any], port: Port, opset: int) -> Head:
    node = _behind(made_by, port.tensor, ("Identity",))
    if node is None:
        return Head(None, port.tensor, f"output {port.name!r} is an input of the model")
    if node.op_type == "Sigmoid" or (node.op_type == "Softmax" and _last_axis(node, port, opset)):
        text = f"output {port.name!r}: cut {node.op_type} ({node.name})"
        return Head(node.op_type, node.input[0], text)
    if node.op_type == "LogSoftmax":
        text = f"output {port.name!r}: kept, log-probabilities serve as logits ({node.name})"
        return Head(None, port.tensor, text)
    deeper = _behind(made_by, port.tensor, ("Identity", *_SHAPES))
    if deeper is not None and deeper.op_type in _HEADS:
        what = deeper.op_type
        reason = "is not over the last axis" if deeper is node else f"has {node.op_type} behind it"
        text = f"output {port.name!r}: kept, probabilities, since its {what} {reason}"
        return Head(None, port.tensor, text, probabilities=True)
    text = f"output {port.name!r}: kept, its last operation is {node.op_type} ({node.name})"
    return Head(None, port.tensor, text)


def _behind(made_by: dict[str, Any], name: str, skipped: Sequence[str]) -> Any:
    node = made_by.get(name)
    while node is not None and node.op_type in skipped:
        node = made_by.get(node.input[0])
    return node


def _last_axis(node: Any, port: Port, opset: int) -> bool:
    rank = len(port.shape) + 1
    axis = next((a.i for a in node.attribute if a.name == "axis"), -1 if opset >= 13 else 1)
    # Before opset 13, Softmax ran over all axes from `axis` on: the same for the last one alone.
    return int(axis) in (-1, rank - 1)
