"""Builds the torch module from an annotated ONNX model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from torchfgsm.converters.annotation import Annotation
from torchfgsm.converters.errors import ConversionError
from torchfgsm.converters.model import ConvertedModel, as_tensor
from torchfgsm.converters.onnx_side import graph as onnx_graph
from torchfgsm.converters.onnx_side.constants import fold_whole_numbers
from torchfgsm.converters.torch_side.assembling import assemble
from torchfgsm.converters.torch_side.heads import Head, find_heads
from torchfgsm.converters.torch_side.registrations import Converters


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
    fold_whole_numbers(work, {w.tensor for w in annotation.weights})
    heads = find_heads(work, annotation.outputs)
    values = onnx_graph.constants(work)
    missing = [w.name for w in annotation.weights if w.tensor not in values]
    if missing:
        raise ConversionError(f"the file lacks the weights {missing}: it was changed or cut off")
    tensors = {w.tensor: as_tensor(values[w.tensor]) for w in annotation.weights}
    _refuse_no_numbers(annotation, tensors)
    _set_ports(work, annotation, heads, values)
    graph = _to_torch(work, annotation)
    return ConvertedModel(graph, annotation, tensors, heads, keep_head=keep_head)


def _refuse_no_numbers(annotation: Annotation, tensors: Mapping[str, Tensor]) -> None:
    """Refuses weights that are NaN and ports without numbers: nothing could be told of them."""
    for weight in annotation.weights:
        values = tensors[weight.tensor]
        bad = int(values.isnan().sum())
        if bad:
            raise ConversionError(
                f"weight {weight.name!r}: expected numbers, {bad} of {values.numel()} values are "
                "NaN: train or save the model again"
            )
    for kind, ports in (("input", annotation.inputs), ("output", annotation.outputs)):
        for port in ports:
            if 0 in port.shape:
                sizes = ", ".join(str(n) for n in port.shape)
                raise ConversionError(
                    f"{kind} {port.name!r}: expected numbers, its shape (N, {sizes}) has none"
                )


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
    outputs = []
    for port, head in zip(annotation.outputs, heads, strict=True):
        outputs.append(helper.make_empty_tensor_value_info(head.logits))
        if head.logits == port.tensor:
            outputs[-1] = next(v for v in model.graph.output if v.name == port.tensor)
    for field, content in (("input", inputs), ("initializer", kept), ("output", outputs)):
        target = getattr(model.graph, field)
        content = [copy.deepcopy(item) for item in content]
        del target[:]
        target.extend(content)
    onnx_graph.remove_dead(model)


def _to_torch(model: Any, annotation: Annotation) -> nn.Module:
    norms = {w.tensor: w.batch_norm for w in annotation.weights if w.batch_norm is not None}
    convert = Converters({o.domain: o.version for o in model.opset_import}, norms)
    from onnx2torch.utils.safe_shape_inference import safe_shape_inference

    graph = assemble(safe_shape_inference(model, data_prop=True).graph, {}, convert)
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
