"""CleverHans 4.0.0's TensorFlow 2 port in PyTorch: the names of `cleverhans.tf2.attacks`.

Values are the original's, except that a float64 input keeps its dtype where the original casts it
to float32. Results are detached unless `x` requires grad; then they are differentiable in `x`, as
under an outer tape in the original.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchfgsm.cleverhans import ports
from torchfgsm.core.call_checks import refuse_arrays
from torchfgsm.core.recipe import Recipe
from torchfgsm.losses import sparse_softmax_cross_entropy


def fast_gradient_method(
    model_fn: Any,
    x: Tensor,
    eps: Any,
    norm: float,
    loss_fn: Callable[..., Tensor] | None = None,
    clip_min: Any = None,
    clip_max: Any = None,
    y: Tensor | None = None,
    targeted: bool = False,
    sanity_checks: bool = False,
) -> Tensor:
    """One step of length `eps` along the gradient of the per-example cross-entropy.

    Mirrors `cleverhans.tf2.attacks.fast_gradient_method.fast_gradient_method`.

    Args:
        model_fn: A callable from input to logits; a module runs in eval mode.
        x: The input (N, ...); integers count as float32.
        eps: Length of the step in the input's units; a tensor broadcasts; negative descends.
        norm: numpy.inf, 1 or 2.
        loss_fn: `loss_fn(labels=, logits=)`; default cross-entropy against integer labels.
        clip_min: Lower bound of the range, a number or tensor; both bounds or neither.
        clip_max: Upper bound of the range.
        y: Integer labels (N,), or what `loss_fn` takes; None: the model's prediction.
        targeted: `y` is what to move towards.
        sanity_checks: Refuse input outside of the range.

    Returns:
        Adversarial examples.

    Raises:
        ValueError: A bad norm, a one-sided range, input out of range.
    """
    refuse_arrays(x=x, y=y if loss_fn is None else None)
    ports.norm_name(norm)
    numbers, tensors = ports.split(eps=eps, clip_min=clip_min, clip_max=clip_max)
    recipe = Recipe.cleverhans_tf2(norm=norm, targeted=targeted, **numbers)
    ports.check_range(x, clip_min, clip_max, sanity_checks=sanity_checks)
    return _generate(model_fn, x, y, recipe, loss_fn, ports.renamed(tensors, eps="step"))


def projected_gradient_descent(
    model_fn: Any,
    x: Tensor,
    eps: Any,
    eps_iter: Any,
    nb_iter: int,
    norm: float,
    loss_fn: Callable[..., Tensor] | None = None,
    clip_min: Any = None,
    clip_max: Any = None,
    y: Tensor | None = None,
    targeted: bool = False,
    rand_init: bool | None = None,
    rand_minmax: float | None = None,
    sanity_checks: bool = False,
) -> Tensor:
    """Iterated steps of length `eps_iter`, each projected to the ball of radius `eps`.

    Mirrors `cleverhans.tf2.attacks.projected_gradient_descent.projected_gradient_descent`.

    Args:
        model_fn: A callable from input to logits; a module runs in eval mode.
        x: The input (N, ...).
        eps: Radius of the ball in the input's units.
        eps_iter: Length of one step, at most `eps`.
        nb_iter: Number of steps.
        norm: numpy.inf or 2.
        loss_fn: `loss_fn(labels=, logits=)`; default cross-entropy against integer labels.
        clip_min: Lower bound of the range, a number or tensor; both bounds or neither.
        clip_max: Upper bound of the range.
        y: Integer labels (N,); None: the model's prediction on the clean input.
        targeted: `y` is what to move towards.
        rand_init: Start at a random point of the ball; None: no.
        rand_minmax: Radius of the random start; None: `eps`.
        sanity_checks: Refuse input outside of the range and a radius above the range.

    Returns:
        Adversarial examples.

    Raises:
        NotImplementedError: norm 1.
        ValueError: As `fast_gradient_method`, or `eps_iter` above `eps`.
    """
    refuse_arrays(x=x, y=y if loss_fn is None else None)
    ports.check_radius(norm, eps, eps_iter, clip_min, clip_max, sanity_checks=sanity_checks)
    ports.norm_name(norm)
    numbers, tensors = ports.split(eps=eps, eps_iter=eps_iter, clip_min=clip_min, clip_max=clip_max)
    recipe = Recipe.cleverhans_tf2(
        norm=norm,
        nb_iter=nb_iter,
        targeted=targeted,
        rand_init=rand_init,
        rand_minmax=rand_minmax,
        **numbers,
    )
    ports.check_range(x, clip_min, clip_max, sanity_checks=sanity_checks)
    tensors = ports.renamed(tensors, eps="epsilon", eps_iter="step")
    return _generate(model_fn, x, y, recipe, loss_fn, tensors)


def _generate(
    model_fn: Any,
    x: Tensor,
    y: Tensor | None,
    recipe: Recipe,
    loss_fn: Callable[..., Tensor] | None,
    tensors: dict[str, Any],
) -> Tensor:
    return ports.generate(
        model_fn,
        x if x.is_floating_point() else x.float(),
        y,
        recipe,
        loss_fn=loss_fn or sparse_softmax_cross_entropy,
        keep_graph=x.requires_grad and torch.is_grad_enabled(),
        **tensors,
    )


def optimize_linear(grad: Tensor, eps: Any, norm: float = torch.inf) -> Tensor:
    """The perturbation of norm `eps` with the largest inner product with each gradient.

    Mirrors `cleverhans.tf2.utils.optimize_linear`.

    Args:
        grad: Gradients (N, ...).
        eps: Length of the perturbation, a number or a tensor that broadcasts.
        norm: numpy.inf, 1 or 2.

    Returns:
        Perturbations in the gradient's shape and dtype.

    Raises:
        NotImplementedError: Another norm.
    """
    return ports.linear_optimum(grad, eps, norm, nan_has_sign=False)


def clip_eta(eta: Tensor, norm: float, eps: Any) -> Tensor:
    """Perturbations projected to the ball of radius `eps`.

    Mirrors `cleverhans.tf2.utils.clip_eta`.

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
