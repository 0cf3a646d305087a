"""Whether a TensorFlow graph only computes: its operations, before TensorFlow runs any.

An operation is trusted by its definition in TensorFlow's registry: one without a state, without
strings and without a text of its own among its attributes has nothing to name a file, an address or
a function of Python with. The others that models need are listed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from tensorflow.core.framework import types_pb2
from tensorflow.python.framework import op_def_registry

from .keras_model import UnsupportedModelError
from .keras_trust import ALLOW

# Attributes of text that say how to compute.
_SETTINGS = """
activation_mode bad_indices_policy data_format dct_method dimension_numbers dst_format equation
fill_mode frame_name fused_ops input_layout interpolation kernel_type layout message noise op_names
output_layout padding row_partition_types set_operation src_format
"""
_TEXTS = frozenset(_SETTINGS.split())
# With a state, or with strings or parts of lists: variables, control flow, lists, tables, random
# numbers, and the text and images that come before a model's numbers.
_LISTED = re.compile(
    r"(?:"
    r"VarHandleOp|_VarHandlesOp|ReadVariableOp|_ReadVariablesOp|Assign(?:Add|Sub)?VariableOp|"
    r"VarIsInitializedOp|VariableShape|VariableV2|Variable|TemporaryVariable|"
    r"DestroyTemporaryVariable|DestroyResourceOp|DisableCopyOnRead|"
    r"Resource(?:Gather|GatherNd|Scatter\w+|StridedSliceAssign|Apply\w+|SparseApply\w+|CountUpTo)|"
    r"(?:Stateful)?PartitionedCall|(?:Stateless)?(?:If|While|Case)|SymbolicGradient|"
    r"_Arg|_Retval|_DeviceArg|_DeviceRetval|Assert|CheckNumerics|CheckNumericsV2|Empty|"
    r"GuaranteeConst|Print|"
    r"(?:TensorList|EmptyTensorList|TensorArray|TensorMap|Stack(?:Push|Pop|Close)?V2|Ragged|"
    r"CSRSparse|SparseMatrix|Optional)\w*|"
    r"(?:Mutable|Anonymous|AnonymousMutable)?HashTable(?:V2|OfTensors|OfTensorsV2)?|"
    r"MutableDenseHashTable(?:V2)?|LookupTable\w+|InitializeTable(?:V2)?|"
    r"Random\w+|Stateful(?:Random|Standard|Truncated|Uniform)\w*|Stateless(?:Random|Parameterized)"
    r"\w*|StatelessRandomGetAlg|ParameterizedTruncatedNormal|TruncatedNormal|Multinomial|"
    r"NonDeterministicInts|Rng(?:Skip|ReadAndSkip)|SampleDistortedBoundingBox(?:V2)?|"
    r"CudnnRNN\w*|AsString|String(?:Join|Split|SplitV2|Lower|Upper|Length|Strip|Format|NGrams|ToNumber|"
    r"ToHashBucket\w*)|(?:Static)?Regex(?:Replace|FullMatch)|ReduceJoin|UnsortedSegmentJoin|Substr|"
    r"Unicode\w+|(?:En|De)codeBase64|Decode(?:Raw|PaddedRaw|CSV|Image|Png|Jpeg|AndCropJpeg|Gif|Bmp|"
    r"WebP|Wav|JSONExample|Compressed)|Encode(?:Png|Jpeg|JpegVariableQuality|Wav)|ExtractJpegShape|"
    r"Parse(?:Single)?(?:Sequence)?Example(?:V2)?|ParseTensor|SerializeTensor|SparseCross\w*|"
    # What gives it an iterator is not here: saved by tf-keras beside a layer that was adapted.
    r"Fingerprint|DeserializeManySparse|IteratorGetNext"
    r")"
)
# Random shuffles of what is in a queue, and crops of records.
_UNLISTED = re.compile(r"Random(?:ShuffleQueue\w*|Dataset\w*)")
_RESTORING = ("RestoreV2", "RestoreSlice", "Restore")
_NAMES = (types_pb2.DT_STRING, types_pb2.DT_RESOURCE, types_pb2.DT_VARIANT)


@functools.cache
def trusted(operation: str) -> bool:
    """Whether an operation only computes."""
    definition = op_def_registry.get(operation)
    if definition is None:  # of a library that was not loaded
        return False
    if _LISTED.fullmatch(operation):
        return not _UNLISTED.fullmatch(operation)
    ends = [*definition.input_arg, *definition.output_arg]
    if definition.is_stateful or any(end.type in _NAMES for end in ends):
        return False
    return all(_only_a_setting(attribute) for attribute in definition.attr)


def _only_a_setting(attribute: Any) -> bool:
    kind = attribute.type.removeprefix("list(").removesuffix(")")
    if kind == "func":
        return False
    return kind != "string" or attribute.HasField("allowed_values") or attribute.name in _TEXTS


def refuse_graph(definition: Any) -> None:
    """Refuses a GraphDef with an operation that is not trusted.

    Raises:
        UnsupportedModelError: naming the operation and its node.
    """
    library = definition.library.function
    nodes = [*definition.node, *(node for function in library for node in function.node_def)]
    _refuse(nodes, {function.signature.name for function in library})


def refuse_saved_model(folder: str) -> None:
    """Refuses a SavedModel of which TensorFlow could run an operation that is not trusted.

    Raises:
        UnsupportedModelError: naming the operation and its node; or the folder cannot be read.
    """
    from tensorflow.python.saved_model.loader_impl import parse_saved_model

    try:
        parsed = parse_saved_model(folder)  # what loading reads, whichever of the files that is
    except Exception as error:  # protobuf's parsers raise classes of their own
        text = " ".join(str(error).split())[:200]
        raise UnsupportedModelError(f"expected a SavedModel: {text}") from error
    for meta in parsed.meta_graphs:
        functions = {f.signature.name: f for f in meta.graph_def.library.function}
        starts: list[Any] = []
        if len(parsed.meta_graphs) == 1 and meta.HasField("object_graph_def"):
            # TensorFlow 2 loads these functions and runs what fills tables; the graph is unused.
            names: set[str] = set(meta.object_graph_def.concrete_functions)
        else:
            starts, names = _of_sessions(meta), set()
        names.update(gradient.gradient_func for gradient in meta.graph_def.library.gradient)
        _refuse([*starts, *_called(starts, names, functions)], functions)


def _of_sessions(meta: Any) -> list[Any]:
    """Returns the nodes that run when a SavedModel of TensorFlow 1 is loaded or called.

    Those that save it do not, and those that restore it read its own folder.
    """
    nodes = {node.name: node for node in meta.graph_def.node}
    ends = [t.name for s in meta.signature_def.values() for t in s.outputs.values()]
    for collection in meta.collection_def.values():
        ends += collection.node_list.value
    found = _behind(ends, nodes)
    restoring = _behind([meta.saver_def.restore_op_name], nodes)
    known = {node.name for node in found}
    return [*found, *(n for n in restoring if n.name not in known and n.op not in _RESTORING)]


def _behind(names: Iterable[str], nodes: Mapping[str, Any]) -> list[Any]:
    """Returns the nodes on which tensors or operations of these names depend."""
    found: dict[str, Any] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop().lstrip("^").split(":")[0]
        if name in nodes and name not in found:
            found[name] = nodes[name]
            waiting += nodes[name].input
    return list(found.values())


def _called(
    nodes: Iterable[Any], names: Collection[str], functions: Mapping[str, Any]
) -> list[Any]:
    """Returns the nodes of functions of these names, of those that the nodes call, and so on."""
    found: list[Any] = []
    waiting, seen = [*names, *_calls(nodes)], set()
    while waiting:
        name = waiting.pop()
        if name in functions and name not in seen:
            seen.add(name)
            found += functions[name].node_def
            waiting += _calls(functions[name].node_def)
    return found


def _calls(nodes: Iterable[Any]) -> Iterator[str]:
    for node in nodes:
        yield node.op
        for value in node.attr.values():
            if value.HasField("func"):
                yield value.func.name
            yield from (function.name for function in value.list.func)


def _refuse(nodes: Iterable[Any], functions: Collection[str]) -> None:
    for node in nodes:
        if node.op not in functions and not trusted(node.op):
            raise UnsupportedModelError(
                f"the graph's operation {node.op} (node {node.name!r}) is none of those that only "
                "compute; it could reach files, the network or other code: export the model "
                f"without it, or {ALLOW}"
            )
