"""Assembles the torch graph of an ONNX graph, and of the graphs that its loops hold."""

from __future__ import annotations

import copy
import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from torchfgsm.converters.errors import ConversionError
from torchfgsm.converters.onnx_side import subgraphs as onnx_subgraphs
from torchfgsm.converters.onnx_side.graph import unsupported
from torchfgsm.converters.ops import host_analysis, host_values
from torchfgsm.converters.ops.operation import Host

Convert = Callable[[Any, Any], tuple[nn.Module, tuple[str, ...]]]
"""Takes an onnx2torch node and a :class:`Scope`; returns the module and the names of its inputs."""

_SMALL = 64


class Scope:
    """A graph as builders see it: onnx2torch's OnnxGraph, and what is known of sizes.

    Attributes:
        known: the constants and host values that are known here, those around the graph included.
        hosts: the host values among them, which are no constants.
        nodes_by_output: the node behind each value.
    """

    def __init__(self, proto: Any, outer: Mapping[str, Any], convert: Convert) -> None:
        """Takes a GraphProto after shape inference and what is known of its inputs."""
        from onnx2torch.onnx_graph import OnnxGraph

        self.known = host_analysis.analyse(proto, outer)
        self._graph = OnnxGraph(_folded(proto, self.known))
        self._convert = convert
        self.hosts = {n: v for n, v in self.known.items() if n not in self._graph.initializers}
        self.nodes_by_output = {
            name: node for node in self._graph.nodes.values() for name in node.output_values
        }

    def __getattr__(self, name: str) -> Any:
        """Gives the attributes of OnnxGraph."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._graph, name)

    def captured(self, *bodies: Any) -> tuple[str, ...]:
        """Returns the values, in order, that graphs inside this one take from it.

        Small constants are not among them: each inner graph gets its own.
        """
        names = dict.fromkeys(name for body in bodies for name in onnx_subgraphs.free(body))
        return tuple(name for name in names if not self._small(name))

    def assemble(
        self,
        body: Any,
        captured: Sequence[str],
        given: Mapping[str, Any] | None = None,
        hosts: Collection[int] = (),
    ) -> fx.GraphModule:
        """Returns the module of a graph inside this one.

        Args:
            body: the GraphProto.
            captured: what it takes from this graph; the module's last arguments.
            given: what is known of its inputs that are host values.
            hosts: the outputs that it is to return as host values; the others become tensors.
        """
        proto = copy.deepcopy(body)
        infos = self._graph.value_info
        for name in captured:
            if name in infos:
                proto.input.add().CopyFrom(infos[name])
            else:
                proto.input.add(name=name)
        for name in onnx_subgraphs.free(body):
            if self._small(name):
                proto.initializer.add().CopyFrom(self._graph.initializers[name].proto)
        outer = {name: self.hosts[name] for name in captured if name in self.hosts}
        return assemble(proto, {**outer, **(given or {})}, self._convert, hosts)

    def build(self, node: Any) -> tuple[nn.Module, tuple[str, ...]]:
        """Returns the module of a node and the names of its inputs.

        Raises:
            ConversionError: nothing converts the node.
        """
        nested = node.operation_type in ("If", "Loop")
        if node.output_values[0] in self.hosts and not nested:
            return host_values.build(node, self)
        try:
            return self._convert(node, self)
        except NotImplementedError as error:
            raise ConversionError(unsupported(node.proto, str(error))) from error

    def _small(self, name: str) -> bool:
        tensor = self._graph.initializers.get(name)
        return tensor is not None and tensor.to_torch().numel() <= _SMALL


def assemble(
    proto: Any, outer: Mapping[str, Any], convert: Convert, hosts: Collection[int] = ()
) -> fx.GraphModule:
    """Returns the module of an ONNX graph; it returns a tuple of the graph's outputs.

    Args:
        proto: a GraphProto after shape inference; its weights are inputs.
        outer: what is known of the inputs that are host values.
        convert: makes the module of a node.
        hosts: the outputs that are returned as host values.

    Raises:
        ConversionError: an operation is not supported.
    """
    return _Assembly(Scope(proto, outer, convert)).run(hosts)


class Constant(nn.Module):
    """A constant of the graph, which is no state of the model: it stays out of state_dict."""

    value: torch.Tensor

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value, persistent=False)

    def forward(self) -> torch.Tensor:
        """Returns the constant."""
        return self.value


class _Assembly:
    """Builds one graph, node by node."""

    def __init__(self, scope: Scope) -> None:
        self.scope, self.graph, self.root = scope, fx.Graph(), nn.Module()
        self.values: dict[str, fx.Node] = {}
        self.tensors: dict[str, fx.Node] = {}

    def run(self, hosts: Collection[int]) -> fx.GraphModule:
        for i, name in enumerate(self.scope.input_values):
            self.values[name] = self.graph.placeholder(f"input_{i}")
        for name, node in self.scope.nodes.items():
            self._add(name, node)
        outputs = [
            self._value(Host(name) if i in hosts else name)
            for i, name in enumerate(self.scope.output_values)
        ]
        self.graph.output(tuple(outputs))
        self.graph.lint()
        return fx.GraphModule(self.root, self.graph)

    def _add(self, name: str, node: Any) -> None:
        module, inputs = self.scope.build(node)
        arguments = [self._value(value) for value in inputs]
        while arguments and arguments[-1] is None:
            arguments.pop()
        result = self._call(name, module, *arguments)
        if len(node.output_values) == 1:
            self.values[node.output_values[0]] = result
            return
        for i, output in enumerate(node.output_values):
            if output:
                self.values[output] = self.graph.call_function(operator.getitem, (result, i))

    def _value(self, name: str) -> Any:
        """Returns the node of a value: as numbers for a Host, as a tensor for any other name."""
        if not name:
            return None
        known = self.scope.initializers.get(name)
        if isinstance(name, Host):
            return known.to_torch().tolist() if known is not None else self.values[name]
        if known is not None:
            return self._constant(name, known.to_torch())
        if name in self.scope.hosts:
            return self._tensor_of(name)
        return self.values[name]

    def _constant(self, name: str, tensor: torch.Tensor) -> fx.Node:
        if name not in self.tensors:
            self.tensors[name] = self._call(f"constants/{len(self.tensors)}", Constant(tensor))
        return self.tensors[name]

    def _tensor_of(self, name: str) -> fx.Node:
        if name not in self.tensors:
            module = host_values.HostTensor(self._dtype(name))
            called = self._call(f"sizes/{len(self.tensors)}", module, self.values[name])
            self.tensors[name] = called
        return self.tensors[name]

    def _call(self, name: str, module: nn.Module, *arguments: fx.Node) -> fx.Node:
        # torch writes the name into the code that it runs: a quotation mark would end it there.
        name = re.sub(r"[^\w/:-]", "_", name, flags=re.ASCII) or "_"
        while hasattr(self.root, name):  # a node may be called "forward"
            name += "_"
        self.root.add_module(name, module)
        return self.graph.call_module(name, arguments)

    def _dtype(self, name: str) -> torch.dtype:
        from onnx import helper

        info = self.scope.value_info.get(name)
        elem_type = info.type.tensor_type.elem_type if info is not None else 0
        if not elem_type:
            return torch.int64
        return torch.from_numpy(np.zeros((), helper.tensor_dtype_to_np_dtype(elem_type))).dtype


def _folded(proto: Any, known: Mapping[str, Any]) -> Any:
    """Returns the graph with constants in the place of nodes whose results are known."""
    from onnx import numpy_helper

    arrays = host_analysis.folded(proto, known)
    result = copy.deepcopy(proto)
    del result.node[:]
    result.node.extend(n for n in proto.node if not arrays.keys() >= {o for o in n.output if o})
    result.initializer.extend(numpy_helper.from_array(a, name) for name, a in arrays.items())
    return result
