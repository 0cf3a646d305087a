"""The difference of two training losses on one batch, choice by choice."""

from __future__ import annotations

import copy
import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfgsm.core.model_gradient import LossFn
from torchfgsm.core.recipe import Recipe
from torchfgsm.core.weighting import Weighting
from torchfgsm.explanation.batch_attacks import BatchAttacks, undisturbed
from torchfgsm.explanation.catalogue import sentence
from torchfgsm.explanation.effects import differing
from torchfgsm.explanation.measures import ratio
from torchfgsm.explanation.result import TrainingEffect, TrainingExplanation
from torchfgsm.libraries.configuration import Configuration
from torchfgsm.losses.output_checks import unsaid
from torchfgsm.losses.output_form import OutputForm, class_dim, form_of, is_binary
from torchfgsm.losses.per_example import DefaultLoss
from torchfgsm.training.step import adversarial_loss


@dataclass(frozen=True)
class Training:
    """Every choice of a training loss.

    Attributes:
        recipe: How adversarial examples are made in it.
        weighting: Weights of the two losses.
        label_smoothing: Share of each label that is spread over all classes.
        smoothed_attack: Whether the attack takes the smoothed labels, too (NSL).
        sample_weight: "given": the sample weights count (NSL); else None.
    """

    recipe: Recipe
    weighting: Weighting
    label_smoothing: float
    smoothed_attack: bool
    sample_weight: str | None

    @classmethod
    def of(cls, configuration: Configuration, *, weighted: bool) -> Training | None:
        """The choices of a configuration; None where its library has no training loss.

        Args:
            configuration: The configuration.
            weighted: Whether there are sample weights.
        """
        if configuration.weighting is None:
            return None
        nsl = configuration.library == "nsl"
        return cls(
            configuration.training_recipe,
            configuration.weighting,
            configuration.label_smoothing,
            smoothed_attack=nsl,
            sample_weight="given" if nsl and weighted else None,
        )

    def differing(self, other: Training) -> dict[str, tuple[Any, Any]]:
        """The choices on which two differ: the loss's own first, then fields of the recipe."""
        own = {
            field.name: (getattr(self, field.name), getattr(other, field.name))
            for field in dataclasses.fields(self)
            if field.name != "recipe"
        }
        if not self.label_smoothing and not other.label_smoothing:
            del own["smoothed_attack"]
        found = {name: pair for name, pair in own.items() if pair[0] != pair[1]}
        return {**found, **differing(self.recipe, other.recipe)}

    def with_(self, name: str, value: Any) -> Training:
        """The same with one other choice."""
        if name in {field.name for field in dataclasses.fields(self)}:
            return dataclasses.replace(self, **{name: value})
        return dataclasses.replace(self, recipe=dataclasses.replace(self.recipe, **{name: value}))


def explain_training(
    attacks: BatchAttacks,
    a: Configuration,
    b: Configuration,
    sample_weight: Tensor | None = None,
) -> TrainingExplanation | None:
    """What each choice does to the training loss and to its gradient by the parameters.

    It runs on a copy of the model. A model in eval mode is put in training mode there, since only
    then do dropout and BatchNorm show; one that is in training mode keeps the mode of each part,
    and one that knows inference alone stays in eval mode. Dropout is seeded alike in all runs, and
    each starts at the same statistics. The batch is the first `batch_size` examples.

    Args:
        attacks: The batch.
        a: One side.
        b: The other.
        sample_weight: Factors of the losses per example, which NSL's side takes.

    Returns:
        The explanation; None where a side has no training loss, or the model no parameter that
        requires grad.
    """
    weighted = sample_weight is not None
    first, second = (Training.of(side, weighted=weighted) for side in (a, b))
    if first is None or second is None or not _trains(attacks.model):
        return None
    sides = (first, second)
    batch = _Batch(attacks.first_batch(), _copied(attacks.model), sample_weight)
    ends = [batch.run(side) for side in sides]
    whole = ends[1][1] - ends[0][1]
    effects, rest = [], whole.clone()
    for name, values in sides[0].differing(sides[1]).items():
        from_a = batch.try_(sides[0], name, values[1])
        from_b = batch.try_(sides[1], name, values[0])
        if from_a is not None:
            rest -= from_a[1] - ends[0][1]
        shown = tuple(_shown(value) for value in values)
        texts = [
            sentence(name, side.library, value) for side, value in zip((a, b), shown, strict=True)
        ]
        effects.append(
            TrainingEffect(
                name,
                (shown[0], shown[1]),
                (texts[0], texts[1]),
                *_changes(from_a, ends[0]),
                *_changes(from_b, ends[1]),
            )
        )
    _, gradient, scaled = _changes(ends[1], ends[0])
    length = float(whole.norm())
    return TrainingExplanation(
        losses=(ends[0][0], ends[1][0]),
        gradient=gradient,
        scaled=scaled,
        effects=tuple(effects),
        remainder=ratio(float(rest.norm()), length) if length else 0.0,
    )


Run = tuple[float, Tensor]
"""A training loss, and its gradient by all parameters as one float64 vector."""


@dataclass
class _Batch:
    """A copy of the model, and the batch that it is trained on."""

    attacks: BatchAttacks
    model: nn.Module
    sample_weight: Tensor | None

    def run(self, training: Training) -> Run:
        attacks, recipe = self.attacks, training.recipe
        given = self.sample_weight if training.sample_weight else None
        loss_fn, attack_loss_fn = self._losses(training)
        target = {"target": attacks.target} if recipe.targeted else {}
        generator = torch.Generator(attacks.features.tensors[0].device).manual_seed(attacks.seed)
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            undisturbed(self.model, attacks.features, attacks.seed),
            unsaid(),
        ):
            loss = adversarial_loss(
                attacks.view(recipe, self.model),
                attacks.x,
                attacks.y,
                recipe=recipe,
                weighting=training.weighting,
                loss_fn=loss_fn,
                attack_loss_fn=attack_loss_fn,
                sample_weight=None if given is None else given[: len(attacks.y)],
                pass_y=recipe.labels == "given",
                generator=generator,
                validate=False,
                **target,
            ).loss
            parameters = [p for p in self.model.parameters() if p.requires_grad]
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
        gradients = [
            (torch.zeros_like(p) if g is None else g).detach().cpu().double().flatten()
            for g, p in zip(found, parameters, strict=True)
        ]
        return float(loss.detach()), torch.cat(gradients)

    def try_(self, training: Training, name: str, value: Any) -> Run | None:
        """A run with one other choice; None where it cannot be made alone."""
        try:
            return self.run(training.with_(name, value))
        except ValueError:
            return None

    def _losses(self, training: Training) -> tuple[LossFn | None, LossFn | None]:
        """The training loss, and the attack's own where that takes other labels."""
        base = self.attacks.loss_fn
        if not training.label_smoothing:
            return base, None
        if base is None:
            form = form_of(self.attacks.view(training.recipe))
            base = DefaultLoss(training.recipe.model_output, form, values=False)
        smoothed = _Smoothed(base, training.label_smoothing, self.attacks.form)
        return smoothed, None if training.smoothed_attack else base


@dataclass(frozen=True)
class _Smoothed:
    """A loss of labels, a share of which is spread over all classes."""

    loss_fn: LossFn
    share: float
    form: OutputForm | None

    def __call__(self, output: Tensor, y: Tensor) -> Tensor:
        if is_binary(output, self.form):
            rows, classes = y.to(output), 2
        else:
            dim = class_dim(output, self.form)
            classes = output.shape[dim]
            rows = (
                y
                if y.is_floating_point()
                else F.one_hot(y.long(), classes).movedim(-1, dim).to(output)
            )
        return self.loss_fn(output, rows - self.share * (rows - 1.0 / classes))


def _changes(changed: Run | None, reference: Run) -> tuple[float, float, float]:
    """Change of the loss, relative change of the gradient, the same after the best factor."""
    if changed is None:
        return math.nan, math.nan, math.nan
    new, old = changed[1], reference[1]
    square = float(new @ new)
    factor = float(new @ old) / square if square else 0.0
    length = float(old.norm())
    return (
        changed[0] - reference[0],
        ratio(float((new - old).norm()), length),
        ratio(float((factor * new - old).norm()), length),
    )


def _trains(model: Any) -> bool:
    return isinstance(model, nn.Module) and any(p.requires_grad for p in model.parameters())


def _copied(model: nn.Module) -> nn.Module:
    """A copy in training mode, or in eval mode where the model refuses training."""
    copied = copy.deepcopy(model)
    if any(module.training for module in copied.modules()):
        return copied  # frozen parts stay frozen
    try:
        return copied.train()
    except (RuntimeError, ValueError):
        return copied.eval()


def _shown(value: Any) -> Any:
    """A value as plain data."""
    if isinstance(value, Weighting):
        return f"{value.clean:g} : {value.adversarial:g}"
    return value
