"""Products of matrices."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfgsm.converters.ops.registry import Build, Built, Function, constant, given, number


class Gemm(nn.Module):
    """alpha * A B + beta * C, where A and B may be taken transposed."""

    def __init__(self, alpha: float, beta: float, transposed: tuple[bool, bool]) -> None:
        super().__init__()
        self.alpha, self.beta, self.transposed = alpha, beta, transposed

    def forward(self, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        """Multiplies ``a`` (N, I) by ``b`` (I, O) and adds ``c``, which broadcasts to (N, O)."""
        a = a.t() if self.transposed[0] else a
        b = b.t() if self.transposed[1] else b
        if self.alpha == self.beta == 1 and c is not None and c.dim() == 1:
            return F.linear(a, b.t(), c if len(c) == b.shape[1] else c.expand(b.shape[1]))
        product = torch.matmul(a, b) * self.alpha
        return product if c is None else product + self.beta * c

    def extra_repr(self) -> str:
        """Shows the settings."""
        return f"alpha={self.alpha:g}, beta={self.beta:g}, transposed={self.transposed}"


def einsum(*tensors: Tensor, equation: str) -> Tensor:
    """Returns the sum of products that the equation names."""
    return torch.einsum(equation, *tensors)


def _gemm(node: Any, graph: Any) -> Built:
    a = node.attributes
    transposed = bool(a.get("transA")), bool(a.get("transB"))
    module = Gemm(number(node, "alpha", 1.0), number(node, "beta", 1.0), transposed)
    return module, tuple(name for name in node.input_values if name)


def _einsum(node: Any, graph: Any) -> Built:
    return Function(einsum, equation=node.attributes["equation"]), node.input_values


def _triangle(node: Any, graph: Any) -> Built:
    diagonal = constant(node, graph, 1) if given(node, 1) else 0
    diagonal = diagonal[0] if isinstance(diagonal, list) else diagonal
    function = torch.triu if node.attributes.get("upper", 1) else torch.tril
    return Function(function, diagonal=diagonal), node.input_values[:1]


BUILDERS: dict[str, Build] = {
    "Einsum": _einsum,
    "Gemm": _gemm,
    "MatMul": lambda node, graph: (Function(torch.matmul), node.input_values),
    "Trilu": _triangle,
}
