"""What tf2onnx gets wrong in graphs of TensorFlow, put right for the time of one conversion."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from tf2onnx.rewriter import rnn_utils


@contextlib.contextmanager
def dependent_rnns_apart() -> Iterator[None]:
    """Keeps tf2onnx from making a bidirectional RNN of two that must run one after the other.

    It looks at their input alone: a backward RNN may begin with the last state of the forward one.
    """
    before = rnn_utils.find_bidirectional_rnns

    def find(graph: Any, operations: Any, kind: Any) -> list[Any]:
        pairs = before(graph, operations, kind)
        return [(a, b) for a, b in pairs if not (_depends(a, b) or _depends(b, a))]

    rnn_utils.find_bidirectional_rnns = find
    try:
        yield
    finally:
        rnn_utils.find_bidirectional_rnns = before


def _depends(node: Any, other: Any) -> bool:
    """Whether ``other`` is among the nodes that ``node`` is computed from."""
    seen: set[str] = set()
    waiting = [node]
    while waiting:
        fresh = [x for x in waiting.pop().inputs if x is not None and x.name not in seen]
        seen.update(x.name for x in fresh)
        waiting += fresh
    return other.name in seen
