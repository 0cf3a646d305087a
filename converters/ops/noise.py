"""Layers that act in training alone: dropout and its relatives."""

from __future__ import annotations

from typing import Any

from torch import nn

from torchfgsm.converters.ops.registry import Build, NotHere, constant


def _dropout(node: Any, graph: Any) -> tuple[nn.Module, tuple[str, ...]]:
    names = node.input_values
    if "seed" in node.attributes or len(node.output_values) > 1:
        raise NotHere
    if len(names) > 1 and names[1]:
        return nn.Dropout(float(constant(node, graph, 1))), names[:1]
    return nn.Dropout(float(node.attributes.get("ratio", 0.5))), names[:1]


BUILDERS: dict[str, Build] = {"Dropout": _dropout}
