"""What changing one choice does to the training loss and its gradient."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.evidence.difference_measures import (
    NSL_NORMS,
    ORDERS,
    STEPS,
    Bench,
    Measured,
    relative,
    signs,
    unmoved,
)
from torchfgsm import Weighting, nsl
from torchfgsm.cleverhans import v3
from torchfgsm.losses import SparseCategoricalCrossentropy


def _nsl(bench: Bench, multiplier: float, norm: str = "linf") -> nsl.AdversarialRegularization:
    config = nsl.make_adv_reg_config(
        multiplier=multiplier, adv_step_size=STEPS[norm], adv_grad_norm=NSL_NORMS[norm]
    )
    return nsl.AdversarialRegularization(
        bench.model,
        label_keys=("y",),
        sample_weight_key="weight",
        adv_config=config,
        loss=SparseCategoricalCrossentropy(from_logits=True),
    )


def _nsl_gradient(bench: Bench, multiplier: float) -> Tensor:
    return _gradient(_nsl(bench, multiplier)({"x": bench.x, "y": bench.y}).loss, bench)


def sample_weights(bench: Bench) -> Iterator[Measured]:
    """Weights 0, 1, 2, 0, 1, 2, ... in place of none."""
    weight = torch.arange(len(bench.x)).remainder(3).float()[:, None]
    plain = {"x": bench.x, "y": bench.y}
    weighted = {**plain, "weight": weight}
    model = _nsl(bench, 0.2)
    delta = model.perturb_on_batch(weighted)["x"] - bench.x
    yield "weights 0, 1, 2: {} of the examples do not move", "share", unmoved(delta)
    change = model(weighted).loss / model(plain).loss
    yield "training loss times {}", "factor", float(change.detach())


def sample_weights_settled(bench: Bench) -> Iterator[Measured]:
    """Positive weights change no sign."""
    weight = torch.arange(len(bench.x)).remainder(3).float()[:, None] + 1
    model, plain = _nsl(bench, 0.2), {"x": bench.x, "y": bench.y}
    changed = model.perturb_on_batch({**plain, "weight": weight})["x"] - bench.x
    reference = model.perturb_on_batch(plain)["x"] - bench.x
    yield "{} of the signs", "share", signs(changed, reference)


class _Constant:
    """An attack whose result counts as constant."""

    def __init__(self, model: nn.Module) -> None:
        self.generate = v3.FastGradientMethod(model).generate


def _cleverhans_gradient(
    bench: Bench, adv_coeff: float, norm: str, *, pass_y: bool = True, constant: bool = False
) -> Tensor:
    one_hot = F.one_hot(bench.y).to(bench.x)
    loss = v3.CrossEntropy(
        bench.model,
        attack=(_Constant if constant else v3.FastGradientMethod)(bench.model),
        pass_y=pass_y,
        adv_coeff=adv_coeff,
        attack_params={"eps": STEPS[norm], "ord": ORDERS[norm]},
    )
    return _gradient(loss.fprop(bench.x, one_hot), bench)


def _gradient(loss: Tensor, bench: Bench) -> Tensor:
    found = torch.autograd.grad(loss, list(bench.model.parameters()))
    return torch.cat([grad.flatten() for grad in found])


def through_perturbation(bench: Bench) -> Iterator[Measured]:
    """The training gradient through an L2 perturbation (CleverHans 3) in place of a constant."""
    for pass_y, name in ((True, "true labels"), (False, "predicted labels")):
        changed = _cleverhans_gradient(bench, 0.5, "l2", pass_y=pass_y)
        constant = _cleverhans_gradient(bench, 0.5, "l2", pass_y=pass_y, constant=True)
        yield f"parameter gradient {{}} away with {name}", "relative", relative(changed, constant)


def through_perturbation_settled(bench: Bench) -> Iterator[Measured]:
    """Under L-inf nothing flows."""
    changed = _cleverhans_gradient(bench, 0.5, "linf")
    constant = _cleverhans_gradient(bench, 0.5, "linf", constant=True)
    yield "{}", "relative", relative(changed, constant)


def weighting(bench: Bench) -> Iterator[Measured]:
    """The defaults: NSL's multiplier .2, CleverHans 3's adv_coeff .5."""
    theirs = _cleverhans_gradient(bench, 0.5, "linf")
    ours = _nsl_gradient(bench, 0.2)
    yield "parameter gradient {} away at the defaults", "relative", relative(ours, theirs)


def weighting_settled(bench: Bench) -> Iterator[Measured]:
    """The same ratio, NSL's gradient times 1 - adv_coeff."""
    adv_coeff = 0.3
    scale = Weighting.from_cleverhans(adv_coeff)
    ours = scale.clean * _nsl_gradient(bench, scale.to_nsl())
    theirs = _cleverhans_gradient(bench, adv_coeff, "linf")
    yield f"{{}} at adv_coeff {adv_coeff}", "relative", relative(ours, theirs)


def adversarial_only(bench: Bench) -> Iterator[Measured]:
    """The clean loss left out, in place of CleverHans 3's default."""
    only = _cleverhans_gradient(bench, 1.0, "linf")
    both = _cleverhans_gradient(bench, 0.5, "linf")
    yield "parameter gradient {} away from adv_coeff 0.5", "relative", relative(only, both)


def adversarial_only_settled(bench: Bench) -> Iterator[Measured]:
    """A large multiplier comes near, never there."""
    multiplier = 1000.0
    ours = _nsl_gradient(bench, multiplier) / multiplier
    only = _cleverhans_gradient(bench, 1.0, "linf")
    yield (
        f"{{}} at multiplier {multiplier:g}, loss / {multiplier:g}",
        "relative",
        relative(ours, only),
    )
