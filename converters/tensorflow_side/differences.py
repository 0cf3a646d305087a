"""Compares two traces of one model, layer by layer, whatever their operations are called.

Names carry counters that move with every other operation. What a layer computes is the multiset
of its operations: their types, attributes, constants, functions and what they take.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import tensorflow as tf

_LAYER = "_torchfgsm_layer"
_NOTHING = ("Identity", "NoOp")
# Random seeds count the operations before them.
_IGNORED = ("seed", "seed2", "shared_name", "output_shapes")


def in_layer(key: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """Returns ``call`` whose operations bear the layer's key."""

    def keyed(*arguments: Any, **settings: Any) -> Any:
        value = tf.compat.v1.AttrValue(s=key.encode())
        with tf.compat.v1.get_default_graph()._attr_scope({_LAYER: value}):
            return call(*arguments, **settings)

    return keyed


def differing(first: Any, second: Any) -> list[str]:
    """Returns the keys of the layers that differ between two graphs, in the graphs' order.

    Operations outside any layer have the key "".
    """
    layers = [_operations(graph.as_graph_def()) for graph in (first, second)]
    return [key for key in {**layers[0], **layers[1]} if layers[0].get(key) != layers[1].get(key)]


def remove_keys(definition: Any) -> None:
    """Takes the layers' keys out of a GraphDef again."""
    functions = (function.node_def for function in definition.library.function)
    for nodes in (definition.node, *functions):
        for node in nodes:
            node.attr.pop(_LAYER, None)


def _operations(definition: Any) -> dict[str, Counter[str]]:
    functions = {function.signature.name: function for function in definition.library.function}
    found: dict[str, Counter[str]] = defaultdict(Counter)
    nodes = {node.name: node for node in definition.node}
    for node in definition.node:
        if node.op not in _NOTHING:
            found[_key(node)][_digest(node, nodes, functions)] += 1
    return found


def _digest(node: Any, nodes: dict[str, Any], functions: dict[str, Any]) -> str:
    parts = [node.op]
    if node.op in functions:
        parts.append(_digest_of(node.op, functions))
    parts += [_source(node, name, nodes) for name in node.input if not name.startswith("^")]
    for name in sorted(node.attr):
        if name.startswith("_") or name in _IGNORED:
            continue
        value = node.attr[name]
        called = [value.func.name] if value.HasField("func") else [f.name for f in value.list.func]
        parts.append(name)
        parts += [_digest_of(function, functions) for function in called]
        if not called:
            parts.append(value.SerializeToString(deterministic=True).hex())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _digest_of(name: str, functions: dict[str, Any]) -> str:
    """Returns the digest of a function's body, whatever the function is called."""
    body = functions[name].node_def
    nodes = {node.name: node for node in body}
    digests = [_digest(node, nodes, functions) for node in body if node.op not in _NOTHING]
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()


def _source(node: Any, name: str, nodes: dict[str, Any]) -> str:
    """Returns the operation behind an input, if it belongs to the same layer."""
    producer = nodes.get(name.split(":")[0])
    while producer is not None and producer.op == "Identity":
        producer = nodes.get(producer.input[0].split(":")[0])
    return producer.op if producer is not None and _key(producer) == _key(node) else "outside"


def _key(node: Any) -> str:
    return node.attr[_LAYER].s.decode() if _LAYER in node.attr else ""
