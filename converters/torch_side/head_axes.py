"""Follows the axis of a softmax through operations on shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torchfgsm.converters.onnx_side.graph import constants

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
