"""The float64 gradients around a point: whether it lies on a kink, where a gradient jumps.

The input of a ReLU, or the two largest of a maximum, may differ by rounding alone. Then float32
takes one side or the other by the order of its sums, and both gradients are right.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchfgsm.models.calling import call_model
from torchfgsm.parity.cases import Case
from torchfgsm.parity.data import Array, Data
from torchfgsm.parity.port import keras_loss

# How far rounding may move a point, in units of the last place of the example's largest entry.
_UNITS = 8
_NEIGHBOURS = 64

# (the inputs of the batch, example) -> input -> float64 gradients (K, ...): at the example itself
# first, then around it.
Near = Callable[[Mapping[str, Array], int], Mapping[str, Array]]


def gradients_near(case: Case, model: nn.Module, data: Data) -> Near:
    """The gradients of an attack's loss by the port in float64, around one example at a time.

    They are those of the example's own loss, whatever its weight and the batch's reduction.

    Args:
        case: A case of kind "perturb".
        model: The converted model, with the head that the case's `output` needs. Not changed.
        data: The batch, whose labels the attack takes, or whose inputs it predicts them on.
    """

    @functools.cache
    def exact() -> nn.Module:
        return copy.deepcopy(model).double()

    def near(x: Mapping[str, Array], example: int) -> Mapping[str, Array]:
        given = next(iter(data.labels(case).values()), None)
        clean = {name: value[[example]] for name, value in data.x.items()}
        with torch.enable_grad():
            if given is None:
                labels = _run(exact(), clean)[0].argmax(dim=1)
            else:
                labels = torch.from_numpy(np.asarray(given)[[example]])
            output, leaves = _run(exact(), _around({n: v[example] for n, v in x.items()}))
            rows = labels.to(output.device).repeat_interleave(len(output), dim=0)
            found = torch.autograd.grad(_loss(case, rows, output), leaves)
        return {name: g.cpu().numpy() for name, g in zip(x, found, strict=True)}

    return near


def _run(model: nn.Module, x: Mapping[str, Array]) -> tuple[Tensor, list[Tensor]]:
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    leaves = {
        name: torch.from_numpy(np.asarray(value, np.float64)).to(device).requires_grad_()
        for name, value in x.items()
    }
    output: Tensor = call_model(model, leaves if len(leaves) > 1 else next(iter(leaves.values())))
    return output, [*leaves.values()]


def _around(x: dict[str, Array]) -> dict[str, Array]:
    random = np.random.default_rng(0)
    found = {}
    for name, value in x.items():
        unit = float(np.spacing(np.float32(np.abs(value).max(initial=0.0))))
        moves = random.uniform(-_UNITS * unit, _UNITS * unit, (1 + _NEIGHBOURS, *value.shape))
        moves[0] = 0
        found[name] = np.asarray(value, np.float64) + moves
    return found


def _loss(case: Case, labels: Tensor, output: Tensor) -> Tensor:
    """The loss that the attack grows, summed, so that each row has its own gradient."""
    if case.library == "nsl":
        found: Tensor = keras_loss({**case.loss, "reduction": "sum"})(labels, output)
        return found
    loss = F.cross_entropy(output, labels.to(output) if labels.ndim > 1 else labels)
    return (-1 if case.labels == "target" else 1) * len(output) * loss
