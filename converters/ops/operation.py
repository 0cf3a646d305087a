"""Modules made of one function, with the arguments filled in that are known at conversion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from torchfgsm.converters.ops.registry import NotHere


class Host(str):
    """The name of a value that an operation takes as Python numbers, not as a tensor."""


class Operation(nn.Module):
    """A function of tensors and of Python numbers.

    Args:
        function: called with ``arguments``.
        arguments: what is known, and ``...`` for each argument that ``forward`` is given.
    """

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.function, self.arguments = function, arguments

    def forward(self, *values: Any) -> Any:
        """Calls the function with ``values`` in the open places."""
        rest = iter(values)
        return self.function(*[next(rest) if a is ... else a for a in self.arguments])

    def extra_repr(self) -> str:
        """Shows the function and what is known."""
        name = getattr(self.function, "__name__", None) or repr(self.function)
        return f"{name.strip('_')}, {list(self.arguments)}"


def operation(function: Callable[..., Any], *arguments: Any) -> tuple[nn.Module, tuple[str, ...]]:
    """Returns what a builder returns, for a function.

    Args:
        function: what the node computes.
        arguments: names of values (``Host`` where Python numbers are wanted), or known arguments,
            which are no strings.
    """
    inputs = tuple(a for a in arguments if isinstance(a, str))
    return Operation(function, tuple(... if isinstance(a, str) else a for a in arguments)), inputs


def argument(node: Any, graph: Any, index: int) -> Any:
    """Returns an input that is a constant, as Python numbers.

    What is computed from sizes that the model fixes is a constant here, too.

    Returns:
        A number or a list; None where the input is absent or not a constant.
    """
    names = node.input_values
    if index >= len(names) or names[index] not in graph.initializers:
        return None
    return graph.initializers[names[index]].to_torch().tolist()


def numbers(node: Any, graph: Any, index: int, attribute: str = "") -> Any:
    """Returns an input that must be Python numbers: as a constant, or as the name of a host value.

    Args:
        node: the node.
        graph: its graph.
        index: the input.
        attribute: the attribute that older versions of the operation had in its place.

    Returns:
        None where there is neither.

    Raises:
        NotHere: the numbers are computed on the device.
    """
    if attribute and attribute in node.attributes:
        return node.attributes[attribute]
    known = argument(node, graph, index)
    names = node.input_values
    if known is not None or index >= len(names) or not names[index]:
        return known
    if names[index] not in graph.hosts:
        raise NotHere
    return Host(names[index])
