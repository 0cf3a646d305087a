"""Adversarial training: a loss to backpropagate, or a step that accumulates the gradients."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec

import torch
from torch import Tensor

from torchfgsm.core.call_checks import check_recipe, check_weighting
from torchfgsm.core.gradient import refuse_underivable
from torchfgsm.core.model_gradient import LossFn
from torchfgsm.core.recipe import Recipe
from torchfgsm.core.weighting import Weighting
from torchfgsm.models import distributing
from torchfgsm.models.calling import detached
from torchfgsm.models.modules import is_training
from torchfgsm.training.batch import CleanPass, TrainingBatch

P = ParamSpec("P")


@dataclass(frozen=True)
class AdversarialLosses:
    """The losses of one batch.

    Attributes:
        loss: `weighting.clean * clean_loss + weighting.adversarial * adversarial_loss`.
        clean_loss: The loss on the clean batch; None where its weight is 0.
        adversarial_loss: The loss on the adversarial batch.
        adversarial: The adversarial batch, in the structure of `x`.
        output: The model's output on the clean batch, detached; None where it was not computed.
        forwards: How often the model was called.
        backwards: How often a gradient was taken up to here.
    """

    loss: Tensor
    clean_loss: Tensor | None
    adversarial_loss: Tensor
    adversarial: Any
    output: Any
    forwards: int
    backwards: int


def _eager_where_a_mode_is_kept(
    function: Callable[P, AdversarialLosses],
) -> Callable[P, AdversarialLosses]:
    """Leaves a graph that torch.compile traces, where what is put back cannot be traced.

    Broken in the middle, autograd's graph would end there.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> AdversarialLosses:
        if torch.compiler.is_compiling():
            model: Any = args[0] if args else kwargs["model"]
            recipe: Any = kwargs["recipe"]
            check_recipe(recipe)
            if recipe.model_mode == "keep" and is_training(model):
                from torchfgsm.core import dynamo_nodes

                found: AdversarialLosses = dynamo_nodes.eagerly(function, args, kwargs)
                return found
        return function(*args, **kwargs)

    return run


@_eager_where_a_mode_is_kept
def adversarial_loss(
    model: Any,
    x: Any,
    y: Any,
    *,
    recipe: Recipe,
    weighting: Weighting,
    loss_fn: LossFn | None = None,
    attack_loss_fn: LossFn | None = None,
    sample_weight: Tensor | None = None,
    ignore_index: int | None = None,
    pass_y: bool = True,
    target: Any = None,
    **attack_arguments: Any,
) -> AdversarialLosses:
    """The weighted loss on a batch and on its adversarial examples, to be backpropagated.

    Call `.loss.backward()` on the result and step any optimizer; add regularisers to the loss. The
    graphs of both forward passes are held until then; `adversarial_step` holds one at a time.

    Where the recipe's mode is not "eval", or nothing of the model is in training mode, the clean
    forward pass comes first and gives the attack's first gradient, as in NSL. Otherwise the attack
    comes first, in eval mode, as in CleverHans. A compiled model whose pass is shared needs
    `torch._functorch.config.donated_buffer = False`: its graph is backpropagated twice.

    Args:
        model: As in `torchfgsm.attack`.
        x: The input (N, ...), or a dict or list of features.
        y: Labels as `loss_fn` takes them; see `torchfgsm.attack` for the default loss.
        recipe: How adversarial examples are made. Where it says `through_perturbation`, the
            gradient flows through an L2 perturbation as in CleverHans 3: a second-order term.
        weighting: Factors of the two losses.
        loss_fn: `loss_fn(output, y)` -> scalar, or losses per example (N, ...), which are weighted
            and averaged. Default: the mean over examples and positions of cross-entropy, of
            logits or of probabilities as the recipe says, in the form that the model states; see
            `torchfgsm.attack`.
        attack_loss_fn: The attack's own loss, such as one without label smoothing. Default:
            `loss_fn`; the sample weights count in it where the recipe's reduction is "mean" (NSL).
        sample_weight: (N,) or (N, 1), factors of the losses per example.
        ignore_index: A label whose positions do not count in the mean, as in torch's
            cross-entropy; a `loss_fn` must know it, too, and give losses per position.
        pass_y: Whether the attack is against `y` rather than against the model's own prediction.
        target: Labels that a targeted recipe moves towards.
        **attack_arguments: `step`, `epsilon`, `clip_min`, `clip_max`, `mask`, `generator` and
            `validate` of `torchfgsm.attack`.

    Returns:
        The losses; detached where grad is disabled.

    Raises:
        TypeError: As `torchfgsm.attack`; a DistributedDataParallel model with a static graph; a
            second-order term of a model sharded by FSDP2.
        ValueError: As `torchfgsm.attack`; weights that do not fit, a target without a targeted
            recipe or the reverse.
        RuntimeError: A second-order term of a model with an operation that has no second
            derivative, such as torch's fused attention.
    """
    check_recipe(recipe)
    check_weighting(weighting)
    keep = torch.is_grad_enabled()
    second_order = keep and recipe.through_perturbation and recipe.norm == "l2"
    distributing.refuse_wrapper(model, halves=False, second_order=second_order)
    with torch.inference_mode(False), torch.enable_grad():
        batch = TrainingBatch.of(
            model, x, y, recipe, weighting, loss_fn, attack_loss_fn, sample_weight, pass_y, target,
            ignore_index=ignore_index, **attack_arguments,
        )  # fmt: skip
        batch.attack.keep_graph = second_order
        adversarial = batch.run(None) if batch.attacks_first else None
        clean, first = batch.clean() if weighting.clean else None, None
        if clean is not None and batch.shares_forward:
            first = batch.attack.of(clean.output, clean.inputs, retain_graph=True)
        adversarial = adversarial or batch.run(first)
        if second_order and not torch.compiler.is_compiling():
            refuse_underivable(adversarial)
        adversarial_part = batch.loss_at(adversarial)
        loss = weighting.combine(None if clean is None else clean.loss, adversarial_part)
        result = _losses(batch, clean, adversarial, adversarial_part, loss)
    return result if keep else _detached(result)


@_eager_where_a_mode_is_kept
def adversarial_step(
    model: Any,
    x: Any,
    y: Any,
    *,
    recipe: Recipe,
    weighting: Weighting,
    loss_fn: LossFn | None = None,
    attack_loss_fn: LossFn | None = None,
    scaler: torch.amp.GradScaler | None = None,
    sample_weight: Tensor | None = None,
    ignore_index: int | None = None,
    pass_y: bool = True,
    target: Any = None,
    **attack_arguments: Any,
) -> AdversarialLosses:
    """Adds the gradients of the weighted loss to `.grad`, one forward pass in memory at a time.

    The clean pass is backpropagated first. Where the attack's loss is the clean loss up to a
    positive factor per example, that one backward pass gives the attack's gradient, too (NSL;
    CleverHans with `pass_y` and no smoothing): two forward and two backward passes in all, and the
    gradients of `adversarial_loss(...).loss.backward()`. Another loss of the attack costs one more
    backward pass to the input, and a recipe of mode "eval" a pass of its own where anything of the
    model is in training mode.

    It never zeroes gradients and steps no optimizer, so that gradients accumulate over calls. Under
    `torch.autocast` call it inside of the context; backward passes run outside of it. Of a
    `DistributedDataParallel` model the gradients are reduced once, in the adversarial half. With
    `validate=False` and no random start nothing here waits for the device, as `torch.cuda.graph`
    needs it.

    Args:
        model: As in `adversarial_loss`, as are the other arguments.
        x: The input.
        y: Labels.
        recipe: How adversarial examples are made.
        weighting: Factors of the two losses.
        loss_fn: `loss_fn(output, y)`; see `adversarial_loss`.
        attack_loss_fn: The attack's own loss.
        scaler: Scales both halves; the attack sees unscaled gradients. Unscale, clip and step with
            it afterwards as always. A pass of the attack's own needs none: in float16 it is scaled
            example by example, by powers of two.
        sample_weight: Factors of the losses per example.
        ignore_index: A label whose positions do not count in the mean.
        pass_y: Whether the attack is against `y`.
        target: Labels that a targeted recipe moves towards.
        **attack_arguments: As in `adversarial_loss`.

    Returns:
        The losses, detached and not scaled.

    Raises:
        TypeError: As `torchfgsm.attack`; a DistributedDataParallel model with a static graph; a
            model sharded by FSDP2.
        ValueError: As `adversarial_loss`; a recipe with a second-order term; no parameter that
            requires grad; gradients that the scaler has unscaled already.
    """
    check_recipe(recipe)
    check_weighting(weighting)
    if recipe.through_perturbation and recipe.norm == "l2":
        raise ValueError(
            "this recipe's gradient flows through the L2 perturbation (through_perturbation=True), "
            "which needs both forward passes at once: use adversarial_loss(...).loss.backward(), "
            "or dataclasses.replace(recipe, through_perturbation=False)"
        )
    distributing.refuse_wrapper(model, halves=True, second_order=False)
    distributing.refuse_unscaled(scaler)
    with torch.inference_mode(False), torch.enable_grad():
        batch = TrainingBatch.of(
            model, x, y, recipe, weighting, loss_fn, attack_loss_fn, sample_weight, pass_y, target,
            ignore_index=ignore_index, **attack_arguments,
        )  # fmt: skip
        with distributing.without_reduction(model):
            adversarial = batch.run(None) if batch.attacks_first else None
            clean, first = _clean_half(batch, scaler) if weighting.clean else (None, None)
            adversarial = adversarial or batch.run(first)
        adversarial_part = batch.loss_at(adversarial)
        _backward(weighting.adversarial * adversarial_part, scaler)
        batch.attack.backwards += 1
        loss = weighting.combine(
            None if clean is None else clean.loss.detach(), adversarial_part.detach()
        )
        return _detached(_losses(batch, clean, adversarial, adversarial_part, loss))


def _clean_half(
    batch: TrainingBatch, scaler: torch.amp.GradScaler | None
) -> tuple[CleanPass, list[Tensor | None] | None]:
    """Backpropagates the clean loss; returns the attack's first gradient where it shares that."""
    clean, first = batch.clean(), None
    own = batch.shares_forward and batch.own_loss
    if batch.shares_forward and not own:
        first = batch.attack.of(clean.output, clean.inputs, retain_graph=True)
    batch.refuse_missing(clean, first)  # before the backward pass adds what would stay
    scale = _backward(batch.weighting.clean * clean.loss, scaler)
    batch.attack.backwards += 1
    if own:
        first = [batch.unscaled(tensor.grad, clean, scale) for tensor in clean.inputs]
    return clean, first


def _backward(loss: Tensor, scaler: torch.amp.GradScaler | None) -> Tensor | None:
    """Adds a loss's gradients to `.grad`; returns the factor by which they are scaled."""
    if not loss.requires_grad:
        raise ValueError(
            "the training loss depends on no parameter that requires grad: unfreeze one, and check "
            "that the model does not run under torch.no_grad()"
        )
    with torch.autocast(loss.device.type, enabled=False):
        if scaler is None or not scaler.is_enabled():
            torch.autograd.backward(loss)
            return None
        torch.autograd.backward(scaler.scale(loss))
        scale: Tensor = scaler.scale(torch.ones((), device=loss.device))
        return scale


def _losses(
    batch: TrainingBatch,
    clean: CleanPass | None,
    adversarial: list[Tensor],
    part: Tensor,
    loss: Tensor,
) -> AdversarialLosses:
    return AdversarialLosses(
        loss=loss,
        clean_loss=None if clean is None else clean.loss,
        adversarial_loss=part,
        adversarial=batch.attack.features.put_together([t.detach() for t in adversarial]),
        output=None if clean is None else detached(clean.output),
        forwards=batch.attack.forwards,
        backwards=batch.attack.backwards,
    )


def _detached(losses: AdversarialLosses) -> AdversarialLosses:
    clean = losses.clean_loss
    return dataclasses.replace(
        losses,
        loss=losses.loss.detach(),
        clean_loss=None if clean is None else clean.detach(),
        adversarial_loss=losses.adversarial_loss.detach(),
    )
