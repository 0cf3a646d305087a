"""Small operations on ONNX graphs: names, constants, dead nodes, weight layouts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from torchfgsm.converters.errors import ConversionError
from torchfgsm.converters.onnx_side import subgraphs as onnx_subgraphs

Layout = tuple[tuple[str, tuple[int, ...]], ...]


def constants(model: Any) -> dict[str, npt.NDArray[Any]]:
    """Returns the initializers as arrays."""
    from onnx import numpy_helper

    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def set_constant(model: Any, name: str, value: npt.NDArray[Any]) -> None:
    """Adds an initializer."""
    from onnx import numpy_helper

    # Not ascontiguousarray, which makes a scalar one-dimensional.
    array = np.array(value, order="C")
    model.graph.initializer.append(numpy_helper.from_array(array, name))


def producers(model: Any) -> dict[str, Any]:
    """Returns the node behind each value."""
    return {name: node for node in model.graph.node for name in node.output}


def consumers(model: Any) -> Counter[str]:
    """Returns how often each value is used, as an output of the graph too."""
    used = Counter(n for node in model.graph.node for n in onnx_subgraphs.uses(node))
    used.update(output.name for output in model.graph.output)
    return used


def rename(model: Any, wanted: Mapping[str, str]) -> dict[str, str]:
    """Renames values wherever they occur.

    Returns:
        The new names: those wanted, made unique where another value has one already.
    """
    graphs = list(onnx_subgraphs.graphs(model.graph))
    taken = {name for graph in graphs for name in _names(graph)} - wanted.keys()
    final: dict[str, str] = {}
    for old, new in wanted.items():
        name, count = new, 1
        while name in taken:
            count += 1
            name = f"{new}_{count}"
        taken.add(name)
        final[old] = name
    _rename(model.graph, final)
    return final


def _names(graph: Any) -> set[str]:
    values = [*graph.input, *graph.initializer]
    return {v.name for v in values} | {n for x in graph.node for n in (*x.input, *x.output)}


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    for value in [*graph.input, *graph.output, *graph.initializer, *graph.value_info]:
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for body in onnx_subgraphs.bodies(node):
            own = {v.name for v in [*body.input, *body.initializer]}
            own |= {name for inner in body.node for name in inner.output}
            # A body's own values may be called as those around it, which they then hide.
            _rename(body, {old: new for old, new in names.items() if old not in own})


def set_inputs(model: Any, inputs: Iterable[tuple[str, str, tuple[int | None, ...]]]) -> None:
    """Makes these, of (name, dtype, shape without the batch), the graph's only inputs."""
    from onnx import helper

    del model.graph.input[:]
    for name, dtype, shape in inputs:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        dims = ["batch", *(f"{name}_{i}" if n is None else n for i, n in enumerate(shape))]
        model.graph.input.append(helper.make_tensor_value_info(name, kind, dims))


def type_of(value_info: Any) -> tuple[str, tuple[int | None, ...]]:
    """Returns the dtype and the shape without the batch of an input or output."""
    from onnx import helper

    tensor = value_info.type.tensor_type
    dims = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    return str(helper.tensor_dtype_to_np_dtype(tensor.elem_type)), tuple(dims[1:])


def is_scalar(value_info: Any) -> bool:
    """Whether an input or output is stated to be one number."""
    tensor = value_info.type.tensor_type
    return bool(tensor.HasField("shape")) and not tensor.shape.dim


def lift_constant_nodes(model: Any) -> None:
    """Turns Constant nodes into initializers, in the graphs that nodes hold too."""
    from onnx import numpy_helper

    for graph in list(onnx_subgraphs.graphs(model.graph))[::-1]:
        kept = []
        for node in graph.node:
            value = _constant_value(node) if node.op_type == "Constant" else None
            if value is None:
                kept.append(node)
            else:
                graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
        replace_nodes(graph, kept)


def _constant_value(node: Any) -> npt.NDArray[Any] | None:
    from onnx import numpy_helper

    (attribute,) = node.attribute
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64,
             "value_ints": np.int64}  # fmt: skip
    if attribute.name == "value":
        return np.asarray(numpy_helper.to_array(attribute.t))
    if attribute.name not in kinds:
        return None
    from onnx import helper

    return np.array(helper.get_attribute_value(attribute), kinds[attribute.name])


def remove_dead(model: Any) -> None:
    """Removes nodes and initializers that no output depends on."""
    needed = {output.name for output in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(onnx_subgraphs.uses(node))
            kept.append(node)
    replace_nodes(model.graph, kept[::-1])
    initializers = [t for t in model.graph.initializer if t.name in needed]
    del model.graph.initializer[:]
    model.graph.initializer.extend(initializers)


def make_reshapes_static(model: Any) -> None:
    """Gives each Reshape a constant shape where all but one dimension of its result are known.

    Keras 3 computes the shape from the batch; a constant keeps the graph free of host copies.
    """
    from onnx import shape_inference

    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {
        info.name: [d.dim_value if d.HasField("dim_value") else -1 for d in _dims(info)]
        for info in [*inferred.value_info, *inferred.output]
        if info.type.tensor_type.HasField("shape")
    }
    known = constants(model)
    for node in model.graph.node:
        shape = shapes.get(node.output[0], [])
        if node.op_type != "Reshape" or node.input[1] in known or shape.count(-1) > 1 or not shape:
            continue
        name = node.output[0] + "_static_shape"
        set_constant(model, name, np.array(shape, np.int64))
        node.input[1] = name
    remove_dead(model)


def fold_layout(model: Any, weight: str, shape: tuple[int, ...]) -> tuple[str, Layout]:
    """Follows a weight through transposes and reshapes and cuts them off.

    Args:
        model: the ONNX model, in which ``weight`` is an input or initializer; changed in place.
        weight: the value's name.
        shape: its shape.

    Returns:
        The value that the graph now takes in the weight's place, and the steps from the weight to
        it. A weight that is used in two layouts keeps its own, and the steps stay in the graph.
    """
    known = constants(model)
    steps: list[tuple[str, tuple[int, ...]]] = []
    current = weight
    while True:
        # Uses inside a loop or branch are none of these, and keep the steps in the graph.
        following = [node for node in model.graph.node if current in node.input]
        step = _common_step(following, current, known, shape)
        if step is None or consumers(model)[current] != len(following):
            break
        kind, argument = step
        steps.append(step)
        shape = tuple(shape[i] for i in argument) if kind == "transpose" else argument
        first, *others = (node.output[0] for node in following)
        replace_nodes(model.graph, [n for n in model.graph.node if n not in following])
        _merge(model, others, first)
        current = first
    return current, tuple(steps)


def refuse_unknown(model: Any) -> None:
    """Refuses operations that the ONNX standard does not have, in any graph of the model.

    Raises:
        ConversionError: naming the layer and the operation.
    """
    from onnx import defs

    for graph in onnx_subgraphs.graphs(model.graph):
        for node in graph.node:
            if not defs.has(node.op_type, node.domain):
                raise ConversionError(unsupported(node, "it is not in the ONNX standard"))


def unsupported(node: Any, reason: str = "") -> str:
    """Returns what to say about a node that cannot be converted."""
    parts = node.name.split("/")
    layer = parts[-2] if len(parts) > 1 else node.name
    operation = f"{node.domain}:{node.op_type}" if node.domain else node.op_type
    text = f"layer {layer!r}: the operation {operation} (node {node.name!r}) is not supported"
    return f"{text}: {reason}" if reason else text


def _common_step(
    nodes: list[Any], value: str, known: Mapping[str, Any], shape: tuple[int, ...]
) -> tuple[str, tuple[int, ...]] | None:
    """Returns the layout step that all the nodes make of a value, if they all make the same."""
    steps = {_step(node, value, known, shape) for node in nodes}
    return steps.pop() if len(steps) == 1 else None


def _step(
    node: Any, value: str, known: Mapping[str, Any], shape: tuple[int, ...]
) -> tuple[str, tuple[int, ...]] | None:
    if node.input[0] != value or any(name not in known for name in node.input[1:]):
        return None
    arguments = [known[name] for name in node.input[1:]]
    attributes = {a.name: a for a in node.attribute}
    if node.op_type == "Transpose":
        permutation = attributes.get("perm")
        default = tuple(reversed(range(len(shape))))
        return "transpose", tuple(permutation.ints) if permutation else default
    example = np.broadcast_to(np.empty((), np.int8), shape)
    if node.op_type == "Reshape":
        target = [shape[i] if n == 0 else int(n) for i, n in enumerate(arguments[0])]
        return "reshape", example.reshape(target).shape
    if node.op_type == "Squeeze":
        axes = tuple(int(i) for i in arguments[0]) if arguments else None
        return "reshape", np.squeeze(example, axes).shape
    if node.op_type == "Unsqueeze" and arguments:
        return "reshape", np.expand_dims(example, tuple(int(i) for i in arguments[0])).shape
    return None


def _merge(model: Any, names: Iterable[str], into: str) -> None:
    same = dict.fromkeys(names, into)
    for graph in onnx_subgraphs.graphs(model.graph):
        for node in graph.node:
            node.input[:] = [same.get(name, name) for name in node.input]


def _dims(info: Any) -> Any:
    return info.type.tensor_type.shape.dim


def replace_nodes(graph: Any, nodes: list[Any]) -> None:
    """Makes these the graph's only nodes."""
    copies = [_copy(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _copy(node: Any) -> Any:
    from onnx import NodeProto

    result = NodeProto()
    result.CopyFrom(node)
    return result
