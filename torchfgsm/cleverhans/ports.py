"""What CleverHans' three ports share: running a recipe on one tensor, its checks, its helpers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchfgsm.core import norms
from torchfgsm.core.checks import refuse_other_dtype
from torchfgsm.core.gradient import condition
from torchfgsm.core.limits import Call
from torchfgsm.core.model_gradient import ModelGradient, run_on_model
from torchfgsm.core.presets import NUMPY_ORDERS, known_norm
from torchfgsm.core.recipe import Recipe
from torchfgsm.models import distributing
from torchfgsm.models.features import Features, normal

_GUARD = 1e-12
_NAMES = {math.inf: "linf", 1: "l1", 2: "l2"}


def generate(
    model: Any,
    x: Tensor,
    y: Tensor | None,
    recipe: Recipe,
    *,
    loss_fn: Callable[..., Tensor],
    keep_graph: bool = False,
    **tensors: Any,
) -> Tensor:
    """Runs a recipe on one input whose labels and logits go to `loss_fn` by keyword.

    Args:
        model: A callable from input to logits.
        x: The input (N, ...), floating point.
        y: Labels or targets, or None for the model's own prediction.
        recipe: A CleverHans preset.
        loss_fn: `loss_fn(labels=, logits=)`.
        keep_graph: Keep the result differentiable in `x` and the parameters.
        **tensors: Step, radius and bounds where they are tensors.

    Returns:
        The adversarial examples; detached unless `keep_graph`.

    Raises:
        ValueError: float64 input to a model of another precision, or the reverse.
    """
    with torch.inference_mode(False):
        x, y, tensors = normal(x), normal(y), normal(tensors)
        if not keep_graph:
            model = distributing.unwrapped(model)
        refuse_other_dtype(model, "x", x)
        features = Features.take_apart(x)
        gradient = ModelGradient(
            model,
            features,
            y,
            recipe,
            loss_fn=lambda output, target: loss_fn(labels=target, logits=output),
            keep_graph=keep_graph,
            expects_logits=True,
            scales=False,  # float16 rounds small gradients to 0 as in the originals
        )
        call = Call.of(recipe, features, **tensors, as_in_originals=True)
        (adversarial,) = run_on_model(gradient, call)
    return adversarial


def split(**values: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters apart: numbers, which a recipe holds, and tensors or arrays, which a call gets."""
    tensors = {
        name: torch.as_tensor(value)
        for name, value in values.items()
        if isinstance(value, Tensor) or (hasattr(value, "shape") and value.shape != ())
    }
    numbers = {name: None if name in tensors else _plain(value) for name, value in values.items()}
    return numbers, tensors


def renamed(tensors: dict[str, Any], **names: str) -> dict[str, Any]:
    """Tensors by this package's names of their parameters."""
    return {names.get(name, name): value for name, value in tensors.items()}


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def check_range(x: Tensor, clip_min: Any, clip_max: Any, *, sanity_checks: bool) -> None:
    """Refuses one-sided ranges and, with sanity checks, input outside of the range.

    Raises:
        ValueError: Where the originals raise AssertionError or InvalidArgumentError.
    """
    if (clip_min is None) != (clip_max is None):
        raise ValueError(
            "CleverHans clips to both clip_min and clip_max or to neither, got "
            f"clip_min={clip_min!r} and clip_max={clip_max!r}"
        )
    if not sanity_checks or clip_min is None:
        return
    x = x.detach()
    inside = (x >= clip_min) & (x <= clip_max)  # NaN is outside of every range
    if bool((~inside).any()):
        raise ValueError(
            f"x spans {float(x.min())} to {float(x.max())}, outside of clip_min="
            f"{_shown(clip_min)} and clip_max={_shown(clip_max)}; pass sanity_checks=False to clip "
            "it"
        )


def check_radius(
    norm: object, eps: Any, eps_iter: Any, clip_min: Any, clip_max: Any, *, sanity_checks: bool
) -> None:
    """Refuses a step longer than the radius and, with sanity checks, a radius above the range.

    Raises:
        ValueError: Where the originals raise AssertionError.
    """
    if bool(torch.as_tensor(eps_iter > eps).any()):
        raise ValueError(
            f"eps_iter must be at most eps, got eps_iter={_shown(eps_iter)} and eps={_shown(eps)}"
        )
    both = clip_min is not None and clip_max is not None  # one alone is refused with the input
    if sanity_checks and norm == math.inf and both:
        # 1e-6 as in CleverHans 3: eps=.2 does not fit between .5 and .7 in floating point.
        room = torch.as_tensor(clip_max) - torch.as_tensor(clip_min) + 1e-6
        if bool((torch.as_tensor(eps) > room).any()):
            raise ValueError(
                f"eps {_shown(eps)} is larger than the range from {_shown(clip_min)} to "
                f"{_shown(clip_max)}; pass sanity_checks=False to allow it"
            )


def _shown(value: Any) -> str:
    """A number as it is, a tensor by its ends: a message is one line."""
    if not getattr(value, "ndim", 0):
        return str(value)
    return f"[{float(value.min())} ... {float(value.max())}]"


def norm_name(order: object, allowed: tuple[float, ...] = (math.inf, 1, 2)) -> str:
    """This package's name of a numpy norm order.

    Raises:
        ValueError: Not one of the allowed orders.
    """
    if order not in allowed:
        words = ", ".join(map(_shown_order, allowed))
        meant = known_norm(order)
        hint = f"; use {_shown_order(NUMPY_ORDERS[meant])}" if meant else ""
        raise ValueError(f"Norm order must be one of {words}, got {order!r}{hint}")
    return _NAMES[order]


def _shown_order(order: float) -> str:
    return "numpy.inf" if order == math.inf else str(order)


def linear_optimum(grad: Tensor, eps: Any, order: object, *, nan_has_sign: bool) -> Tensor:
    """`eps` times the direction of steepest ascent: CleverHans' `optimize_linear`.

    Raises:
        NotImplementedError: A norm other than numpy.inf, 1 and 2, as in the originals.
    """
    if order not in _NAMES:
        raise NotImplementedError(
            f"only the norms numpy.inf, 1 and 2 are implemented, got {order!r}"
        )
    (found,) = norms.direction(
        [grad], norm_name(order), guard=_GUARD, joint=False, nan_has_sign=nan_has_sign
    )
    perturbation: Tensor = found * eps
    return perturbation


def clipped_eta(eta: Tensor, order: object, eps: Any) -> Tensor:
    """The perturbation projected to the ball of radius `eps`: CleverHans' `clip_eta`."""
    (projected,) = norms.project([eta], [eps], norm_name(order), guard=_GUARD)
    return projected


def without_clipped(grad: Tensor, x: Tensor, clip_min: Any, clip_max: Any) -> Tensor:
    """The gradient without entries whose step would be clipped: `zero_out_clipped_grads`."""
    return condition(
        grad, nonfinite="ignore", clip_grad=True, x=x, clip_min=clip_min, clip_max=clip_max
    )
