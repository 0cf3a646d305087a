"""Who makes the step: the port, plain torch operations, these compiled, and the peers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import torchfgsm
from benchmarks.speed import peers
from benchmarks.speed.step_inputs import Inputs, Step

EAGER = "torch operations"
COMPILED = "torch operations, compiled"
GUARD = 1e-12

_ORDERS = {"linf": math.inf, "l2": 2, "l1": 1}
# Largest distance from float64; entries move by about 0.1, under L1 one by 0.5.
_TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 8e-3}
_CHUNK = 2**24
_NO_TENSORS: list[Tensor | None] = [None] * 5


@dataclass(frozen=True)
class Settings:
    """The step: its norm, its length, clipped to [0, 1].

    Attributes:
        norm: "linf", "l2" or "l1".
        eps: Its length.
    """

    norm: str
    eps: float

    @classmethod
    def of(cls, norm: str, example: int) -> Settings:
        """A length under which entries move by about as much, whatever the norm."""
        eps = {"linf": 0.1, "l2": 0.1 * math.sqrt(example), "l1": 0.5}[norm]
        return cls(norm, eps)


@dataclass(frozen=True)
class Maker:
    """One way to make the step.

    Attributes:
        name: As in the rows.
        make: Builds it; raises where it cannot.
        version: Gives the version.
        note: What is worth knowing about it.
    """

    name: str
    make: Callable[[Settings, Inputs], Step]
    version: Callable[[], str] = lambda: torch.__version__
    note: str = ""


def operations(x: Tensor, grad: Tensor, norm: str, eps: float) -> Tensor:
    """The step as one writes it in torch."""
    if norm == "linf":
        direction = grad.sign()
    elif norm == "l2":
        squares = grad.square().sum(1, keepdim=True)
        direction = grad / squares.clamp(min=GUARD).sqrt()
    else:
        sizes = grad.abs()
        largest = sizes == sizes.amax(1, keepdim=True)
        direction = grad.sign() * largest / largest.sum(1, keepdim=True).to(grad.dtype)
    return (x + eps * direction).clamp(0, 1)


def difference(result: object, x: Tensor, grad: Tensor, settings: Settings) -> str:
    """What is wrong with a moved input, "" when nothing is; against the step in float64."""
    found = torch.as_tensor(result)
    if (found.shape, found.dtype) != (x.shape, x.dtype):
        return f"gives {found.dtype} {tuple(found.shape)} where {x.dtype} is expected"
    worst = 0.0
    rows = max(1, _CHUNK // x.shape[1])
    for begin in range(0, len(x), rows):
        part = slice(begin, begin + rows)
        moved = operations(x[part].double(), grad[part].double(), settings.norm, settings.eps)
        worst = max(worst, float((found[part].to(x.device) - moved).abs().max()))
    if worst <= _TOLERANCE[x.dtype]:
        return ""
    return f"up to {worst:.1e} away from the step in float64"


def _torchfgsm(settings: Settings, inputs: Inputs) -> Step:
    return lambda x, grad: torchfgsm.perturb(
        x,
        grad,
        eps=settings.eps,
        norm=settings.norm,
        clip_min=0.0,
        clip_max=1.0,
        guard=GUARD,
        validate=False,
    )


def _op(settings: Settings, inputs: Inputs) -> Step:
    """The op that `torchfgsm.perturb` calls on CUDA, without its checks of the arguments."""
    op = torch.ops.torchfgsm.perturb.default
    numbers = [settings.eps, math.inf, 0.0, 1.0, 1.0]
    rules = ("zero", False, GUARD, True, "project_clip", "max")

    def step(x: Tensor, grad: Tensor) -> Tensor:
        found: list[Tensor] = op([x], [grad], [x], numbers, _NO_TENSORS, settings.norm, *rules)
        return found[0]

    return step


def _eager(settings: Settings, inputs: Inputs) -> Step:
    return lambda x, grad: operations(x, grad, settings.norm, settings.eps)


def _compiled(settings: Settings, inputs: Inputs) -> Step:
    compiled = torch.compile(operations, dynamic=False, fullgraph=True)
    return lambda x, grad: compiled(x, grad, settings.norm, settings.eps)


def _cleverhans(settings: Settings, inputs: Inputs) -> Step:
    optimize_linear = peers.module("cleverhans.torch.utils").optimize_linear
    order = _ORDERS[settings.norm]
    return lambda x, grad: torch.clamp(x + optimize_linear(grad, settings.eps, order), 0, 1)


def _torchattacks(settings: Settings, inputs: Inputs) -> Step:
    peers.module("torchattacks")
    raise NotImplementedError(
        "its step is written inside its attacks; under L-inf it is the torch operations above"
    )


def _foolbox(settings: Settings, inputs: Inputs) -> Step:
    attacks = peers.module("foolbox").attacks
    to_eager = peers.module("eagerpy").astensor
    descent = peers.module("foolbox.attacks.gradient_descent_base")
    attack = {
        "linf": attacks.LinfFastGradientAttack,
        "l2": attacks.L2FastGradientAttack,
        "l1": attacks.L1FastGradientAttack,
    }[settings.norm]()
    optimizer = descent.GDOptimizer(None, settings.eps)

    def step(x: Tensor, grad: Tensor) -> Tensor:
        start = to_eager(x)
        direction = attack.normalize(to_eager(grad), x=start, bounds=(0, 1))
        moved = attack.project(start + 1.0 * optimizer(direction), start, settings.eps)
        result: Tensor = moved.clip(0, 1).raw
        return result

    return step


def _art(settings: Settings, inputs: Inputs) -> Step:
    evasion = peers.module("art.attacks.evasion")
    classification = peers.module("art.estimators.classification")
    example = inputs.sets[0][0].shape[1]
    if inputs.sets[0][0].numel() > _CHUNK:
        raise NotImplementedError("not asked: its step runs in numpy on the CPU, here for minutes")
    arrays = {x.data_ptr(): (x.cpu().numpy(), grad.cpu().numpy()) for x, grad in inputs.sets}
    classifier = classification.PyTorchClassifier(
        torch.nn.Linear(example, 2),
        torch.nn.CrossEntropyLoss(),
        (example,),
        2,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    classifier.loss_gradient = lambda x, y: y
    order = _ORDERS[settings.norm]
    attack = evasion.FastGradientMethod(
        classifier, norm=order, eps=settings.eps, eps_step=settings.eps
    )

    def step(x: Tensor, grad: Tensor) -> object:
        array, gradient = arrays[x.data_ptr()]
        direction = attack._compute_perturbation(array, gradient, None)
        return attack._apply_perturbation(array, direction, settings.eps)

    return step


_PORT = Maker("torchfgsm", _torchfgsm, lambda: torchfgsm.__version__)
_OP = Maker("torchfgsm, the op", _op, lambda: torchfgsm.__version__)
_EAGER = Maker(EAGER, _eager)

MAKERS = (
    _PORT,
    _EAGER,
    Maker(COMPILED, _compiled),
    Maker("cleverhans", _cleverhans, peers.version_of("cleverhans")),
    Maker("torchattacks", _torchattacks, peers.version_of("torchattacks")),
    Maker("foolbox", _foolbox, peers.version_of("foolbox")),
    Maker("art", _art, peers.version_of("art"), "numpy on the CPU, without the copies"),
)
ON_HOST = (_PORT, _OP, _EAGER)
