"""What an attack costs whatever the load: forwards, backwards and operations per call.

The least is counted in the same test, on a loop written by hand with each step in its plainest
form. All that the port does beyond it is named here, piece by piece, with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import torchfgsm

EPS = {"linf": 0.1, "l2": 0.5, "l1": 1.0}
STEP = {"linf": 0.04, "l2": 0.2, "l1": 0.4}
TURNS = 4
# They read and write no entry.
VIEWS = {"detach", "expand", "select", "slice", "split_with_sizes", "t", "unsqueeze", "view"}

MODELS: dict[str, Callable[[], nn.Module]] = {
    "MLP": lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)),
    "CNN": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    ),
}


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what torch dispatches below autograd, in place or not, without views."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        name = name if name.startswith("_") else name.rstrip("_")
        if name not in VIEWS:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


def operations(call: Callable[[], object]) -> Counter[str]:
    """Operation -> how often a call dispatches it."""
    counting = _Operations()
    with counting:
        call()
    return counting.found


def direction(grad: Tensor, norm: str) -> Tensor:
    """The step of length one, for gradients that are finite, not zero and without ties."""
    if norm == "linf":
        return grad.sign()
    rows = grad.flatten(1)
    if norm == "l2":
        lengths: Tensor = torch.linalg.vector_norm(rows, dim=1)
        return grad / lengths.reshape(-1, 1, 1, 1)
    sizes = rows.abs()
    return grad.sign() * (sizes == sizes.amax(1, keepdim=True)).view_as(grad)


def project(delta: Tensor, norm: str) -> Tensor:
    """The nearest point of the ball of radius `EPS`."""
    eps = EPS[norm]
    if norm == "linf":
        return delta.clamp(-eps, eps)
    rows = delta.flatten(1)
    if norm == "l2":
        lengths: Tensor = torch.linalg.vector_norm(rows, dim=1)
        return delta * (eps / lengths).clamp(max=1).reshape(-1, 1, 1, 1)
    sizes = rows.abs()
    ordered = sizes.sort(dim=1, descending=True).values
    surplus = ordered.cumsum(1) - eps
    kept = (ordered * torch.arange(1, 17, dtype=rows.dtype) > surplus).sum(1, keepdim=True)
    threshold = (surplus.gather(1, kept - 1) / kept).clamp(min=0)
    return (rows.sign() * (sizes - threshold).relu()).view_as(delta)


def by_hand(model: nn.Module, x: Tensor, y: Tensor | None, norm: str, turns: int) -> Tensor:
    """The least: one forward and one input gradient per turn, labels from the same forward."""
    moved = x
    for _ in range(turns):
        leaf = moved.detach().requires_grad_()
        output = model(leaf)
        if y is None:
            y = output.detach().argmax(1)
        (grad,) = torch.autograd.grad(F.cross_entropy(output, y, reduction="sum"), leaf)
        with torch.no_grad():
            if turns == 1:
                moved = leaf + EPS[norm] * direction(grad, norm)
            else:
                moved = x + project(leaf + STEP[norm] * direction(grad, norm) - x, norm)
            moved = moved.clamp(0, 1)
    return moved


def port(
    model: nn.Module, x: Tensor, y: Tensor | None, norm: str, turns: int, validate: bool
) -> Tensor:
    """The same by the package."""
    found: Tensor
    given: dict[str, Any] = {"eps": EPS[norm], "norm": norm, "clip_min": 0.0, "clip_max": 1.0}
    if turns == 1:
        found = torchfgsm.fgsm(model, x, y, validate=validate, **given)
    else:
        found = torchfgsm.pgd(
            model,
            x,
            y,
            step_size=STEP[norm],
            iterations=turns,
            random_start=False,
            validate=validate,
            **given,
        )
    return found


def _tree(rows: Tensor) -> Tensor:
    # Sixteen entries: four rounds of halves.
    for _ in range(4):
        half = rows.shape[1] // 2
        rows = rows[:, :half] + rows[:, half:]
    return rows.reshape(-1)


def beyond_the_least(norm: str, turns: int) -> Counter[str]:
    """What the port does beyond the loop by hand, and why; operations in their plainest form."""
    grad, column = torch.ones(2, 16), torch.ones(2)
    each_turn: list[Callable[[], object]] = [
        # Losses are per example, so that one sum or mean serves any loss function.
        lambda: column.sum(),
        # NSL's rule: NaN and infinite entries of a gradient count as 0.
        lambda: torch.nan_to_num(grad),
    ]
    instead: list[Callable[[], object]] = []
    if turns == 1:
        # The originals add the rounded perturbation to the input; with a ball by hand too.
        each_turn.append(lambda: grad + grad - grad)
    if norm == "l2":
        each_turn += [
            # Scaled by a power of two first: no square can under- or overflow.
            lambda: 2 * torch.frexp(grad.abs().amax(1)).mantissa,
            lambda: column / column,
            lambda: torch.where((column > 0) & torch.isfinite(column), column, 1.0),
            lambda: grad / grad,
            # A fixed tree of additions: the same bits whatever the threads and strides.
            lambda: torch.sqrt(torch.clamp(_tree(grad.square()), min=0.0)),
            # An all-zero gradient gives no step.
            lambda: torch.where(column == 0, 0.0, column),
        ]
        instead.append(lambda: torch.linalg.vector_norm(grad, dim=1))
    if norm == "l1":
        # Ties share the step, as in the originals; their number is the divisor.
        each_turn += [
            lambda: (grad == column[:, None]).sum(dim=1),
            lambda: grad.abs() / grad,
        ]
    if turns > 1 and norm == "l2":
        each_turn += [
            lambda: torch.sqrt(torch.clamp(_tree(grad.square()), min=0.0)),
            # What lies in the ball is kept in every bit.
            lambda: torch.where(column <= 1.0, 1.0, column),
        ]
        instead += [lambda: torch.linalg.vector_norm(grad, dim=1), lambda: column.clamp(max=1)]
    if turns > 1 and norm == "l1":
        each_turn.append(lambda: torch.where(_tree(grad)[:, None] <= 1.0, grad, grad))
    total: Counter[str] = Counter()
    for _ in range(turns):
        for piece in each_turn:
            total.update(operations(piece))
        for piece in instead:
            total.subtract(operations(piece))
    return total


def of_validation(labels: bool) -> Counter[str]:
    """What looking at values adds, once per call whatever the turns; each answer is read."""
    x, y = torch.zeros(2, 16), torch.zeros(2, dtype=torch.int64)
    pieces: list[Callable[[], object]] = [
        lambda: [bound.item() for bound in torch.aminmax(x)],  # finite entries
        lambda: bool((x >= 1).all()),  # an output that looks like probabilities: here it does not
    ]
    if labels:
        pieces.append(lambda: bool((y < 0).any()))
    total: Counter[str] = Counter()
    for piece in pieces:
        total.update(operations(piece))
    return total


def of_buffers(model: nn.Module) -> Counter[str]:
    """Copies of all buffers, once per call: a model may write them in eval mode, too."""
    buffers = list(model.buffers())
    if not buffers:
        return Counter()
    copies: list[Tensor] = []
    found = operations(lambda: copies.extend(map(torch.empty_like, buffers)))
    with torch.no_grad():
        found.update(operations(lambda: torch._foreach_copy_(copies, buffers)))
    return found


def of_label_range() -> Counter[str]:
    """The labels' smallest and largest, looked at by the loss in every turn."""
    y = torch.zeros(2, dtype=torch.int64)
    return operations(lambda: (y.min().item(), y.max().item()))


def case(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A model whose outputs are no probabilities, an input and its labels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MODELS[name]().eval()
        model[-1].bias.data[0] = -3.0  # type: ignore[index]
        return model, torch.rand(4, 1, 4, 4) * 0.8 + 0.1, torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize("given", [True, False], ids=["given", "predicted"])
@pytest.mark.parametrize("turns", [1, TURNS], ids=["fgsm", "pgd"])
@pytest.mark.parametrize("norm", list(EPS))
@pytest.mark.parametrize("name", list(MODELS))
def test_operations_of_a_call(name: str, norm: str, turns: int, given: bool) -> None:
    model, x, labels = case(name)
    y = labels if given else None
    torch.testing.assert_close(
        port(model, x, y, norm, turns, False), by_hand(model, x, y, norm, turns)
    )
    forwards = 0

    def count(*_: object) -> None:
        nonlocal forwards
        forwards += 1

    hook = model.register_forward_hook(count)
    found = operations(lambda: port(model, x, y, norm, turns, False))
    hook.remove()
    assert forwards == turns
    assert found["nll_loss_backward"] == turns
    least = operations(lambda: by_hand(model, x, y, norm, turns))
    found.subtract(least)
    found.subtract(beyond_the_least(norm, turns))
    found.subtract(of_buffers(model))
    assert {operation: left for operation, left in found.items() if left} == {}


@pytest.mark.parametrize("given", [True, False], ids=["given", "predicted"])
@pytest.mark.parametrize("turns", [1, TURNS], ids=["fgsm", "pgd"])
def test_operations_of_validation(turns: int, given: bool) -> None:
    model, x, labels = case("MLP")
    y = labels if given else None
    found = operations(lambda: port(model, x, y, "linf", turns, True))
    found.subtract(operations(lambda: port(model, x, y, "linf", turns, False)))
    found.subtract(of_validation(given))
    for _ in range(turns):
        found.subtract(of_label_range())
    assert {operation: left for operation, left in found.items() if left} == {}
