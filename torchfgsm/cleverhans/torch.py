"""CleverHans 4.0.0's PyTorch port: the names of `cleverhans.torch.attacks` and its `utils`.

Values are the original's. Its faults are not copied: gradients do not collect in the parameters,
BatchNorm statistics do not move, float64 stays float64, and a zero gradient is no error. Without
`y` the label comes from the pass whose gradient is taken, where the original predicts in a pass of
its own: with dropout in training mode under one mask, there under two.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchfgsm.cleverhans import ports
from torchfgsm.core.call_checks import refuse_arrays
from torchfgsm.core.recipe import Recipe


def fast_gradient_method(
    model_fn: Any,
    x: Tensor,
    eps: float,
    norm: float,
    clip_min: float | None = None,
    clip_max: float | None = None,
    y: Tensor | None = None,
    targeted: bool = False,
    sanity_checks: bool = False,
) -> Tensor:
    """One step of length `eps` along the gradient of the mean cross-entropy.

    Mirrors `cleverhans.torch.attacks.fast_gradient_method.fast_gradient_method`.

    Args:
        model_fn: A callable from input to logits; a module keeps its own mode.
        x: The input (N, ...); integers count as float32.
        eps: Length of the step in the input's units, at least 0.
        norm: numpy.inf, 1 or 2.
        clip_min: Lower bound of the range; both bounds or neither.
        clip_max: Upper bound of the range.
        y: Integer labels (N,) or rows of probabilities; None: the model's prediction.
        targeted: `y` is what to move towards.
        sanity_checks: Refuse input outside of the range.

    Returns:
        Adversarial examples, detached.

    Raises:
        ValueError: A bad norm, negative eps, a one-sided or crossed range, input out of range.
    """
    refuse_arrays(x=x, y=y)
    ports.norm_name(norm)
    eps = _scalar("eps", eps)
    if eps == 0:
        return _copy(x, clip_min, clip_max)
    recipe = Recipe.cleverhans_torch(
        eps, norm, clip_min=clip_min, clip_max=clip_max, targeted=targeted
    )
    ports.check_range(x, clip_min, clip_max, sanity_checks=sanity_checks)
    return _generate(model_fn, x, y, recipe)


def projected_gradient_descent(
    model_fn: Any,
    x: Tensor,
    eps: float,
    eps_iter: float,
    nb_iter: int,
    norm: float,
    clip_min: float | None = None,
    clip_max: float | None = None,
    y: Tensor | None = None,
    targeted: bool = False,
    rand_init: bool = True,
    rand_minmax: float | None = None,
    sanity_checks: bool = True,
) -> Tensor:
    """Iterated steps of length `eps_iter`, each projected to the ball of radius `eps`.

    Mirrors `cleverhans.torch.attacks.projected_gradient_descent.projected_gradient_descent`.

    Args:
        model_fn: A callable from input to logits; a module keeps its own mode.
        x: The input (N, ...).
        eps: Radius of the ball in the input's units, at least 0.
        eps_iter: Length of one step, at least 0 and at most `eps`.
        nb_iter: Number of steps.
        norm: numpy.inf or 2.
        clip_min: Lower bound of the range; both bounds or neither.
        clip_max: Upper bound of the range.
        y: Integer labels (N,) or rows of probabilities; None: the prediction on the clean input.
        targeted: `y` is what to move towards.
        rand_init: Start at a random point of the L-inf ball.
        rand_minmax: Radius of the random start; None: `eps`.
        sanity_checks: Refuse input outside of the range and a radius above the range.

    Returns:
        Adversarial examples, detached.

    Raises:
        NotImplementedError: norm 1.
        ValueError: As `fast_gradient_method`, or `eps_iter` above `eps`.
    """
    refuse_arrays(x=x, y=y)
    ports.norm_name(norm)
    eps, eps_iter = _scalar("eps", eps), _scalar("eps_iter", eps_iter)
    # As in the original the norm comes first, then a step of length 0, then all other checks.
    if norm in (torch.inf, 2) and (eps == 0 or (eps > 0 and eps_iter == 0)):
        return _copy(x, clip_min, clip_max)
    recipe = Recipe.cleverhans_torch(
        eps, norm, eps_iter, nb_iter, clip_min, clip_max, targeted, bool(rand_init), rand_minmax
    )
    ports.check_range(x, clip_min, clip_max, sanity_checks=sanity_checks)
    ports.check_radius(norm, eps, eps_iter, clip_min, clip_max, sanity_checks=sanity_checks)
    return _generate(model_fn, x, y, recipe)


def _scalar(name: str, value: Any) -> Any:
    """The number in a 0-d tensor or array; the original takes no length per example."""
    if getattr(value, "ndim", 0):
        raise ValueError(f"{name} must be a number or 0-d, got shape {tuple(value.shape)}")
    return value.item() if hasattr(value, "item") else value


def _generate(model_fn: Any, x: Tensor, y: Tensor | None, recipe: Recipe) -> Tensor:
    x = x if x.is_floating_point() else x.float()
    if y is not None and not y.is_floating_point():
        y = y.long()
    return ports.generate(model_fn, x, y, recipe, loss_fn=_mean_cross_entropy)


def _mean_cross_entropy(*, labels: Tensor, logits: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels)


def _copy(x: Tensor, clip_min: float | None, clip_max: float | None) -> Tensor:
    """What a step of length 0 leaves of the input: a copy within its range."""
    x = x.detach().clone()
    return x if clip_min is None and clip_max is None else torch.clamp(x, clip_min, clip_max)


def optimize_linear(grad: Tensor, eps: float, norm: float = torch.inf) -> Tensor:
    """The perturbation of norm `eps` with the largest inner product with each gradient.

    Mirrors `cleverhans.torch.utils.optimize_linear`; ties and zero gradients, on which that
    raises AssertionError, give the tied solution and zero.

    Args:
        grad: Gradients (N, ...).
        eps: Length of the perturbation.
        norm: numpy.inf, 1 or 2.

    Returns:
        Perturbations in the gradient's shape and dtype.

    Raises:
        NotImplementedError: Another norm.
    """
    return ports.linear_optimum(grad, eps, norm, nan_has_sign=True)


def clip_eta(eta: Tensor, norm: float, eps: float) -> Tensor:
    """Perturbations projected to the ball of radius `eps`; the argument is not changed.

    Mirrors `cleverhans.torch.utils.clip_eta`.

    Args:
        eta: Perturbations (N, ...).
        norm: numpy.inf or 2.
        eps: Radius of the ball.

    Returns:
        Projected perturbations.

    Raises:
        NotImplementedError: norm 1, as in the original.
        ValueError: Another norm.
    """
    if norm == 1:
        raise NotImplementedError("the original does not clip in norm 1; use v3.clip_eta")
    return ports.clipped_eta(eta, norm, eps)


def zero_out_clipped_grads(grad: Tensor, x: Tensor, clip_min: Any, clip_max: Any) -> Tensor:
    """The gradient with 0 where `x` is at a bound and the step would point out of the range.

    Mirrors `cleverhans.torch.utils.zero_out_clipped_grads`.
    """
    return ports.without_clipped(grad, x, clip_min, clip_max)
