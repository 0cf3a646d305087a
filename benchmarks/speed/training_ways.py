"""One training step on `L(x) + 0.2 * L(x_adv)`, gradients left in the parameters, in every way."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchfgsm
from benchmarks.speed import peers
from torchfgsm import Recipe, Weighting, nsl
from torchfgsm.losses import SparseCategoricalCrossentropy

EPS = 8 / 255
MULTIPLIER = 0.2
RECIPE = Recipe(step=EPS, clip_min=0.0, clip_max=1.0, model_mode="keep")

Step = Callable[[nn.Module, Tensor, Tensor], None]


@dataclass(frozen=True)
class Way:
    """One way to make the step.

    Attributes:
        name: As in the rows.
        step: (model, x, y): fills the parameters' gradients, which are None before.
        version: Gives the version.
        float64: Whether it takes a model in float64.
        eval_mode: Whether its attack sees the model in eval mode.
        channels_last: Whether model and batches are in that memory format.
    """

    name: str
    step: Step
    version: Callable[[], str] = lambda: torch.__version__
    float64: bool = True
    eval_mode: bool = False
    channels_last: bool = False


def in_channels_last(
    model: nn.Module, batches: list[tuple[Tensor, Tensor]]
) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """A copy of the model, and the batches, in the memory format that convolutions like."""
    last = torch.channels_last
    moved = copy.deepcopy(model).to(memory_format=last)
    return moved, [(x.to(memory_format=last), y) for x, y in batches]


def by_hand(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Two forwards and two backwards: the clean loss's backward gives the input gradient too."""
    leaf = x.detach().requires_grad_()
    _backward(F.cross_entropy(model(leaf), y))
    x_adv = _moved(x, leaf.grad)
    _backward(MULTIPLIER * F.cross_entropy(model(x_adv), y))


def in_eval_mode(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """The usual loop whose attack sees the model in eval mode."""
    model.eval()
    leaf = x.detach().requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(model(leaf), y), leaf)
    model.train()
    _backward(_both(model, x, _moved(x, grad), y))


def usual_backward(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """The attack by `loss.backward()`, its parameter gradients thrown away, then both losses."""
    leaf = x.detach().requires_grad_()
    _backward(F.cross_entropy(model(leaf), y))
    x_adv = _moved(x, leaf.grad)
    model.zero_grad()
    _backward(_both(model, x, x_adv, y))


def usual_grad(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """The attack by `autograd.grad` with respect to the input alone, then both losses."""
    leaf = x.detach().requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(model(leaf), y), leaf)
    _backward(_both(model, x, _moved(x, grad), y))


def cleverhans(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """CleverHans' attack in the usual loop."""
    fgsm = peers.module("cleverhans.torch.attacks.fast_gradient_method").fast_gradient_method
    x_adv = fgsm(model, x, EPS, math.inf, clip_min=0.0, clip_max=1.0, y=y).detach()
    model.zero_grad()
    _backward(_both(model, x, x_adv, y))


def torchattacks(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """The attack of torchattacks in the usual loop, in training mode."""
    _backward(_both(model, x, _torchattacks(model)(x, y), y))


def foolbox(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Foolbox' attack in the usual loop, in training mode, of which it warns."""
    attack, wrapped = _foolbox(model, x.device)
    x_adv = attack.run(wrapped, x, y, epsilon=EPS)
    model.zero_grad()
    _backward(_both(model, x, x_adv, y))


def art(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """ART's attack, by way of NumPy and in eval mode, in the usual loop."""
    attack = _art(model, tuple(x.shape[1:]), x.is_cuda)
    found = attack.generate(x.cpu().numpy(), y.cpu().numpy())
    model.train()
    model.zero_grad()
    _backward(_both(model, x, torch.from_numpy(found).to(x), y))


@lru_cache(maxsize=2)
def _torchattacks(model: nn.Module) -> Any:
    attack = peers.module("torchattacks").FGSM(model, eps=EPS)
    attack.set_model_training_mode(
        model_training=True, batchnorm_training=True, dropout_training=True
    )
    return attack


@lru_cache(maxsize=2)
def _foolbox(model: nn.Module, device: torch.device) -> tuple[Any, Any]:
    library = peers.module("foolbox")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        wrapped = library.PyTorchModel(model, bounds=(0, 1), device=device)
    return library.attacks.LinfFastGradientAttack(), wrapped


@lru_cache(maxsize=2)
def _art(model: nn.Module, shape: tuple[int, ...], cuda: bool) -> Any:
    classifier = peers.module("art.estimators.classification").PyTorchClassifier(
        model, nn.CrossEntropyLoss(), shape, 10, clip_values=(0.0, 1.0),
        device_type="gpu" if cuda else "cpu",
    )  # fmt: skip
    evasion = peers.module("art.attacks.evasion")
    return evasion.FastGradientMethod(classifier, eps=EPS, eps_step=EPS, batch_size=4096)


def in_nsl(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """NSL's loss: two forwards, the clean graph is kept for the training backward."""
    config = nsl.make_adv_reg_config(
        multiplier=MULTIPLIER,
        adv_step_size=EPS,
        adv_grad_norm="infinity",
        clip_value_min={"feature": 0.0},
        clip_value_max={"feature": 1.0},
    )
    adv_model = nsl.AdversarialRegularization(
        model, adv_config=config, loss=SparseCategoricalCrossentropy(from_logits=True)
    )
    _backward(adv_model({"feature": x, "label": y}).loss)


def step(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """The port's step: one forward pass in memory at a time."""
    weighting = Weighting.from_nsl(MULTIPLIER)
    torchfgsm.adversarial_step(model, x, y, recipe=RECIPE, weighting=weighting)


def port(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """The port's attack and weights in the usual loop; the attack sees the training mode."""
    x_adv = torchfgsm.attack(model, x, y, recipe=RECIPE)
    clean, adversarial = F.cross_entropy(model(x), y), F.cross_entropy(model(x_adv), y)
    _backward(Weighting.from_nsl(MULTIPLIER).combine(clean, adversarial))


def _both(model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x), y) + MULTIPLIER * F.cross_entropy(model(x_adv), y)


def _moved(x: Tensor, grad: Tensor | None) -> Tensor:
    if grad is None:
        raise ValueError("the loss does not depend on the input")
    return (x + EPS * grad.sign()).clamp(0, 1)


def _backward(loss: Tensor) -> None:
    torch.autograd.backward(loss)


REFERENCE = "by hand, two forwards"

WAYS = (
    Way(REFERENCE, by_hand),
    Way("usual, backward", usual_backward),
    Way("usual, autograd.grad", usual_grad),
    # Its attack casts the input to float32.
    Way("cleverhans", cleverhans, peers.version_of("cleverhans"), float64=False),
    Way("torchattacks", torchattacks, peers.version_of("torchattacks")),
    Way("foolbox", foolbox, peers.version_of("foolbox")),
    # By way of NumPy in float32.
    Way("art", art, peers.version_of("art"), float64=False, eval_mode=True),
    Way("torchfgsm.nsl", in_nsl, lambda: torchfgsm.__version__),
    Way("torchfgsm, step", step, lambda: torchfgsm.__version__),
    Way("torchfgsm", port, lambda: torchfgsm.__version__),
    Way("torchfgsm, step, channels_last", step, lambda: torchfgsm.__version__, channels_last=True),
)
