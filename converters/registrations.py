"""Teaches onnx2torch this package's modules, for the time of one conversion."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torchfgsm.converters.ops import activations, convolution, noise, normalization, shapes
from torchfgsm.converters.ops.registry import Build, NotHere

_FAMILIES = (activations, convolution, noise, shapes)


@contextlib.contextmanager
def registered(batch_norms: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    """Puts the modules of ``ops`` into onnx2torch's registry, and takes them out again.

    Args:
        batch_norms: training settings of BatchNormalization, by the name of its moving mean.
    """
    from onnx import defs
    from onnx2torch.node_converters import registry

    table = registry._CONVERTER_REGISTRY
    before = dict(table)
    builders: dict[str, Build] = {
        **{name: build for family in _FAMILIES for name, build in family.BUILDERS.items()},
        "BatchNormalization": lambda node, graph: normalization.batch_norm(
            node, graph, batch_norms
        ),
    }
    for operation, build in builders.items():
        for version in _versions(defs, operation):
            key = registry.OperationDescription("", operation, version)
            table[key] = _converter(build, before.get(key))
    try:
        yield
    finally:
        table.clear()
        table.update(before)


def _versions(defs: Any, operation: str) -> list[int]:
    return [
        schema.since_version
        for schema in defs.get_all_schemas_with_history()
        if schema.name == operation and schema.domain == ""
    ]


def _converter(build: Build, before: Callable[[Any, Any], Any] | None) -> Callable[[Any, Any], Any]:
    from onnx2torch.utils.common import OnnxMapping, OperationConverterResult

    def convert(node: Any, graph: Any) -> Any:
        try:
            module, inputs = build(node, graph)
        except NotHere:
            if before is None:
                raise NotImplementedError(f"{node.operation_type} in this form") from None
            return before(node, graph)
        return OperationConverterResult(module, OnnxMapping(inputs, node.output_values))

    return convert
