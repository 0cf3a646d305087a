"""Builds the torch module from an annotated ONNX model."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from torchfgsm.converters import onnx_graph
from torchfgsm.converters.annotation import Annotation
from torchfgsm.converters.errors import ConversionError
from torchfgsm.converters.heads import Head, find_heads
from torchfgsm.converters.model import ConvertedModel, as_tensor
from torchfgsm.converters.registrations import registered


def build(model: Any, annotation: Annotation, *, keep_head: bool = False) -> ConvertedModel:
    """Returns the module of an ONNX model; the model stays as it is.

    The graph takes its weights as inputs, so that each tensor is one parameter of the result,
    whatever its values are and however often it is used.

    Raises:
        ConversionError: an operation or layer is not supported.
    """
    work = copy.deepcopy(model)
    onnx_graph.lift_constant_nodes(work)
    onnx_graph.refuse_unknown(work)
    heads = find_heads(work, annotation.outputs)
    values = onnx_graph.constants(work)
    missing = [w.name for w in annotation.weights if w.tensor not in values]
    if missing:
        raise ConversionError(f"the file lacks the weights {missing}: it was changed or cut off")
    tensors = {w.tensor: as_tensor(values[w.tensor]) for w in annotation.weights}
    _set_ports(work, annotation, heads, values)
    graph = _to_torch(work, annotation)
    return ConvertedModel(graph, annotation, tensors, heads, keep_head=keep_head)


def _set_ports(
    model: Any, annotation: Annotation, heads: list[Head], values: dict[str, Any]
) -> None:
    """Makes the weights inputs and the logits outputs, all in the annotation's order."""
    from onnx import helper

    by_name = {value.name: value for value in model.graph.input}
    inputs = [by_name[port.tensor] for port in annotation.inputs]
    for weight in annotation.weights:
        array = values[weight.tensor]
        dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
        inputs.append(helper.make_tensor_value_info(weight.tensor, dtype, array.shape))
    lifted = {weight.tensor for weight in annotation.weights}
    kept = [t for t in model.graph.initializer if t.name not in lifted]
    by_name = {value.name: value for value in model.graph.output}
    outputs = []
    for i, (port, head) in enumerate(zip(annotation.outputs, heads, strict=True)):
        # A node of its own for each output: onnx2torch returns one value for each node.
        name = f"torchfgsm_logits_{i}"
        model.graph.node.append(helper.make_node("Identity", [head.logits], [name], name=name))
        value = copy.deepcopy(by_name[port.tensor])
        value.name = name
        outputs.append(value)
    for field, content in (("input", inputs), ("initializer", kept), ("output", outputs)):
        target = getattr(model.graph, field)
        content = [copy.deepcopy(item) for item in content]
        del target[:]
        target.extend(content)
    onnx_graph.remove_dead(model)


def _to_torch(model: Any, annotation: Annotation) -> nn.Module:
    import onnx2torch
    from onnx2torch.node_converters import get_converter

    settings = {w.tensor: w.batch_norm for w in annotation.weights if w.batch_norm is not None}
    versions = {o.domain: o.version for o in model.opset_import}
    with registered(settings):
        for node in model.graph.node:
            try:
                get_converter(node.op_type, versions[node.domain], node.domain)
            except NotImplementedError:
                raise ConversionError(onnx_graph.unsupported(node)) from None
        try:
            graph: nn.Module = onnx2torch.convert(model)
        except NotImplementedError as error:
            raise ConversionError(f"a layer is not supported: {error}") from error
    for name, buffer in list(graph.named_buffers()):
        # Constants of the graph, not state of the model: they stay out of state_dict.
        holder, _, leaf = name.rpartition(".")
        graph.get_submodule(holder).register_buffer(leaf, buffer, persistent=False)
    _refuse_parameters(graph)
    return graph


def _refuse_parameters(graph: nn.Module) -> None:
    """Refuses a graph that holds weights of its own."""
    held = [name for name, _ in graph.named_parameters()]
    if held:
        raise ConversionError(f"these weights could not be traced to the model's: {held}")
