"""Robust evaluation: accuracy and loss of a model on clean and on adversarial input."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from torchfgsm.core.call_checks import check_recipe, refuse_arrays
from torchfgsm.core.model_gradient import LossFn
from torchfgsm.core.recipe import Recipe
from torchfgsm.evaluation import shards
from torchfgsm.evaluation.report import ClassScore, CurvePoint, RobustReport
from torchfgsm.evaluation.scores import Scores
from torchfgsm.evaluation.scoring import ADVERSARIAL, CLEAN, CURVE, Attacks, Scoring
from torchfgsm.losses.output_form import form_of
from torchfgsm.models.features import items
from torchfgsm.models.modes import attack_mode
from torchfgsm.system.progress import Bar, Progress
from torchfgsm.training.loss import TrainingLoss


def evaluate(
    model: Any,
    loader: Iterable[Any],
    *,
    recipe: Recipe,
    loss_fn: LossFn | None = None,
    attack_loss_fn: LossFn | None = None,
    device: torch.device | str | None = None,
    epsilons: Sequence[float] | None = None,
    label_key: Any = "label",
    ignore_index: int | None = None,
    pass_y: bool = True,
    target: Callable[[Tensor], Tensor] | None = None,
    progress: Progress | bool | None = None,
    **attack_arguments: Any,
) -> RobustReport:
    """Accuracy and mean loss of a model on the examples of a loader, and on them attacked.

    The model is in eval mode meanwhile, and afterwards as it was. Under torch.distributed, which
    torchrun sets up, the loaders of all processes are taken for the shards of one set, and every
    process gets the report of the whole set; examples that a `DistributedSampler` repeats to fill
    up its shards count once. No other sampler may repeat any.

    Args:
        model: As in `torchfgsm.attack`; its output is one tensor, (N, classes, ...), or (N,) or
            (N, 1) for a binary model, or has the form that the model states. With a `loss_fn` it
            may be a dict, a tuple or any structure of tensors that this takes.
        loader: Batches (x, y), or dicts of features of which `label_key` holds the labels.
        recipe: The attack.
        loss_fn: `loss_fn(output, y)` -> losses per example (N, ...), or their mean. Default:
            cross-entropy as in `torchfgsm.attack`, of each position of a dense output. With a
            loss of your own, labels that are no classes (targets of a regression, rows of several
            ones, another shape) and outputs that are no tensor leave the accuracies None.
        attack_loss_fn: The attack's own loss; default `loss_fn`.
        device: Where batches are moved to; default the model's own.
        epsilons: Lengths for the curve. The recipe's ball gets each of these radii, its step and
            the radius of its random start in proportion; a recipe of one step without a ball gets
            a step of this length.
        label_key: Key of the labels in batches that are dicts.
        ignore_index: A label that is left out of accuracies and mean losses, as in torch's
            cross-entropy; a `loss_fn` must know it, too.
        pass_y: Whether the attack is against the labels rather than the model's own prediction.
        target: Targets of a targeted recipe from the labels of a batch.
        progress: True: a bar on stderr. A callable is called with the batches done and their
            number, None where that is not known. Process 0 alone shows it.
        **attack_arguments: `clip_min`, `clip_max`, `mask`, `generator` and `validate` of
            `torchfgsm.attack`.

    Returns:
        The report.

    Raises:
        TypeError: As `torchfgsm.attack`; an output that is not a tensor, without a `loss_fn`; a
            batch of another form.
        ValueError: As `torchfgsm.attack`; no examples; labels out of range; lengths by which the
            recipe cannot be scaled; repeated examples that cannot be told.
    """
    check_recipe(recipe)
    if recipe.targeted != (target is not None):
        what = "a targeted recipe needs target=" if recipe.targeted else "target= was given"
        raise ValueError(f"{what}, the recipe says targeted={recipe.targeted}")
    unknown = set(attack_arguments) - {"clip_min", "clip_max", "mask", "generator", "validate"}
    if unknown:
        raise TypeError(f"evaluate takes no {sorted(unknown)}; lengths are the recipe's")
    scaled = [at_length(recipe, epsilon) for epsilon in epsilons or ()]
    repeated = shards.RepeatedExamples(loader)
    with torch.inference_mode(False), torch.no_grad(), contextlib.ExitStack() as stack:
        model = shards.undistributed(model)
        form = form_of(model)
        loss = TrainingLoss(loss_fn, recipe.model_output, None, True, form, ignore_index)
        attacking = attack_loss_fn or loss_fn
        if attacking is None and ignore_index is not None and pass_y and target is None:
            attacking = loss.elements
        attacks = Attacks(model, [recipe, *scaled], attacking, pass_y, target, attack_arguments)
        scoring = Scoring(attacks, loss, Scores(CURVE + len(scaled)))
        report = _reporter(progress, stack)
        stack.enter_context(attack_mode(model, "eval", one_attack=False))
        place, total = device or _device_of(model), _length_of(loader)
        for number, batch in enumerate(loader, start=1):
            refuse_arrays(batch=batch)
            x, y = _parts(batch, label_key)
            count = _count(x)
            rows = repeated.kept(count)
            scoring.add(_moved(x, place), _moved(y, place), rows, count)
            report(number, total)
    scoring.scores.over_all_processes()
    return _report(recipe, epsilons or (), scoring.scores)


def at_length(recipe: Recipe, epsilon: float) -> Recipe:
    """A recipe with another ball and its step in proportion, or without a ball another step.

    Raises:
        ValueError: A bad length; a recipe without a length, or of several steps without a ball.
    """
    if not 0 <= epsilon < math.inf:
        raise ValueError(f"epsilons must be finite and at least 0, got {epsilon!r}")
    length = recipe.step if recipe.epsilon is None else recipe.epsilon
    if recipe.epsilon is None and recipe.iterations > 1:
        raise ValueError(
            f"a recipe of {recipe.iterations} steps without a ball has no length that epsilons "
            "could set: give it an epsilon"
        )
    if length is None or length <= 0 or recipe.step is None:
        raise ValueError(
            f"epsilons scale the recipe's own length, which must be above 0: got step "
            f"{recipe.step} and epsilon {recipe.epsilon}"
        )
    factor = epsilon / length
    start = recipe.random_radius
    return replace(
        recipe,
        step=epsilon if recipe.epsilon is None else recipe.step * factor,
        epsilon=None if recipe.epsilon is None else epsilon,
        random_radius=None if start is None else start * factor,
    )


def _parts(batch: Any, label_key: Any) -> tuple[Any, Any]:
    """Input and labels of a batch."""
    if isinstance(batch, Mapping):
        if label_key not in batch:
            raise ValueError(
                f"expected the labels of a batch under {label_key!r}, found the keys "
                f"{list(batch)}: label_key= names another"
            )
        return {name: v for name, v in batch.items() if name != label_key}, batch[label_key]
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        came = f"{type(batch).__name__}"
        came += f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
        raise TypeError(
            f"expected batches (x, y), or dicts with the labels in them, got {came}: of more parts "
            "give ((x, y) for x, y, *_ in loader); a loader of one batch is [(x, y)]"
        )
    return batch[0], batch[1]


def _count(x: Any) -> int:
    sizes = [len(v) for v in items(x).values() if isinstance(v, Tensor) and v.dim()]
    if not sizes:
        raise TypeError(f"expected a batch of tensors (N, ...), got {type(x).__name__}")
    return sizes[0]


def _moved(value: Any, device: torch.device | str | None) -> Any:
    if isinstance(value, Tensor):
        return value if device is None else value.to(device)
    if isinstance(value, Mapping):
        return {name: _moved(entry, device) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_moved(entry, device) for entry in value]
    return value


def _device_of(model: Any) -> torch.device | None:
    if not isinstance(model, nn.Module):
        return None
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), None)


def _length_of(loader: Any) -> int | None:
    try:
        return len(loader)
    except TypeError:  # an iterable data set
        return None


def _reporter(progress: Progress | bool | None, stack: contextlib.ExitStack) -> Progress:
    if not progress or not shards.is_first():
        return lambda done, total: None
    if progress is True:
        return stack.enter_context(Bar("evaluating", "batches"))
    return progress


def _report(recipe: Recipe, epsilons: Sequence[float], scores: Scores) -> RobustReport:
    without = scores.no_classes
    if not scores.examples or (without is None and not scores.counts.sum()):
        raise ValueError("the loader has no examples whose labels count")
    counts = scores.counts.tolist() if without is None else []
    return RobustReport(
        recipe=recipe,
        examples=scores.examples,
        labels=int(sum(counts)),
        clean_accuracy=scores.accuracy(CLEAN),
        adversarial_accuracy=scores.accuracy(ADVERSARIAL),
        clean_loss=scores.loss(CLEAN),
        adversarial_loss=scores.loss(ADVERSARIAL),
        classes=tuple(
            ClassScore(label, int(count), scores.class_accuracy(CLEAN, label),
                       scores.class_accuracy(ADVERSARIAL, label))
            for label, count in enumerate(counts)
        ),
        curve=tuple(
            CurvePoint(float(epsilon), scores.accuracy(number), scores.loss(number))
            for number, epsilon in enumerate(epsilons, start=CURVE)
        ),
        no_accuracy=without,
    )  # fmt: skip
