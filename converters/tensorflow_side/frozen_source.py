"""A frozen TensorFlow graph (.pb) as the source of a conversion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from .graph import FrozenGraph
from .graph_sources import GraphSource, refuse_text
from .graph_trust import refuse_graph
from .keras_model import UnsupportedModelError
from .keras_source import Values

# The inputs of an operation at which a constant is a weight.
_PLACES = {
    "BatchMatMulV2": (0, 1),
    "BiasAdd": (1,),
    "Conv2D": (1,),
    "Conv2DBackpropInput": (1,),
    "Conv3D": (1,),
    "DepthwiseConv2dNative": (1,),
    "FusedBatchNorm": (1, 2, 3, 4),
    "FusedBatchNormV3": (1, 2, 3, 4),
    "GatherV2": (0,),
    "MatMul": (0, 1),
}
_STATISTICS = (3, 4)
_SUMS = ("Add", "AddV2")
# Functions inside the graph: the layers that Keras compiles are such, as grouped convolutions.
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
# Between a constant and the operation that takes it as a weight.
_PASSED = ("ExpandDims", "Identity", "Reshape", "Squeeze", "Transpose")


class FrozenGraphSource(GraphSource):
    """A GraphDef whose weights are constants; those that are found become variables again."""

    def __init__(
        self,
        path: str,
        input_names: Sequence[str] | None,
        output_names: Sequence[str] | None,
        *,
        allow_unsafe: bool = False,
    ) -> None:
        """Reads the file; the names are those of tensors, such as "x:0".

        Raises:
            UnsupportedModelError: the file is no frozen graph, or a name is missing or wrong; an
                operation could do more than compute, and is not allowed.
        """
        definition = _read(path)
        if not allow_unsafe:
            refuse_graph(definition)
        graph = _graph(definition)
        inputs = _tensors(graph, input_names, "input_names")
        outputs = _tensors(graph, output_names, "output_names")
        description: Values = {
            "inputs": [_plain(t.name) for t in inputs],
            "shapes": [_shape(t) for t in inputs],
            "dtypes": [t.dtype.name for t in inputs],
            "outputs": [_plain(t.name) for t in outputs],
            "output_structure": "single" if len(outputs) == 1 else "list",
        }
        refuse_text(description)
        signature = _signature(description)
        ends = [t.name for t in inputs], [t.name for t in outputs]
        if any(node.op in _CALLS for node in definition.node):
            whole = FrozenGraph(_function(definition, {}, *ends, signature), {})
            definition, ends = whole.constant, (whole.inputs, whole.outputs)
        self._variables = _variables(_graph(definition))
        function = _function(definition, self._variables, *ends, signature)
        super().__init__(function, description, "frozen graph")


def _read(path: str) -> Any:
    definition = tf.compat.v1.GraphDef()
    try:
        with open(path, "rb") as file:
            definition.ParseFromString(file.read())
    except Exception as error:  # protobuf's parsers raise classes of their own
        raise UnsupportedModelError("expected a frozen graph (a binary GraphDef)") from error
    if not definition.node:
        raise UnsupportedModelError(
            "expected a frozen graph (a binary GraphDef), found no nodes; of a SavedModel give "
            "the folder, not its saved_model.pb"
        )
    return definition


def _graph(definition: Any) -> Any:
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(definition, name="")
    return graph


def _signature(description: Values) -> list[Any]:
    pairs = zip(description["shapes"], description["dtypes"], strict=True)
    return [
        tf.TensorSpec([None, *shape], dtype, name=f"torchfgsm_input_{i}")
        for i, (shape, dtype) in enumerate(pairs)
    ]


def _variables(graph: Any) -> dict[str, Any]:
    """Returns a variable for each constant that is a weight, by the constant's name."""
    return {
        name: tf.Variable(
            tf.make_ndarray(graph.get_operation_by_name(name).get_attr("value")),
            trainable=trainable,
            name=f"torchfgsm_{i}",
        )
        for i, (name, trainable) in enumerate(_weights(graph).items())
    }


def _function(
    definition: Any,
    variables: dict[str, Any],
    inputs: list[str],
    outputs: list[str],
    signature: list[Any],
) -> Any:
    """Returns a graph as a function of its inputs that reads variables instead of constants."""

    def call(*tensors: Any) -> list[Any]:
        replaced = dict(zip(inputs, tensors, strict=True))
        for name, variable in variables.items():
            replaced[f"{name}:0"] = tf.convert_to_tensor(variable)
        return list(
            tf.import_graph_def(definition, input_map=replaced, return_elements=outputs, name="")
        )

    return tf.function(call, autograph=False).get_concrete_function(*signature)


def _weights(graph: Any) -> dict[str, bool]:
    """Returns the names of the constants that are weights, and whether each is trainable."""
    found: dict[str, bool] = {}
    for operation in graph.get_operations():
        if operation.type in _PLACES:
            places = _PLACES[operation.type]
        elif operation.type in _SUMS and any(_is_product(x) for x in operation.inputs):
            places = (0, 1)  # the bias of a dense layer or a convolution
        else:
            continue
        for place in places:
            constant = _constant_behind(operation.inputs[place])
            if constant is not None:
                statistic = operation.type.startswith("FusedBatch") and place in _STATISTICS
                found[constant.name] = not statistic
    return found


def _is_product(tensor: Any) -> bool:
    return "MatMul" in tensor.op.type or "Conv" in tensor.op.type


def _constant_behind(tensor: Any) -> Any:
    operation = tensor.op
    while operation.type in _PASSED:
        operation = operation.inputs[0].op
    if operation.type != "Const" or not operation.outputs[0].dtype.is_floating:
        return None
    return operation if operation.outputs[0].shape.rank else None


def _tensors(graph: Any, names: Sequence[str] | None, keyword: str) -> list[Any]:
    if not names:
        raise UnsupportedModelError(f"expected {keyword} of the frozen graph: {_candidates(graph)}")
    found = []
    for name in names:
        try:
            found.append(graph.get_tensor_by_name(name if ":" in name else f"{name}:0"))
        except (KeyError, ValueError):
            raise UnsupportedModelError(
                f"{keyword}: there is no tensor {name!r} in the frozen graph: {_candidates(graph)}"
            ) from None
    return found


def _candidates(graph: Any) -> str:
    """Returns the graph's placeholders, and the tensors that nothing takes, as one line."""
    inputs, ends = [], []
    for operation in graph.get_operations():
        names = [t.name for t in operation.outputs]
        if operation.type.startswith("Placeholder"):
            inputs += names
        elif operation.type != "Const" and not any(t.consumers() for t in operation.outputs):
            ends += names
    return f"its placeholders are {inputs}, its last tensors {ends}"


def _plain(tensor: str) -> str:
    return tensor.removesuffix(":0")


def _shape(tensor: Any) -> list[int | None]:
    if not tensor.shape.rank:
        raise UnsupportedModelError(
            f"expected input {tensor.name!r} to have a shape with a batch first, got {tensor.shape}"
        )
    return list(tensor.shape[1:])
