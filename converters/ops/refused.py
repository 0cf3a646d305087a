"""Operations that have no differentiable counterpart, and what to do instead."""

from __future__ import annotations

from typing import Any

from torchfgsm.converters.ops.registry import Build, Built, refuse

_QUANTISED = (
    "ConvInteger",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
)
_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike")
_ALSO_RANDOM = ("RandomUniform", "RandomUniformLike")


def _quantised(node: Any, graph: Any) -> Built:
    refuse(node, "it computes in integers; convert the float model, not the quantised one")


def _random(node: Any, graph: Any) -> Built:
    refuse(node, "it draws random numbers; export the model in inference mode")


BUILDERS: dict[str, Build] = {
    **dict.fromkeys(_QUANTISED, _quantised),
    **dict.fromkeys((*_RANDOM, *_ALSO_RANDOM), _random),
}
