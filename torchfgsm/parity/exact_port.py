"""The port's gradients in float64: where float32 rounding may send a correct program.

At an example it must be the original's own float64 gradient, or it explains nothing.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchfgsm.judging.label_slope import UNITS, LabelSlope
from torchfgsm.judging.signs import common_scale
from torchfgsm.models.calling import call_model
from torchfgsm.parity.cases import Case
from torchfgsm.parity.data import Array, Data
from torchfgsm.parity.port import keras_loss

# How far rounding may move a point, in units of the last place of the example's largest entry.
_UNITS = 8
_NEIGHBOURS = 64


@dataclass(frozen=True, eq=False)
class ExactPort:
    """A case's gradients by the port in float64; the model is copied when it is first needed.

    Attributes:
        case: A case of kind "perturb".
        model: The converted model, with the head that the case's `output` needs. Not changed.
        data: The batch, whose labels the attack takes, or whose inputs it predicts them on.
    """

    case: Case
    model: nn.Module
    data: Data

    def near(self, x: Mapping[str, Array], example: int) -> Mapping[str, Array]:
        """The gradients of an example's own loss, at the example first, then around it.

        The input of a ReLU, or the two largest of a maximum, may differ by rounding alone. Then
        float32 takes one side or the other by the order of its sums, and both are right.

        Args:
            x: The inputs of the batch.
            example: Its place in the batch.

        Returns:
            Input name -> float64 array (1 + K, ...), whatever the loss' weight and reduction.
        """
        places = _around({name: value[example] for name, value in x.items()})
        with torch.enable_grad():
            output, leaves = _run(self._exact, places)
            labels = self._labels[example : example + 1]
            rows = labels.to(output.device).repeat_interleave(len(output), dim=0)
            found = torch.autograd.grad(self._loss(rows, output), leaves)
        return {name: g.cpu().numpy() for name, g in zip(x, found, strict=True)}

    def head(self, x: Mapping[str, Array], gradient: Mapping[str, Array]) -> dict[str, LabelSlope]:
        """What the rounding of the model's own softmax does to gradients of its probabilities.

        Its derivative at the most probable class is p (g - sum of p g), where g is the loss'
        derivative: a difference of two numbers that are nearly the same where p is nearly 1, and so
        wrong by an absolute error, as the slope of a sure label's logit is. The other classes keep
        their relative precision.

        Args:
            x: The inputs of the batch.
            gradient: The original's float64 gradients there, of which the loss takes its scale.

        Returns:
            Input name -> the derivative of the most probable class' logit, and the largest error of
            the loss' slope there; nothing where the model ends in no softmax of its own.
        """
        without_head: Any = getattr(self.model, "without_head", None)
        if self.case.output != "probabilities" or without_head is None:
            return {}
        with torch.enable_grad():
            logits, leaves = _run(copy.deepcopy(without_head()).double(), x)
            p = logits.softmax(dim=1)
            rows = self._labels.to(p.device)
            loss = self._loss(rows, p)
            (g,) = torch.autograd.grad(loss, p, retain_graph=True)
            own = torch.autograd.grad(loss, leaves, retain_graph=True)
            slopes = torch.autograd.grad(logits.amax(dim=1).sum(), leaves)
        names = list(x)
        pairs = [(a.cpu().numpy(), gradient[name]) for name, a in zip(names, own, strict=True)]
        scale = np.array([_scale([(a[i], b[i]) for a, b in pairs]) for i in range(len(p))])
        top = p.argmax(dim=1, keepdim=True)
        terms = (p.shape[1] + 1) * (p * g).abs().amax(dim=1) + 2 * g.abs().gather(1, top)[:, 0]
        limit = scale * UNITS["float32"] * terms.detach().cpu().numpy()
        found = [LabelSlope(slope.cpu().numpy(), limit) for slope in slopes]
        return dict(zip(names, found, strict=True))

    @functools.cached_property
    def _exact(self) -> nn.Module:
        return copy.deepcopy(self.model).double()

    @functools.cached_property
    def _labels(self) -> Tensor:
        given = next(iter(self.data.labels(self.case).values()), None)
        if given is not None:
            return torch.from_numpy(np.asarray(given))
        return _run(self._exact, self.data.x)[0].argmax(dim=1).cpu()

    def _loss(self, labels: Tensor, output: Tensor) -> Tensor:
        """The loss that the attack grows, summed, so that each row has its own gradient."""
        if self.case.library == "nsl":
            found: Tensor = keras_loss({**self.case.loss, "reduction": "sum"})(labels, output)
            return found
        target = labels.to(output) if labels.ndim > 1 else labels
        loss = F.cross_entropy(output, target, reduction="sum")
        return -loss if self.case.labels == "target" else loss


def _scale(pairs: Sequence[tuple[Array, Array]]) -> float:
    """The positive factor that makes the port's gradient the original's; 0 where none does."""
    own = np.concatenate([a.ravel() for a, _ in pairs])
    theirs = np.concatenate([b.ravel() for _, b in pairs])
    return common_scale(own, theirs)


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
