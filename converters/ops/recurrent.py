"""LSTM, GRU and RNN with their weights as arguments.

``torch.lstm`` is not used: where cuDNN runs it, its backward works in training mode alone and has
no second derivative.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfgsm.converters.ops.registry import Build

Activation = Callable[[Tensor], Tensor]
State = tuple[Tensor, ...]


@dataclass(frozen=True)
class RnnCell:
    """ONNX RNN: one gate."""

    activations: tuple[Activation, ...]
    gates = 1
    states = 1

    def __call__(self, x: Tensor, state: State, step: Step) -> State:
        """Returns the next state (h,) of the projected input ``x`` (N, H)."""
        return (self.activations[0](x + F.linear(state[0], step.weight)),)

    def split_bias(self, bias: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the bias of the input's projection, and the one that stays with the state's."""
        ours, recurrent = bias.chunk(2)
        return ours + recurrent, None


@dataclass(frozen=True)
class LstmCell(RnnCell):
    """ONNX LSTM: gates i, o, f, c; peepholes i, o, f."""

    gates = 4
    states = 2

    def __call__(self, x: Tensor, state: State, step: Step) -> State:
        """Returns the next state (h, c) of the projected input ``x`` (N, 4H)."""
        gate, candidate, output = self.activations
        h, c = state
        i, o, f, new = (x + F.linear(h, step.weight)).chunk(4, dim=-1)
        if step.peepholes is None:
            c = gate(f) * c + gate(i) * candidate(new)
            return gate(o) * output(c), c
        p_i, p_o, p_f = step.peepholes.chunk(3)
        c = gate(f + p_f * c) * c + gate(i + p_i * c) * candidate(new)
        return gate(o + p_o * c) * output(c), c


@dataclass(frozen=True)
class GruCell(RnnCell):
    """ONNX GRU: gates z, r, h; ``reset_after`` is its linear_before_reset."""

    reset_after: bool = False
    gates = 3

    def __call__(self, x: Tensor, state: State, step: Step) -> State:
        """Returns the next state (h,) of the projected input ``x`` (N, 3H)."""
        gate, candidate = self.activations
        (h,) = state
        size = h.shape[-1]
        x_zr, x_new = x[..., : 2 * size], x[..., 2 * size :]
        if self.reset_after:
            projected = F.linear(h, step.weight)
            h_new = projected[..., 2 * size :]
            z, r = gate(x_zr + projected[..., : 2 * size]).chunk(2, dim=-1)
            new = candidate(x_new + r * (h_new if step.bias is None else h_new + step.bias))
        else:
            z, r = gate(x_zr + F.linear(h, step.weight[: 2 * size])).chunk(2, dim=-1)
            new = candidate(x_new + F.linear(r * h, step.weight[2 * size :]))
        return ((1 - z) * new + z * h,)

    def split_bias(self, bias: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the bias of the input's projection, and the one that the reset gate scales."""
        if not self.reset_after:
            return super().split_bias(bias)
        ours, recurrent = bias.chunk(2)
        z, r, new = recurrent.chunk(3)
        return ours + torch.cat([z, r, torch.zeros_like(new)]), new


@dataclass(frozen=True)
class Step:
    """What a cell needs beside its input and state: the recurrent weights of one direction."""

    weight: Tensor
    bias: Tensor | None
    peepholes: Tensor | None


class Recurrent(nn.Module):
    """A recurrent layer over all steps, in one direction or both.

    Args:
        cells: the cell of each direction.
        backwards: whether each direction runs from the last step to the first.
        batch_first: ONNX's layout 1.
        outputs: how many of (every h, last h, last c) are returned.
    """

    def __init__(
        self, cells: Sequence[RnnCell], backwards: Sequence[bool], batch_first: bool, outputs: int
    ) -> None:
        super().__init__()
        self.cells, self.backwards = tuple(cells), tuple(backwards)
        self.batch_first, self.outputs = batch_first, outputs

    def forward(
        self,
        x: Tensor,
        weight: Tensor,
        recurrent: Tensor,
        bias: Tensor | None = None,
        lengths: Tensor | None = None,
        h: Tensor | None = None,
        c: Tensor | None = None,
        peepholes: Tensor | None = None,
    ) -> Any:
        """Runs the layer, as ONNX describes it.

        Args:
            x: (T, N, I); (N, T, I) where ``batch_first``.
            weight: (D, G * H, I) for D directions and G gates.
            recurrent: (D, G * H, H).
            bias: (D, 2 * G * H).
            lengths: (N,); later steps give zeros and leave the state as it is.
            h: the first state, (D, N, H); (N, D, H) where ``batch_first``.
            c: the first cell state of an LSTM, likewise.
            peepholes: (D, 3 * H).

        Returns:
            Every h, (T, D, N, H) or (N, T, D, H), and the last states in the layout of ``h``.
        """
        if self.batch_first:
            x, h, c = (None if t is None else t.transpose(0, 1) for t in (x, h, c))  # type: ignore[assignment]
        every, last = [], []
        for d, cell in enumerate(self.cells):
            zeros = x.new_zeros(x.shape[1], recurrent.shape[-1])
            first = [zeros if t is None else t[d] for t in (h, c)[: cell.states]]
            inside, beside = (None, None) if bias is None else cell.split_bias(bias[d])
            step = Step(recurrent[d], beside, None if peepholes is None else peepholes[d])
            # The input's part of all steps is one matrix product.
            projected = F.linear(x, weight[d], inside)
            outputs, state = self._run(d, projected, tuple(first), step, lengths)
            every.append(outputs)
            last.append(state)
        axis = 1 if self.batch_first else 0
        ends = [torch.stack(states, dim=axis) for states in zip(*last, strict=True)]
        order = (2, 0, 1, 3) if self.batch_first else (0, 1, 2, 3)
        results = (torch.stack(every, dim=1).permute(order), *ends)[: self.outputs]
        return results if self.outputs > 1 else results[0]

    def _run(
        self, direction: int, x: Tensor, state: State, step: Step, lengths: Tensor | None
    ) -> tuple[Tensor, State]:
        cell, steps = self.cells[direction], list(enumerate(x.unbind(0)))
        outputs = []
        for t, projected in reversed(steps) if self.backwards[direction] else steps:
            new = cell(projected, state, step)
            out = new[0]
            if lengths is not None:
                alive = (t < lengths)[:, None]
                out = torch.where(alive, out, 0)
                new = tuple(torch.where(alive, n, s) for n, s in zip(new, state, strict=True))
            state = new
            outputs.append(out)
        ordered = outputs[::-1] if self.backwards[direction] else outputs
        return torch.stack(ordered), state


def _hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Tensor:
    return torch.clamp(alpha * x + beta, 0, 1)


_ACTIVATIONS: dict[str, Activation] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}
_DEFAULTS = {
    "GRU": ["Sigmoid", "Tanh"],
    "LSTM": ["Sigmoid", "Tanh", "Tanh"],
    "RNN": ["Tanh"],
}


def _recurrent(node: Any, graph: Any) -> tuple[nn.Module, tuple[str, ...]]:
    a, kind = node.attributes, node.operation_type
    for name in ("clip", "input_forget"):
        if a.get(name):
            raise NotImplementedError(f"its attribute {name!r} is not supported")
    side = a.get("direction", "forward")
    backwards = {"forward": [False], "reverse": [True]}.get(side, [False, True])
    activations = _activations(node, len(backwards))
    options = {"reset_after": bool(a.get("linear_before_reset", 0))} if kind == "GRU" else {}
    make: Any = {"GRU": GruCell, "LSTM": LstmCell, "RNN": RnnCell}[kind]
    count = len(_DEFAULTS[kind])
    cells = [
        make(activations[count * d : count * (d + 1)], **options) for d in range(len(backwards))
    ]
    outputs = len(node.output_values)
    module = Recurrent(cells, backwards, bool(a.get("layout", 0)), outputs)
    return module, node.input_values


def _activations(node: Any, directions: int) -> tuple[Activation, ...]:
    a = node.attributes
    names = a.get("activations") or _DEFAULTS[node.operation_type] * directions
    alphas, betas = iter(a.get("activation_alpha", [])), iter(a.get("activation_beta", []))
    found: list[Activation] = []
    for name in names:
        if name.lower() == "hardsigmoid":
            alpha, beta = next(alphas, 0.2), next(betas, 0.5)
            found.append(functools.partial(_hard_sigmoid, alpha=alpha, beta=beta))
        elif name.lower() in _ACTIVATIONS:
            found.append(_ACTIVATIONS[name.lower()])
        else:
            raise NotImplementedError(f"its activation {name!r} is not supported")
    return tuple(found)


BUILDERS: dict[str, Build] = dict.fromkeys(("GRU", "LSTM", "RNN"), _recurrent)
