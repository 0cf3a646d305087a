"""Which module an ONNX node becomes: this package's own, or onnx2torch's."""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from torchfgsm.converters.ops import (
    activations,
    arithmetic,
    control_flow,
    convolution,
    indexing,
    linear,
    noise,
    normalization,
    padding,
    recurrent,
    reductions,
    refused,
    resizing,
    shapes,
    transposed,
)
from torchfgsm.converters.ops.registry import Build, NotHere

# Each has BUILDERS, by operation.
_FAMILIES = (
    activations,
    arithmetic,
    control_flow,
    convolution,
    indexing,
    linear,
    noise,
    normalization,
    padding,
    recurrent,
    reductions,
    refused,
    resizing,
    shapes,
    transposed,
)
_BUILDERS: dict[str, Build] = {
    name: build for family in _FAMILIES for name, build in family.BUILDERS.items()
}
# onnx2torch makes these of torchvision, which is kept out.
_OF_TORCHVISION = ("NonMaxSuppression", "RoiAlign")


def import_onnx2torch() -> None:
    """Imports onnx2torch without torchvision.

    Two of its modules import torchvision. Where TensorFlow 2.21 is loaded that aborts the process:
    both bring LLVM, whose options cannot be registered twice.
    """
    if "onnx2torch" in sys.modules or "torchvision" in sys.modules:
        import onnx2torch

        return
    with _without_torchvision():
        import onnx2torch  # noqa: F401


@contextlib.contextmanager
def _without_torchvision() -> Iterator[None]:
    operations = types.ModuleType("torchvision.ops")
    package = types.ModuleType("torchvision")
    package.ops = operations  # type: ignore[attr-defined]
    operations.roi_align = None  # type: ignore[attr-defined]
    stand_in = {"torchvision": package, "torchvision.ops": operations}
    sys.modules.update(stand_in)
    try:
        yield
    finally:
        for name in stand_in:
            del sys.modules[name]


class Converters:
    """Makes modules of nodes.

    Args:
        versions: the operation set of each domain.
        batch_norms: training settings of BatchNormalization, by the name of its moving mean.
    """

    def __init__(
        self, versions: Mapping[str, int], batch_norms: Mapping[str, Mapping[str, Any]]
    ) -> None:
        import_onnx2torch()
        self._versions, self._batch_norms = versions, batch_norms

    def __call__(self, node: Any, graph: Any) -> tuple[nn.Module, tuple[str, ...]]:
        """Returns the module of a node and the names of the values that it is called with.

        Raises:
            NotImplementedError: there is no converter of the operation, or of its form.
        """
        if node.domain == "":
            with contextlib.suppress(NotHere):
                return self._own(node, graph)
        return self._of_onnx2torch(node, graph)

    def _own(self, node: Any, graph: Any) -> tuple[nn.Module, tuple[str, ...]]:
        if node.operation_type == "BatchNormalization":
            return normalization.batch_norm(node, graph, self._batch_norms)
        if node.operation_type not in _BUILDERS:
            raise NotHere
        return _BUILDERS[node.operation_type](node, graph)

    def _of_onnx2torch(self, node: Any, graph: Any) -> tuple[nn.Module, tuple[str, ...]]:
        from onnx2torch.node_converters import get_converter

        if node.operation_type in _OF_TORCHVISION:
            raise NotImplementedError("it would need torchvision")
        version = self._versions.get(node.domain, 1)
        try:
            convert = get_converter(node.operation_type, version, node.domain)
        except NotImplementedError:
            raise NotImplementedError("there is no converter for it in this form") from None
        try:
            result = convert(node, graph)
        except KeyError as error:  # it looks weights up among the constants
            raise NotImplementedError(f"it takes {error} only as a constant") from error
        return result.torch_module, tuple(result.onnx_mapping.inputs)
