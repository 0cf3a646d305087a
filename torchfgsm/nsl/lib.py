"""Adversarial neighbors and the norms behind them: `nsl.lib`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from torchfgsm.core import norms
from torchfgsm.core.engine import run
from torchfgsm.core.gradient import input_gradient, leaf
from torchfgsm.core.limits import Call
from torchfgsm.core.recipe import Recipe
from torchfgsm.models.features import Features, items
from torchfgsm.nsl.configs import AdvNeighborConfig, NormType

_NAMES = {NormType.INFINITY: "linf", NormType.L2: "l2", NormType.L1: "l1"}


def gen_adv_neighbor(
    input_features: Any,
    labeled_loss: Tensor | None,
    config: AdvNeighborConfig,
    raise_invalid_gradient: bool = False,
    gradient_tape: None = None,
    pgd_model_fn: Callable[[Any], Any] | None = None,
    pgd_loss_fn: Callable[[Any, Any], Tensor] | None = None,
    pgd_labels: Any = None,
    use_while_loop: bool = False,
) -> tuple[Any, Tensor]:
    """Adversarial neighbors of features, as `nsl.lib.gen_adv_neighbor`.

    The first step follows the gradient of `labeled_loss`, whose graph is kept, so that it can still
    be backpropagated. Later steps call the model again. The result stays differentiable in the
    features; the perturbation counts as constant.

    Args:
        input_features: A tensor (N, ...), or a dict or list of these. Floating-point features that
            require grad and lead to the loss are perturbed, all others stay as they are.
        labeled_loss: The loss computed from these features; not needed with `random_init`.
        config: How neighbors are made.
        raise_invalid_gradient: Refuse features that cannot be perturbed.
        gradient_tape: Unused; autograd knows the path from the features to the loss.
        pgd_model_fn: From features to predictions; needed with several steps or `random_init`.
        pgd_loss_fn: `pgd_loss_fn(labels, predictions)`; likewise.
        pgd_labels: Labels for `pgd_loss_fn`.
        use_while_loop: Unused.

    Returns:
        The neighbors in the features' structure (a tuple becomes a list), and weights of 1 of
        shape (N, 1), float32.

    Raises:
        NotImplementedError: Projection to an L1 ball.
        TypeError: No feature is a tensor.
        ValueError: Model or loss function missing; a bad mask; with `raise_invalid_gradient`, a
            feature that cannot be perturbed.
    """
    recipe = config.recipe()
    iterated = config.pgd_iterations > 1 or config.random_init
    if iterated and (pgd_model_fn is None or pgd_loss_fn is None):
        raise ValueError(
            "Both pgd_model_fn and pgd_loss_fn have to be specified when pgd_iterations > 1 or "
            "random_init is set."
        )
    if config.pgd_epsilon is not None and config.adv_grad_norm is NormType.L1:
        raise NotImplementedError("NSL projects to balls of the norms 'l2' and 'infinity' only")
    features = Features.take_apart(input_features)
    batch = [value for value in items(input_features).values() if isinstance(value, Tensor)]
    if not batch:
        raise TypeError(f"no feature is a tensor, got {type(input_features).__name__}")
    if raise_invalid_gradient:
        _refuse_other_than(features)

    def gradient_at(turn: int, tensors: list[Tensor]) -> list[Tensor | None]:
        if turn == 0 and not config.random_init:
            return _gradient_of(labeled_loss, features, features.tensors, raise_invalid_gradient)
        with torch.enable_grad():
            inputs = [leaf(tensor) for tensor in tensors]
            outputs = pgd_model_fn(features.put_together(inputs))  # type: ignore[misc]
            loss = pgd_loss_fn(pgd_labels, outputs)  # type: ignore[misc]  # checked above
        return _gradient_of(loss, features, inputs, raise_invalid_gradient)

    neighbors = run(features, gradient_at, recipe, _call(config, recipe, features))
    weights = torch.ones(batch[0].shape[0], 1, device=batch[0].device)
    return features.put_together(neighbors, copy_others=True), weights


def _gradient_of(
    loss: Tensor | None, features: Features, inputs: Sequence[Tensor], refuse: bool
) -> list[Tensor | None]:
    if loss is None:
        raise ValueError("labeled_loss is missing: the first step follows its gradient")
    with torch.enable_grad():
        total = loss.sum()
    grads = input_gradient(total, inputs, retain_graph=True)
    without = [name for name, grad in zip(features.names, grads, strict=True) if grad is None]
    if refuse and without:
        raise ValueError(
            f"Cannot perturb {len(without)} of {len(grads)} features, {without}: no path leads "
            "from them to the loss, or they do not require grad"
        )
    if len(without) == len(grads):
        _warn_of_standstill(features)
    return grads


def _warn_of_standstill(features: Features) -> None:
    """Says that no feature moves: NSL logs a line, and its loss is the clean one twice."""
    if torch.compiler.is_compiling():
        return
    kinds = {
        name if name != "" else "input": str(getattr(value, "dtype", type(value).__name__))
        for name, value in items(features.structure).items()
    }
    warnings.warn(
        f"Cannot perturb features {kinds}: nothing moves, and the loss on the neighbors is the "
        "clean one. Only floating-point features with a path to the loss are perturbed: of token "
        "ids split the embedding off and give its output as the feature; give images as "
        "floating-point numbers in the range that the model takes",
        UserWarning,
        stacklevel=2,
    )


def _refuse_other_than(features: Features) -> None:
    others = [name for name in items(features.structure) if name not in features.names]
    if others:
        raise ValueError(f"Cannot perturb non-Tensor input: {others}")


def _call(config: AdvNeighborConfig, recipe: Recipe, features: Features) -> Call:
    """Bounds and masks by feature, as NSL looks them up."""
    found: dict[str, dict[Any, Any]] = {}
    for ours, theirs in (
        ("clip_min", "clip_value_min"),
        ("clip_max", "clip_value_max"),
        ("mask", "feature_mask"),
    ):
        value = getattr(config, theirs)
        entries = features.select(value)
        if value is not None and all(entry is None for entry in entries):
            warnings.warn(
                f"{theirs} applies to no feature: features are {list(features.names)} and NSL "
                "looks their entries up by name, so give a collection of the same structure",
                UserWarning,
                stacklevel=4,
            )
        found[ours] = dict(zip(features.names, entries, strict=True))
    for mask in found["mask"].values():
        _check_mask(mask)
    return Call.of(
        recipe,
        features,
        step=None if recipe.step is not None else config.adv_step_size,
        epsilon=None if recipe.epsilon is not None else config.pgd_epsilon,
        clip_min=found["clip_min"],
        clip_max=found["clip_max"],
        mask=found["mask"],
        as_in_originals=True,
    )


def _check_mask(mask: Any) -> None:
    if mask is None:
        return
    values = torch.as_tensor(mask)
    if not values.is_floating_point():
        raise ValueError(f"feature_mask must be of floating-point numbers, got {values.dtype}")
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise ValueError(
            f"feature_mask must lie in [0, 1], got values from {float(values.min())} to "
            f"{float(values.max())}"
        )


def apply_feature_mask(features: Tensor, feature_mask: Any = None) -> Tensor:
    """Features times a mask, as `nsl.lib.utils.apply_feature_mask`.

    Args:
        features: A tensor.
        feature_mask: Factors in [0, 1] that broadcast to it, or None.

    Returns:
        The product, in the features' dtype.

    Raises:
        ValueError: A mask outside of [0, 1] or of integers.
    """
    if feature_mask is None:
        return features
    _check_mask(feature_mask)
    return features * torch.as_tensor(feature_mask).to(features)


def maximize_within_unit_norm(weights: Any, norm_type: Any, epsilon: float = 1e-6) -> Any:
    """The point of the unit ball with the largest inner product with `weights`, per example.

    Mirrors `nsl.lib.maximize_within_unit_norm`; L2 divides by a square root where that multiplies
    by a reciprocal one, and lies nearer to the exact value.

    Args:
        weights: A tensor (N, ...) or a collection of these, whose norm is taken jointly.
        norm_type: A `NormType` or its value.
        epsilon: Lower bound of the L2 norm.

    Returns:
        Points in the structure of `weights`.

    Raises:
        ValueError: An unknown norm.
    """
    norm = _NAMES[NormType(norm_type)]
    features = Features.take_apart(weights)
    if not features.tensors:
        return weights
    return features.put_together(norms.direction(features.tensors, norm, guard=epsilon**2))


def project_to_ball(tensors: Any, radius: float, norm_type: Any, epsilon: float = 1e-6) -> Any:
    """Tensors moved into the ball of a radius, jointly, as `nsl.lib.utils.project_to_ball`.

    Args:
        tensors: A tensor (N, ...) or a collection of these.
        radius: Radius of the ball.
        norm_type: `NormType.INFINITY` or `NormType.L2`; unlike elsewhere no word, as in the
            original.
        epsilon: Lower bound of the L2 norm.

    Returns:
        Projected tensors in the same structure.

    Raises:
        NotImplementedError: Another norm.
    """
    if norm_type not in (NormType.INFINITY, NormType.L2):
        raise NotImplementedError(
            f"only NormType.L2 and NormType.INFINITY are implemented, got {norm_type!r}"
        )
    features = Features.take_apart(tensors)
    return features.put_together(
        norms.project(
            features.tensors,
            [radius] * len(features.tensors),
            _NAMES[norm_type],
            guard=epsilon**2,
        )
    )


def random_in_norm_ball(tensor_structure: Any, radius: float, norm_type: Any) -> Any:
    """A uniformly random point of a ball per example, as `nsl.lib.utils.random_in_norm_ball`.

    Args:
        tensor_structure: A tensor (N, ...) or a collection of these; values are not used.
        radius: Radius of the ball.
        norm_type: A `NormType` or its value.

    Returns:
        Random tensors in the same structure, whose joint norm is at most the radius.

    Raises:
        ValueError: An unknown norm, tensors that are not floating point, unequal batch sizes.
    """
    norm = _NAMES[NormType(norm_type)]
    features = Features.take_apart(tensor_structure)
    if len(features.names) != len(items(tensor_structure)):
        raise ValueError("random_in_norm_ball() only supports floating tensors.")
    if len({tensor.shape[0] for tensor in features.tensors}) > 1:
        raise ValueError("The first dimension of all tensors should be the same.")
    radii = [radius] * len(features.tensors)
    return features.put_together(norms.random_in_ball(features.tensors, radii, norm))


def normalize(tensor: Tensor, norm_type: Any, epsilon: float = 1e-6) -> Tensor:
    """Each example divided by its norm, as `nsl.lib.normalize`.

    Args:
        tensor: (N, ...).
        norm_type: A `NormType` or its value.
        epsilon: Lower bound of the norm.

    Returns:
        The normalised tensor.

    Raises:
        ValueError: An unknown norm.
    """
    norm = NormType(norm_type)
    rows = tensor.reshape(tensor.shape[0], -1)
    if norm is NormType.L2:
        length = norms.l2_norm([rows], epsilon**2)
    else:
        size = rows.abs()
        length = size.amax(dim=1) if norm is NormType.INFINITY else norms.tree_sum(size)
        length = length.clamp(min=epsilon)
    return (rows / length[:, None]).reshape(tensor.shape)
