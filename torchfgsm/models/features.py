"""The input of a model as a flat list of features, whatever its structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Features:
    """A tensor, or a dict or list of features, taken apart.

    Attributes:
        structure: The input as it was given.
        names: Key or position of each feature that is a floating-point tensor; "" for a lone
            tensor.
        tensors: Those features. All others (integers, strings, sparse tensors) stay as they are.
    """

    structure: Any
    names: tuple[Any, ...]
    tensors: tuple[Tensor, ...]

    @classmethod
    def take_apart(cls, x: Any) -> Features:
        """The features of `x`: a tensor, a mapping or a sequence."""
        found = {name: value for name, value in items(x).items() if is_differentiable(value)}
        return cls(x, tuple(found), tuple(found.values()))

    def put_together(self, tensors: Sequence[Tensor], *, copy_others: bool = False) -> Any:
        """The input's structure with the given tensors in place of its floating-point ones.

        Args:
            tensors: One per feature.
            copy_others: Copy the tensors that are not features: results share no memory with x.
        """
        if self.names and isinstance(self.structure, Tensor):
            return tensors[0]
        values = {
            name: value.clone() if copy_others and _is_other(value) else value
            for name, value in items(self.structure).items()
        }
        values.update(zip(self.names, tensors, strict=True))
        if isinstance(self.structure, Mapping):
            return values
        if isinstance(self.structure, (list, tuple)):
            return list(values.values())
        return values.get("", self.structure)

    def select(self, values: Any) -> list[Any]:
        """For each feature, its own entry of `values`, which is structured like the input.

        Args:
            values: A mapping or sequence with entries for some features, or one value for a lone
                tensor, or None.

        Returns:
            One entry per feature, None where there is none.
        """
        by_name = items(values)
        return [by_name.get(name) for name in self.names]

    def spread(self, values: Any) -> list[Any]:
        """As `select`, but one value without a structure counts for every feature."""
        if isinstance(values, (Mapping, list, tuple)):
            return self.select(values)
        return [values] * len(self.names)


def items(x: Any) -> dict[Any, Any]:
    """Name -> value of a structured input; "" names a lone value, None has no values."""
    if x is None:
        return {}
    if isinstance(x, Tensor):  # the usual case first: asking for a Mapping takes longer
        return {"": x}
    if isinstance(x, Mapping):
        return dict(x)
    if isinstance(x, (list, tuple)):
        return dict(enumerate(x))
    return {"": x}


def normal(value: Any) -> Any:
    """A value or structure with copies of inference tensors, which autograd cannot save."""
    if isinstance(value, Tensor):
        # Compiled, no value is asked whether it is one: the compiler's own tensors never are.
        inference = not torch.compiler.is_compiling() and value.is_inference()
        return value.clone() if inference else value
    if isinstance(value, (Mapping, list, tuple)):
        copied = {name: normal(entry) for name, entry in items(value).items()}
        return copied if isinstance(value, Mapping) else list(copied.values())
    return value


def _is_other(value: object) -> bool:
    return isinstance(value, Tensor) and not is_differentiable(value)


def is_differentiable(value: object) -> bool:
    """Whether a feature can be perturbed: a dense floating-point or complex tensor."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and (value.is_floating_point() or value.is_complex())
    )
