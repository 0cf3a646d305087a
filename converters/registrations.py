"""Teaches onnx2torch this package's modules, for the time of one conversion."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import nn

from torchfgsm.converters import layers

Build = Callable[[Any, Any], tuple[nn.Module, tuple[str, ...]]]
"""Takes an onnx2torch node and graph; returns the module and the names of its inputs."""


class _NotHere(Exception):  # noqa: N818 - onnx2torch's own converter takes over
    """This node is left to the converter that was registered before."""


@contextlib.contextmanager
def registered(batch_norms: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    """Puts the modules of ``layers`` into onnx2torch's registry, and takes them out again.

    Args:
        batch_norms: training settings of BatchNormalization, by the name of its moving mean.
    """
    from onnx import defs
    from onnx2torch.node_converters import registry

    table = registry._CONVERTER_REGISTRY
    before = dict(table)
    builders: dict[str, Build] = {
        **_BUILDERS,
        "BatchNormalization": lambda node, graph: _batch_norm(node, graph, batch_norms),
    }
    for operation, build in builders.items():
        for version in _versions(defs, operation):
            key = registry.OperationDescription("", operation, version)
            table[key] = _converter(build, before.get(key))
    try:
        yield
    finally:
        table.clear()
        table.update(before)


def _versions(defs: Any, operation: str) -> list[int]:
    return [
        schema.since_version
        for schema in defs.get_all_schemas_with_history()
        if schema.name == operation and schema.domain == ""
    ]


def _converter(build: Build, before: Callable[[Any, Any], Any] | None) -> Callable[[Any, Any], Any]:
    from onnx2torch.utils.common import OnnxMapping, OperationConverterResult

    def convert(node: Any, graph: Any) -> Any:
        try:
            module, inputs = build(node, graph)
        except _NotHere:
            if before is None:
                raise NotImplementedError(f"{node.operation_type} in this form") from None
            return before(node, graph)
        return OperationConverterResult(module, OnnxMapping(inputs, node.output_values))

    return convert


def _batch_norm(
    node: Any, graph: Any, settings: Mapping[str, Mapping[str, Any]]
) -> tuple[nn.Module, tuple[str, ...]]:
    # ONNX holds float32; its shortest decimal is the number that Keras was given.
    epsilon = float(str(np.float32(node.attributes.get("epsilon", 1e-5))))
    mean = node.input_values[3]
    if mean in settings:
        s = settings[mean]
        module: nn.Module = layers.KerasBatchNorm(
            epsilon, s["momentum"], s["unbiased"], s["frozen"]
        )
    elif mean in graph.initializers or mean in graph.input_values:
        module = layers.KerasBatchNorm(epsilon, 1.0, unbiased=False, frozen=True)
    else:
        module = layers.ComputedBatchNorm(epsilon)
    return module, node.input_values


def _conv(node: Any, graph: Any) -> tuple[nn.Module, tuple[str, ...]]:
    a = node.attributes
    side = a.get("auto_pad", "NOTSET")
    rank = len(a.get("kernel_shape") or a.get("strides") or a.get("pads", [])[::2])
    pads: Any = side if side.startswith("SAME") else a.get("pads") or [0] * (2 * rank)
    if not rank:
        raise _NotHere
    module = layers.Convolution(a.get("strides"), a.get("dilations"), a.get("group", 1), pads)
    return module, node.input_values


def _average_pool(node: Any, graph: Any) -> tuple[nn.Module, tuple[str, ...]]:
    a = node.attributes
    kernel = a["kernel_shape"]
    side = a.get("auto_pad", "NOTSET")
    if a.get("ceil_mode") or any(d != 1 for d in a.get("dilations", [])):
        raise _NotHere
    pads: Any = side if side.startswith("SAME") else a.get("pads") or [0] * (2 * len(kernel))
    strides = a.get("strides") or [1] * len(kernel)
    count = bool(a.get("count_include_pad", 0))
    return layers.AveragePool(kernel, strides, pads, count), node.input_values


def _extremum(node: Any, graph: Any) -> tuple[nn.Module, tuple[str, ...]]:
    return layers.Extremum(node.operation_type == "Max"), node.input_values


def _reshape(node: Any, graph: Any) -> tuple[nn.Module, tuple[str, ...]]:
    if node.attributes.get("allowzero"):
        raise _NotHere
    return layers.Reshape(_constant(node, graph, 1)), node.input_values[:1]


def _squeeze(node: Any, graph: Any) -> tuple[nn.Module, tuple[str, ...]]:
    return layers.Squeeze(_constant(node, graph, 1)), node.input_values[:1]


def _unsqueeze(node: Any, graph: Any) -> tuple[nn.Module, tuple[str, ...]]:
    return layers.Unsqueeze(_constant(node, graph, 1)), node.input_values[:1]


def _pad(node: Any, graph: Any) -> tuple[nn.Module, tuple[str, ...]]:
    names = node.input_values
    if node.attributes.get("mode", "constant") != "constant" or len(names) > 3:
        raise _NotHere
    value = _constant(node, graph, 2) if len(names) > 2 and names[2] else 0.0
    return layers.ConstantPad(_constant(node, graph, 1), float(value)), names[:1]


def _dropout(node: Any, graph: Any) -> tuple[nn.Module, tuple[str, ...]]:
    names = node.input_values
    if "seed" in node.attributes or len(node.output_values) > 1:
        raise _NotHere
    if len(names) > 1 and names[1]:
        return nn.Dropout(float(_constant(node, graph, 1))), names[:1]
    return nn.Dropout(float(node.attributes.get("ratio", 0.5))), names[:1]


def _selu(node: Any, graph: Any) -> tuple[nn.Module, tuple[str, ...]]:
    a = node.attributes
    # The standard's values, which an exporter may leave out.
    alpha, gamma = a.get("alpha", 1.6732632423543772), a.get("gamma", 1.0507009873554805)
    return layers.Selu(float(alpha), float(gamma)), node.input_values


def _thresholded_relu(node: Any, graph: Any) -> tuple[nn.Module, tuple[str, ...]]:
    return layers.ThresholdedRelu(float(node.attributes.get("alpha", 1.0))), node.input_values


def _constant(node: Any, graph: Any, index: int) -> Any:
    """Returns an input that must be known now, as Python numbers."""
    if len(node.input_values) <= index or node.input_values[index] not in graph.initializers:
        raise _NotHere
    return graph.initializers[node.input_values[index]].to_torch().tolist()


_BUILDERS: dict[str, Build] = {
    "AveragePool": _average_pool,
    "Conv": _conv,
    "Dropout": _dropout,
    "GlobalMaxPool": lambda node, graph: (layers.GlobalMaxPool(), node.input_values),
    "Identity": lambda node, graph: (nn.Identity(), node.input_values),
    "Max": _extremum,
    "Min": _extremum,
    "PRelu": lambda node, graph: (layers.PRelu(), node.input_values),
    "Pad": _pad,
    "Reshape": _reshape,
    "Selu": _selu,
    "Squeeze": _squeeze,
    "ThresholdedRelu": _thresholded_relu,
    "Unsqueeze": _unsqueeze,
}
