"""The native attacks: any recipe, FGSM, PGD, and the step alone."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from torchfgsm.core import call_checks, checks
from torchfgsm.core.engine import run
from torchfgsm.core.limits import Call, Length
from torchfgsm.core.model_gradient import LossFn, run_on_model
from torchfgsm.core.preparation import prepared
from torchfgsm.core.recipe import Recipe
from torchfgsm.models import distributing


def attack(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    recipe: Recipe,
    loss_fn: LossFn | None = None,
    step: Length | None = None,
    epsilon: Length | None = None,
    clip_min: Any = None,
    clip_max: Any = None,
    mask: Any = None,
    generator: torch.Generator | None = None,
    validate: bool | None = None,
) -> Any:
    """Adversarial examples of `x` made by any recipe.

    Compiles with `torch.compile(fullgraph=True)` from torch 2.9 on; values are not checked then. A
    generator, a recipe that refuses zero gradients, and the mode "keep" with a random start or a
    model in training mode leave the graph: without `fullgraph` they give what they always give.

    Args:
        model: A module or callable. A tensor is passed as it is, a list as positional arguments, a
            dict in the order of the model's `input_names`, by keyword where a module's `forward`
            has parameters of these names, else as a dict. It may write into what it gets: x stays.
            Modules are looked for in what a callable holds. Of `DistributedDataParallel` the
            module inside is attacked, with this process's buffers and without waiting for others.
        x: The input (N, ...), or a dict or list of features with equal N. Only floating-point
            features are perturbed.
        y: Labels, or targets when the recipe is targeted: integers (N,) or (N, ...) for dense
            outputs, or rows of probabilities. None: the model's own prediction, from the same
            forward pass.
        recipe: Every choice; see `Recipe` and its presets.
        loss_fn: `loss_fn(output, target)` -> scalar or per-example losses, as in torch. Default:
            cross-entropy per example. Classes are in dim 1 of the output, as in torch, unless the
            model states another form (`output_form`, see `OutputForm`; converted models do).
        step: Length of a step in place of the recipe's; a tensor with one axis gives each example
            its own, (N,), others broadcast to the features: one number per column is (1, columns).
        epsilon: Radius of the ball in place of the recipe's, likewise.
        clip_min: Lower bound in the input's units in place of the recipe's: a number, a tensor
            that broadcasts to x, or a dict or list of these by feature.
        clip_max: Upper bound, likewise.
        mask: Factor in [0, 1] on the gradient before the direction, in x's structure. Entries whose
            factor is 0 stay where they are, in a random start too.
        generator: Source of randomness of a random start; torch's global one by default.
        validate: Check values too (finite entries, ranges of labels). Default: on CPU tensors.

    Returns:
        Adversarial examples with the structure, shapes, dtypes and memory format of `x`, detached
        and sharing no memory with it. The model's gradients, modes, buffers and the random state
        are as before: a model that draws in each pass draws again afterwards what it drew here.

    Raises:
        TypeError: An input that cannot be perturbed, or arguments of the wrong type.
        ValueError: Bad shapes, values, ranges or labels; no path from the input to the loss.
    """
    return _attack(
        model,
        x,
        y,
        recipe=recipe,
        loss_fn=loss_fn,
        step=step,
        epsilon=epsilon,
        clip_min=clip_min,
        clip_max=clip_max,
        mask=mask,
        generator=generator,
        validate=validate,
    )


def _attack(model: Any, x: Any, y: Any, **arguments: Any) -> Any:
    """`attack`, with the arguments of `prepared`."""
    with torch.inference_mode(False):
        gradient, call = prepared(distributing.unwrapped(model), x, y, **arguments)
        moved = run_on_model(gradient, call)
        return gradient.features.put_together(moved, copy_others=True)


def fgsm(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    eps: Length,
    norm: str | float = "linf",
    clip_min: Any = None,
    clip_max: Any = None,
    targeted: bool = False,
    mask: Any = None,
    loss_fn: LossFn | None = None,
    validate: bool | None = None,
) -> Any:
    """Adversarial examples by one step of length `eps` along the gradient of the loss.

    The fast gradient sign method of Goodfellow et al. (https://arxiv.org/abs/1412.6572) and its
    L2 and L1 forms; the loss is per example, so that an example does not see its batch.

    Args:
        model: As in `attack`.
        x: The input (N, ...), or a dict or list of features.
        y: Labels or targets; None: the model's own prediction.
        eps: Length of the step in the input's units, at least 0; a tensor with one axis gives each
            example its own, (N,), others broadcast to x as in `attack`.
        norm: "linf", "l2" or "l1"; numpy.inf, 2, 1 and the libraries' other words too.
        clip_min: Lower bound of the input's range, or None.
        clip_max: Upper bound of the input's range, or None.
        targeted: `y` is what to move towards.
        mask: Factor in [0, 1] on the gradient.
        loss_fn: `loss_fn(output, target)`; default cross-entropy per example.
        validate: As in `attack`.

    Returns:
        Adversarial examples; see `attack`.

    Raises:
        TypeError: As `attack`.
        ValueError: As `attack`; an unknown norm; a negative or non-finite eps.
    """
    name = checks.norm_named(norm)
    checks.check_target(targeted, y)
    recipe = Recipe(norm=name, step=_number("eps", eps), targeted=targeted)
    return _attack(
        model,
        x,
        y,
        recipe=recipe,
        loss_fn=loss_fn,
        step=eps if isinstance(eps, Tensor) else None,
        clip_min=clip_min,
        clip_max=clip_max,
        mask=mask,
        validate=validate,
        lengths_called=("eps", "epsilon"),
    )


def pgd(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    eps: Length,
    step_size: Length | None = None,
    iterations: int = 10,
    norm: str | float = "linf",
    clip_min: Any = None,
    clip_max: Any = None,
    targeted: bool = False,
    random_start: bool = True,
    mask: Any = None,
    loss_fn: LossFn | None = None,
    generator: torch.Generator | None = None,
    validate: bool | None = None,
) -> Any:
    """Adversarial examples by iterated steps, each projected to the ball of radius `eps`.

    Projected gradient descent of Madry et al. (https://arxiv.org/abs/1706.06083).

    Args:
        model: As in `attack`.
        x: The input (N, ...), or a dict or list of features.
        y: Labels or targets; None: the model's own prediction on the clean input.
        eps: Radius of the ball in the input's units, at least 0; a tensor with one axis gives each
            example its own, (N,), others broadcast to x as in `attack`.
        step_size: Length of one step, likewise; default `2.5 * eps / iterations`.
        iterations: Number of steps, at least 1.
        norm: "linf", "l2" or "l1"; numpy.inf, 2, 1 and the libraries' other words too.
        clip_min: Lower bound of the input's range, or None.
        clip_max: Upper bound of the input's range, or None.
        targeted: `y` is what to move towards.
        random_start: Start at a uniformly random point of the ball.
        mask: Factor in [0, 1] on the gradient; entries whose factor is 0 stay where they are.
        loss_fn: `loss_fn(output, target)`; default cross-entropy per example.
        generator: Source of randomness of the start; torch's global one by default.
        validate: As in `attack`.

    Returns:
        Adversarial examples; see `attack`.

    Raises:
        TypeError: As `attack`.
        ValueError: As `attack`; an unknown norm; a bad eps, step_size or number of iterations.
    """
    name = checks.norm_named(norm)
    checks.check_target(targeted, y)
    radius = _number("eps", eps)
    if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
        raise ValueError(f"iterations must be an int of at least 1, got {iterations!r}")
    if step_size is None:
        step_size = 2.5 * eps / iterations
    recipe = Recipe(
        norm=name,
        step=_number("step_size", step_size),
        iterations=iterations,
        epsilon=radius,
        targeted=targeted,
        random_start="uniform" if random_start else "none",
    )
    return _attack(
        model,
        x,
        y,
        recipe=recipe,
        loss_fn=loss_fn,
        step=step_size if isinstance(step_size, Tensor) else None,
        epsilon=eps if isinstance(eps, Tensor) else None,
        clip_min=clip_min,
        clip_max=clip_max,
        mask=mask,
        generator=generator,
        validate=validate,
        lengths_called=("step_size", "eps"),
    )


def _number(name: str, value: Length) -> float | None:
    """The number a recipe holds; None for a tensor, which is given to the call."""
    if isinstance(value, Tensor):
        return None
    if value is None:
        raise TypeError(f"{name} must be a number or a tensor, got None")
    call_checks.check_length(name, value)
    return float(value)


def perturb(
    x: Any,
    grad: Any,
    *,
    eps: Length,
    norm: str | float = "linf",
    clip_min: Any = None,
    clip_max: Any = None,
    mask: Any = None,
    clip_grad: bool = False,
    nonfinite: Literal["zero", "propagate", "ignore"] = "zero",
    guard: float = 0.0,
    validate: bool | None = None,
) -> Any:
    """The step alone: `x` moved by `eps` along a given gradient.

    Args:
        x: The input (N, ...), or a dict or list of features.
        grad: The loss's gradient at `x`, in its structure, shapes and dtypes.
        eps: Length of the step in the input's units, at least 0; a tensor with one axis gives each
            example its own, (N,), others broadcast to x as in `attack`.
        norm: "linf", "l2" or "l1"; numpy.inf, 2, 1 and the libraries' other words too.
        clip_min: Lower bound of the input's range, or None.
        clip_max: Upper bound of the input's range, or None.
        mask: Factor in [0, 1] on the gradient.
        clip_grad: Gradient entries whose step would be clipped away count as 0.
        nonfinite: What NaN and infinite gradient entries do; see `Recipe`.
        guard: Floor under the squared L2 norm of the gradient; 0 needs none.
        validate: As in `attack`; `torch.func.vmap` needs False.

    Returns:
        The moved input in the structure, shapes and dtypes of `x`, sharing no memory with it.

    Raises:
        TypeError: A gradient that is not a tensor.
        ValueError: As `attack`; a gradient of another shape, dtype or device than its feature.
    """
    name = checks.norm_named(norm)
    recipe = Recipe(
        norm=name,
        step=_number("eps", eps),
        clip_grad=clip_grad,
        nonfinite=nonfinite,
        guard=guard,
    )
    values = checks.looks_at_values(x, validate)
    features = checks.check_input(None, x, values=values)
    grads = checks.check_gradient(features, grad)
    call_checks.check_bounds(recipe, features, clip_min, clip_max, values=values)
    call_checks.check_mask(features, mask, values=values)
    call_checks.check_length("eps", eps, features, values=values)
    step = eps if isinstance(eps, Tensor) else None
    call = Call.of(recipe, features, step=step, clip_min=clip_min, clip_max=clip_max, mask=mask)
    with torch.no_grad():
        moved = run(features, lambda turn, tensors: grads, recipe, call)
        return features.put_together(moved, copy_others=True)
