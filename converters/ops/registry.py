"""What a family of operations needs to say how its nodes become torch modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from torchfgsm.converters.errors import ConversionError
from torchfgsm.converters.onnx_side import graph as onnx_graph

Built = tuple[nn.Module, tuple[str, ...]]
Build = Callable[[Any, Any], Built]
"""Takes an onnx2torch node and graph; returns the module and the names of its inputs."""


class NotHere(Exception):  # noqa: N818 - onnx2torch's own converter takes over
    """This node is left to the converter that was registered before."""


class Function(nn.Module):
    """A function of tensors, with fixed settings."""

    def __init__(self, function: Callable[..., Any], **settings: Any) -> None:
        super().__init__()
        self.function, self.settings = function, settings

    def forward(self, *tensors: Tensor) -> Any:
        """Applies the function."""
        return self.function(*tensors, **self.settings)

    def extra_repr(self) -> str:
        """Shows the function and its settings."""
        shown = [f"{name}={value!r}" for name, value in self.settings.items()]
        return ", ".join([getattr(self.function, "__name__", str(self.function)), *shown])


def refuse(node: Any, reason: str) -> NoReturn:
    """Refuses a node for a reason, which also says what would help.

    Raises:
        ConversionError: always, naming the layer and the operation.
    """
    raise ConversionError(onnx_graph.unsupported(node.proto, reason))


def given(node: Any, index: int) -> bool:
    """Returns whether a node has an optional input."""
    return len(node.input_values) > index and bool(node.input_values[index])


def constant(node: Any, graph: Any, index: int) -> Any:
    """Returns an input that must be known now, as Python numbers.

    Single precision numbers are those that were meant; see :func:`decimal`.

    Raises:
        NotHere: the input is not a constant of the graph.
    """
    if len(node.input_values) <= index or node.input_values[index] not in graph.initializers:
        raise NotHere
    tensor = graph.initializers[node.input_values[index]].to_torch()
    return _decimals(tensor.tolist()) if tensor.dtype == torch.float32 else tensor.tolist()


def number(node: Any, name: str, default: float) -> float:
    """Returns an attribute of one float; see :func:`decimal`. A rounded default is the default."""
    value = node.attributes.get(name, default)
    return default if np.float32(value) == np.float32(default) else decimal(value)


def decimal(value: float) -> float:
    """Returns the number that was meant by an attribute, which ONNX holds in float32.

    Its shortest decimal is what the model was given: 0.001, not 0.0010000000474974513.
    """
    return float(str(np.float32(value)))


def _decimals(values: Any) -> Any:
    return [_decimals(v) for v in values] if isinstance(values, list) else decimal(values)
