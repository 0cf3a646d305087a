"""Follows the axis of a softmax through operations on shapes, and the values these take."""

from __future__ import annotations

import math
from collections.abc import Sequence
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


Shape = list[int | None]


class Shapes:
    """The shapes of a graph's values, and where axes of them go.

    Axes are counted from the end (-1 is the last one), so that no rank is needed for most.
    """

    def __init__(self, model: Any) -> None:
        from onnx import shape_inference

        inferred = shape_inference.infer_shapes(model, data_prop=True).graph
        infos = [*inferred.input, *inferred.value_info, *inferred.output]
        self._types = {info.name: info.type.tensor_type for info in infos}
        # What inference loses at a computed shape, the file may state of the output behind it.
        for node in reversed(model.graph.node):
            if node.op_type == "Identity" and self._shape(node.input[0]) is None:
                stated = self._types.get(node.output[0])
                self._types |= {} if stated is None else {node.input[0]: stated}
        self._constants = constants(model)

    def axis_of_softmax(self, node: Any, opset: int) -> int | None:
        """Returns the axis of a Softmax or LogSoftmax, None where it is not one of an example."""
        axis = _attribute(node, "axis", -1 if opset >= 13 else 1)
        shape = self._shape(node.output[0]) or self._shape(node.input[0])
        if shape is None:
            return -1 if axis == -1 else None
        axis = axis % len(shape)
        if opset < 13:
            # It ran over all axes from `axis` on: over one, where the others have one place.
            wide = [i for i in range(axis, len(shape)) if shape[i] != 1]
            if len(wide) > 1:
                return None
            axis = wide[0] if wide else axis
        return axis - len(shape) if axis > 0 else None

    def axis_after(self, node: Any, axis: int) -> int | None:
        """Returns where an axis is after an operation, None where it is no axis of its own."""
        before, after = self._shape(node.input[0]), self._shape(node.output[0])
        if node.op_type == "Cast":
            return axis if self.keeps_type(node) else None
        if before is None or after is None or -axis > len(before):
            return None
        if node.op_type == "Transpose":
            order = _attribute(node, "perm", list(reversed(range(len(before)))))
            place = list(order).index(axis % len(before))
            return place - len(before) if place > 0 else None
        if node.op_type in ("Squeeze", "Unsqueeze"):
            return self._axis_among_ones(node, axis, before, after)
        return _axis_of_equal_size(before, after, axis)

    def keeps_type(self, node: Any) -> bool:
        """Returns whether a node's result has the type of its input."""
        known = self._types.get(node.input[0])
        before = known.elem_type if known is not None else None
        return node.op_type != "Cast" or before == int(_attribute(node, "to", 0))

    def _axis_among_ones(self, node: Any, axis: int, before: Shape, after: Shape) -> int | None:
        """Returns where an axis is when others, of one place, come or go."""
        more = max(before, after, key=len)
        found: Any = _attribute(node, "axes", None)
        if found is None and len(node.input) > 1:
            found = self._constants.get(node.input[1])
        elif found is None:
            found = [i for i, n in enumerate(before) if n == 1]
        if found is None:
            return None
        ones = {int(i) % len(more) for i in found}
        stay = [i for i in range(len(more)) if i not in ones]
        squeezes = node.op_type == "Squeeze"
        if squeezes and axis % len(before) in ones:
            return None
        place = stay.index(axis % len(before)) if squeezes else stay[axis]
        return place - len(after) if place > 0 else None

    def _shape(self, name: str) -> Shape | None:
        kind = self._types.get(name)
        if kind is None or not kind.HasField("shape"):
            return None
        return [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim]


def _axis_of_equal_size(before: Shape, after: Shape, axis: int) -> int | None:
    """Returns the axis of a reshaped tensor that is the given one of it before.

    It has the same size, and all behind it have as many places together.
    """
    behind = _places(before[len(before) + axis + 1 :])
    size = before[axis]
    if behind is None or size is None or size == 1:
        return None
    for place in reversed(range(-len(after), 0)):
        if after[place] == size and _places(after[len(after) + place + 1 :]) == behind:
            return place if place > -len(after) else None
    return None


def _places(sizes: Sequence[int | None]) -> int | None:
    known = [n for n in sizes if n is not None]
    return math.prod(known) if len(known) == len(sizes) else None


def _attribute(node: Any, name: str, default: Any) -> Any:
    from onnx import helper

    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else helper.get_attribute_value(found)
