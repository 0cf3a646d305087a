"""Tells from the end of a graph whether an output's values are probabilities."""

from __future__ import annotations

import math
from typing import Any

from torchfgsm.converters.onnx_side.graph import constants, producers

Range = tuple[float, float]

_DEPTH = 12
_PROBABILITIES = ("HardSigmoid", "Sigmoid", "Softmax")
_SHAPES = ("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


def are_probabilities(model: Any, output: str) -> bool:
    """Returns whether an output's values lie between 0 and 1, and reach both.

    So do those of a softmax, of the mean of several, of a hard sigmoid; not those of a softmax
    that is scaled afterwards.
    """
    found = _Ranges(model).of(output)
    return found is not None and math.isclose(found[1], 1, rel_tol=1e-5) and found[0] == 0


class _Ranges:
    """The least and largest values, where the last operations tell."""

    def __init__(self, model: Any) -> None:
        self.made_by, self.constants = producers(model), constants(model)

    def of(self, name: str, depth: int = _DEPTH) -> Range | None:
        constant = self.constants.get(name)
        if constant is not None:
            value = float(constant.reshape(-1)[0]) if constant.size == 1 else None
            return None if value is None else (value, value)
        node = self.made_by.get(name)
        if node is None or depth == 0:
            return None
        if node.op_type in _PROBABILITIES or self._is_share(node):
            return 0.0, 1.0
        inside = [self.of(n, depth - 1) for n in node.input if n]
        if node.op_type in _SHAPES:
            return inside[0]
        return self._limited(node, inside) or self._combined(node, inside)

    def _limited(self, node: Any, inside: list[Range | None]) -> Range | None:
        """Returns the range of a Clip, or of a Max or Min with a number."""
        if node.op_type not in ("Clip", "Max", "Min"):
            return None
        low, high = inside[0] or (-math.inf, math.inf)
        bounds = {"Clip": (1, 2), "Max": (1, None), "Min": (None, 1)}[node.op_type]
        for i, largest in zip(bounds, (False, True), strict=True):
            bound = inside[i] if i is not None and i < len(inside) else None
            if bound is not None and largest:
                low, high = min(low, bound[0]), min(high, bound[1])
            elif bound is not None:
                low, high = max(low, bound[0]), max(high, bound[1])
        return low, high

    def _combined(self, node: Any, inside: list[Range | None]) -> Range | None:
        """Returns the range of sums, and of products and quotients with a positive number."""
        known = [r for r in inside if r is not None]
        if len(known) < len(inside) or not known:
            return None
        sums = sum(r[0] for r in known), sum(r[1] for r in known)
        if node.op_type in ("Add", "Sum"):
            return sums
        if node.op_type == "Mean":
            return sums[0] / len(known), sums[1] / len(known)
        if node.op_type not in ("Mul", "Div") or len(known) != 2:
            return None
        values, factor = known if known[1][0] == known[1][1] else known[::-1]
        if (
            factor[0] != factor[1]
            or factor[0] <= 0
            or (node.op_type == "Div" and values != known[0])
        ):
            return None
        scale = factor[0] if node.op_type == "Mul" else 1 / factor[0]
        return values[0] * scale, values[1] * scale

    def _is_share(self, node: Any) -> bool:
        """Returns whether a node divides exponentials by their sum."""
        if node.op_type != "Div":
            return False
        parts, total = (self.made_by.get(name) for name in node.input)
        if parts is None or total is None:
            return False
        sums = total.op_type == "ReduceSum" and total.input[0] == node.input[0]
        return bool(sums and parts.op_type == "Exp")
