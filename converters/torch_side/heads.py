"""Finds the softmax or sigmoid at the end of a graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from torchfgsm.converters.annotation import Port
from torchfgsm.converters.onnx_side.graph import producers
from torchfgsm.converters.torch_side import head_axes

_SHAPES = ("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Cast")
# A softmax over another axis than the last is transposed by TensorFlow itself.
_HIDING = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")


@dataclass(frozen=True)
class Head:
    """What stands at an output.

    Attributes:
        kind: "Softmax" or "Sigmoid" where one can be cut, else None.
        logits: the ONNX value to return: the head's input, or the output itself.
        text: one line for people.
        probabilities: whether the output stays one of probabilities.
        axis: the axis of the output over which softmax(logits) is the output.
        behind: the operations between the head and the output, which change shapes alone.
    """

    kind: str | None
    logits: str
    text: str
    probabilities: bool = False
    axis: int = -1
    behind: tuple[str, ...] = ()

    def module(self) -> nn.Module:
        """Returns what turns the logits into the model's own output."""
        if self.kind == "Softmax":
            return nn.Softmax(dim=self.axis)
        return nn.Sigmoid() if self.kind == "Sigmoid" else nn.Identity()

    @property
    def hidden_from_keras(self) -> bool:
        """Whether the loss of Keras, which looks at the last operation, does not find the head."""
        return self.kind is not None and any(n in _HIDING for n in self.behind)

    @property
    def who_sees_what(self) -> str:
        """What each library takes where the original is attacked there, one line for people."""
        if self.kind is None:
            return ""
        head = self.kind.lower()
        finds = "NSL's Keras loss finds the logits"
        if self.kind == "Softmax":
            finds = "NSL's Keras loss and CleverHans 3's KerasModelWrapper find the logits"
        if self.hidden_from_keras:
            finds = (
                f"NSL's Keras loss does not find the logits behind {' and '.join(self.behind)}, it "
                'clips the probabilities (model_output="probabilities")'
            )
        return (
            f"{finds}; CleverHans 4 takes the output of the {head} for logits, and its presets put "
            "it back; with_head() and without_head() choose"
        )


def find_heads(model: Any, outputs: Sequence[Port]) -> list[Head]:
    """Returns each output's head.

    Where only the shape changes between a head and its output, the operations on the shape are
    added once more to the end of the graph, on the head's input; the graph else stays as it is.
    """
    graph = _Graph(model)
    return [graph.find(port, f"torchfgsm_head_{i}") for i, port in enumerate(outputs)]


def logits_text(heads: Sequence[Head], keep_head: bool) -> str:
    """What was cut at each output, or why nothing was, one line for people."""
    text = "; ".join(head.text for head in heads)
    kept = keep_head and any(head.kind for head in heads)
    return text + " (put back: keep_head=True)" * kept


class _Graph:
    def __init__(self, model: Any) -> None:
        self.model = model
        self.made_by = producers(model)
        self.opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
        self.shapes = head_axes.Shapes(model)

    def find(self, port: Port, prefix: str) -> Head:
        node, path = self._behind(port.tensor)
        what = f"output {port.name!r}"
        if node is None:
            return Head(None, port.tensor, f"{what} is an input of the model")
        behind = " and ".join(_names(path))
        if node.op_type in ("Softmax", "LogSoftmax"):
            axis = self._axis(node, path)
            if isinstance(axis, str):
                certain = node.op_type == "Softmax"
                text = f"{what}: kept, {'log-' * (not certain)}probabilities, since its {axis}"
                return Head(None, port.tensor, text, probabilities=certain)
            if node.op_type == "LogSoftmax":
                text = f"{what}: kept, log-probabilities serve as logits ({node.name})"
                return Head(None, port.tensor, text, axis=axis)
            logits, end = self._logits(node, path, prefix), f" before {behind}" if behind else ""
            text = f"{what}: cut Softmax ({node.name}){end}"
            return Head("Softmax", logits, text, axis=axis, behind=_names(path))
        if node.op_type == "Sigmoid" and all(self.shapes.keeps_type(n) for n in path):
            logits, end = self._logits(node, path, prefix), f" before {behind}" if behind else ""
            text = f"{what}: cut Sigmoid ({node.name}){end}"
            return Head("Sigmoid", logits, text, behind=_names(path))
        return self._kept(port, what)

    def _kept(self, port: Port, what: str) -> Head:
        node = self.made_by[port.tensor]
        while node.op_type == "Identity" and node.input[0] in self.made_by:
            node = self.made_by[node.input[0]]
        probabilities = head_axes.are_probabilities(self.model, port.tensor)
        certain = " probabilities," if probabilities else ""
        text = f"{what}: kept,{certain} its last operation is {node.op_type} ({node.name})"
        return Head(None, port.tensor, text, probabilities)

    def _behind(self, name: str) -> tuple[Any, list[Any]]:
        """Returns the first node before a value that changes more than a shape, and the others."""
        path: list[Any] = []
        node = self.made_by.get(name)
        while node is not None and node.op_type in _SHAPES:
            if node.op_type != "Identity":
                path.insert(0, node)
            node = self.made_by.get(node.input[0])
        return node, path

    def _axis(self, node: Any, path: list[Any]) -> int | str:
        """Returns the axis of the output with the classes, counted from the end, or why not."""
        axis = self.shapes.axis_of_softmax(node, self.opset)
        if axis is None:
            return f"{node.op_type} is not over the last axis or another one of an example"
        for step in path:
            axis = self.shapes.axis_after(step, axis)
            if axis is None:
                return f"{node.op_type} has {step.op_type} behind it, which moves its axis apart"
        return axis

    def _logits(self, node: Any, path: list[Any], prefix: str) -> str:
        """Returns the head's input, in the shape of the output."""
        name: str = node.input[0]
        for i, step in enumerate(path):
            copy = self.model.graph.node.add()
            copy.CopyFrom(step)
            copy.input[0] = name
            name = copy.output[0] = copy.name = f"{prefix}_{i}"
        return name


def _names(path: Sequence[Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_name(node) for node in path))


def _name(node: Any) -> str:
    """The operation as TensorFlow has it: tf2onnx writes one channel's transpose as a reshape."""
    moves = node.op_type == "Reshape" and node.name.startswith("Transpose__")
    return "Transpose" if moves else str(node.op_type)
