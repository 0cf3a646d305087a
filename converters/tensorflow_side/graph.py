"""Turns a TensorFlow function into ONNX whose weights are graph inputs, inside TensorFlow.

A weight that is an input cannot be folded into a constant, merged with another one of equal
values or fused into its neighbour. Which ONNX value is which weight is therefore known by name
for each of them, whatever the values are.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator
from typing import Any

import onnx
import tensorflow as tf
import tf2onnx
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from . import graph_repairs, kinks, marks
from .keras_model import UnsupportedModelError

OPSET = 15


class FrozenGraph:
    """A concrete function as a graph of plain operations.

    Attributes:
        constant: the graph definition with every weight as a constant.
        open: the same with the given weights as placeholders.
        inputs: tensor names of the inputs, in the order of the function's arguments.
        outputs: tensor names of the outputs.
        weights: tensor name of each weight's placeholder -> id of its variable.
    """

    def __init__(self, function: Any, variables: dict[int, Any]) -> None:
        """Freezes ``function``; ``variables`` (by id) become placeholders."""
        frozen = _frozen(function)
        self.constant = frozen.graph.as_graph_def()
        captured = {inner.name for _, inner in function.graph.captures}
        self.inputs = [t.name for t in function.inputs if t.name not in captured]
        self.outputs = [t.name for t in frozen.outputs]
        self.weights: dict[str, int] = {}
        self.open = tf.compat.v1.GraphDef()
        self.open.CopyFrom(self.constant)
        nodes = {node.name: node for node in self.open.node}
        by_handle = {id(v.handle): v for v in function.graph.variables}
        for outer, inner in function.graph.captures:
            node = nodes.get(inner.op.name)
            if node is None:
                continue  # a capture that no output depends on
            if outer.dtype != tf.resource:  # a constant made outside the function
                to_constant(node, outer.numpy())
                to_constant(_node(self.constant, node.name), outer.numpy())
                continue
            variable = by_handle[id(outer)]
            if node.op == "Const" and id(variable) in variables:
                _to_placeholder(node, variable)
                self.weights[inner.name] = id(variable)

    def to_onnx(self, layers: Collection[str] = ()) -> Any:
        """Returns the ONNX model; its inputs are the function's, then the weights.

        Args:
            layers: names of the model's layers, which the nodes' names shall show.

        Raises:
            UnsupportedModelError: an operation has no counterpart in ONNX.
        """
        with marks.noise_passes_transposes(), graph_repairs.dependent_rnns_apart():
            model, _ = tf2onnx.convert.from_graph_def(
                self.open,
                input_names=[*self.inputs, *self.weights],
                output_names=self.outputs,
                opset=OPSET,
                custom_op_handlers={**marks.HANDLERS, **kinks.HANDLERS},
            )
        taken = {node.name for node in model.graph.node}
        for node in model.graph.node:
            name = "/".join(_layer_name(part, layers) for part in node.name.split("/"))
            if name not in taken:  # a shared layer has nodes of the same name
                taken.add(name)
                node.name = name
        _refuse_unknown(model.graph, layers)
        return model


def _frozen(function: Any) -> Any:
    """Returns the function with its variables as constants.

    Raises:
        UnsupportedModelError: it assigns to a variable, and so has no value that stays.
    """
    try:
        with _inlining(function.graph):
            return convert_variables_to_constants_v2(function, lower_control_flow=False)
    except ValueError as error:
        definition = function.graph.as_graph_def()
        nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
        found = [node.name for node in nodes if re.fullmatch("Assign.*VariableOp", node.op)]
        if not found:
            raise
        raise UnsupportedModelError(
            f"the graph assigns to a variable (node {found[0]!r}): it keeps a state from batch to "
            "batch, which a converted model does not: build the model with stateful=False, without "
            "layers that count what they see, and export it again"
        ) from error


@contextlib.contextmanager
def _inlining(graph: Any) -> Iterator[None]:
    """Lets functions for XLA be inlined when ``graph`` is frozen, as Keras' grouped convolutions.

    The freezing reads the graph by its method ``as_graph_def``.
    """
    definition = graph.as_graph_def()
    functions = definition.library.function
    for thing in (*definition.node, *functions, *(n for f in functions for n in f.node_def)):
        if thing.attr["_XlaMustCompile"].b:
            thing.attr.pop("_noinline", None)
        del thing.attr["_XlaMustCompile"]
    graph.as_graph_def = lambda: definition
    try:
        yield
    finally:
        del graph.as_graph_def


def _refuse_unknown(graph: Any, layers: Collection[str]) -> None:
    """Refuses a graph with operations that are not ONNX: tf2onnx leaves them in, and only logs."""
    for node in graph.node:
        if not onnx.defs.has(node.op_type, node.domain):
            raise UnsupportedModelError(
                f"layer {_layer(node.name, layers)!r}: the TensorFlow operation {node.op_type} "
                f"(node {node.name!r}) has no counterpart in ONNX {OPSET}"
            )
        for attribute in node.attribute:
            _refuse_unknown(attribute.g, layers)


def _layer_name(scope: str, layers: Collection[str]) -> str:
    """Returns the layer behind a name scope, to which TensorFlow adds a number at times."""
    plain = re.sub(r"_\d+$", "", scope)
    return plain if scope not in layers and plain in layers else scope


def _layer(node_name: str, layers: Collection[str]) -> str:
    """Returns the innermost layer among a node's name scopes, else the innermost scope."""
    parts = [_layer_name(part, layers) for part in node_name.split("/")]
    found = [part for part in parts[:-1] if part in layers]
    return found[-1] if found else parts[max(len(parts) - 2, 0)]


def _node(graph: Any, name: str) -> Any:
    return next(node for node in graph.node if node.name == name)


def to_constant(node: Any, value: Any) -> None:
    """Makes a placeholder a constant; other nodes are left as they are."""
    if node.op != "Placeholder":
        return
    node.op = "Const"
    node.attr.pop("shape", None)
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))


def _to_placeholder(node: Any, variable: Any) -> None:
    node.op = "Placeholder"
    node.attr.pop("value", None)
    node.attr["shape"].shape.CopyFrom(variable.shape.as_proto())
