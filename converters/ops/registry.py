"""What a family of operations needs to say how its nodes become torch modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

Build = Callable[[Any, Any], tuple[nn.Module, tuple[str, ...]]]
"""Takes an onnx2torch node and graph; returns the module and the names of its inputs."""


class NotHere(Exception):  # noqa: N818 - onnx2torch's own converter takes over
    """This node is left to the converter that was registered before."""


def constant(node: Any, graph: Any, index: int) -> Any:
    """Returns an input that must be known now, as Python numbers.

    Raises:
        NotHere: the input is not a constant of the graph.
    """
    if len(node.input_values) <= index or node.input_values[index] not in graph.initializers:
        raise NotHere
    return graph.initializers[node.input_values[index]].to_torch().tolist()


def decimal(value: float) -> float:
    """Returns the number that was meant by an attribute, which ONNX holds in float32.

    Its shortest decimal is what the model was given: 0.001, not 0.0010000000474974513.
    """
    return float(str(np.float32(value)))
