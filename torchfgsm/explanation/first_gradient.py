"""The model's output and the attack's gradient at the clean input, as one side sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from torchfgsm.core.gradient import input_gradient, leaf
from torchfgsm.core.limits import Call
from torchfgsm.core.model_gradient import output_tensor
from torchfgsm.core.recipe import Recipe
from torchfgsm.core.step import conditioned
from torchfgsm.explanation.batch_attacks import BatchAttacks, undisturbed
from torchfgsm.libraries.configuration import Configuration
from torchfgsm.losses.labels import predicted_labels
from torchfgsm.losses.output_form import (
    OutputForm,
    as_taken,
    form_of,
    gives_probabilities,
    puts_head_back,
)
from torchfgsm.models import traces
from torchfgsm.models.calling import call_model
from torchfgsm.models.features import Features
from torchfgsm.models.modes import attack_mode
from torchfgsm.models.modules import modules_of
from torchfgsm.training.loss import TrainingLoss


@dataclass(frozen=True)
class Seen:
    """One forward and one backward pass over the batch, with all that a side's gradient needs.

    Attributes:
        output: The output as the recipe sees it, with a softmax where it wants one; None where it
            is no tensor.
        labels: The labels of the loss: given, targets, or predicted.
        gradients: Gradient of the sum of the losses by each feature, of the sign that the attack
            climbs; None without a path.
        terms: Number of losses in each example's batch, (N,): what a mean divides by.
        drew: Whether the forward pass drew random numbers from torch, or from a seed state of the
            model's own.
        wrote: Names of what the forward pass wrote into buffers and frozen parameters.
        form: What is known of this output, None: torch's layout.
    """

    output: Tensor | None
    labels: Any
    gradients: tuple[Tensor | None, ...]
    terms: Tensor
    drew: bool
    wrote: tuple[str, ...]
    form: OutputForm | None = None


@dataclass(frozen=True)
class SideView:
    """What one side's attack starts from.

    Attributes:
        configuration: The side.
        attacks: The model, its batch and labels.
        features: The features that are perturbed.
        seen: The passes at the clean input.
    """

    configuration: Configuration
    attacks: BatchAttacks
    features: Features
    seen: Seen

    @property
    def recipe(self) -> Recipe:
        """The side's choices."""
        return self.configuration.recipe

    @property
    def examples(self) -> int:
        """How many there are."""
        return self.features.tensors[0].shape[0]

    def gradients(self, reduction: Literal["sum", "mean"] | None = None) -> list[Tensor]:
        """The gradients that directions are computed from, of features with a path to the loss.

        Args:
            reduction: "sum" or "mean" in place of the recipe's own.
        """
        found = [i for i, g in enumerate(self.seen.gradients) if g is not None]
        tensors = [self.features.tensors[i] for i in found]
        summed = [g for g in self.seen.gradients if g is not None]
        if (reduction or self.recipe.reduction) == "mean":
            terms = self.seen.terms
            summed = [
                g / terms.to(g).reshape(-1, *[1] * (g.dim() - 1)) if g.dim() else g for g in summed
            ]
        call = Call.of(self.recipe, self.features, step=1.0).only(found)
        return conditioned(tensors, summed, self.recipe, call)


def side_views(attacks: BatchAttacks, sides: Sequence[Configuration]) -> list[SideView]:
    """What the sides' attacks start from; sides that see the same share their passes.

    Nothing is left on the model: the passes are made in the mode of the recipe, and statistics and
    random numbers are put back.
    """
    features = attacks.features
    passes: dict[Any, Seen] = {}
    views = []
    for side in sides:
        recipe = side.recipe
        predicts = attacks.labels(recipe) is None
        key = (
            recipe.model_output,
            recipe.targeted,
            recipe.model_mode == "eval",
            recipe.ties if predicts else "given",
        )
        if key not in passes:
            passes[key] = _seen(attacks, recipe)
        views.append(SideView(side, attacks, features, passes[key]))
    return views


def _seen(attacks: BatchAttacks, recipe: Recipe) -> Seen:
    mode: Literal["eval", "keep"] = "eval" if recipe.model_mode == "eval" else "keep"
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        undisturbed(attacks.model, attacks.features, attacks.seed),
        attack_mode(attacks.model, mode),
    ):
        parts = [_part(batch, recipe) for batch in attacks.batches()]
    outputs = [part.output for part in parts]
    tensors = [output for output in outputs if output is not None]
    return Seen(
        output=torch.cat(tensors) if len(tensors) == len(outputs) else None,
        labels=_joined([part.labels for part in parts]),
        gradients=tuple(map(_joined, zip(*(part.gradients for part in parts), strict=True))),
        terms=torch.cat([part.terms for part in parts]),
        drew=any(part.drew for part in parts),
        wrote=parts[0].wrote,
        form=parts[0].form,
    )


def _part(attacks: BatchAttacks, recipe: Recipe) -> Seen:
    """The passes over examples that the attack sees at once."""
    features = attacks.features
    inputs = [leaf(tensor) for tensor in features.tensors]
    random, statistics = _random_states(attacks), traces.statistics(attacks.model)
    model = attacks.view(recipe)
    output = call_model(model, features.put_together(inputs))
    form = form_of(model)
    head = puts_head_back(model, recipe.model_output) if attacks.loss_fn is None else None
    if head is not None:
        # As the attack takes it: logits of classes, whichever head gives them.
        output, form = as_taken(output, head), OutputForm("logits", None, head.class_dim)
    drew = not all(map(torch.equal, random, _random_states(attacks)))
    now = traces.statistics(attacks.model)
    wrote = tuple(n for n, value in statistics.items() if not torch.equal(value, now[n]))
    labels = attacks.labels(recipe)
    if labels is None:
        found = output_tensor(output)
        declared = recipe.model_output == "probabilities"
        probabilities = gives_probabilities(found, form, declared=declared)
        labels = predicted_labels(found, recipe.ties, probabilities=probabilities, form=form)
    losses = TrainingLoss(attacks.loss_fn, recipe.model_output, None, False, form)
    elements = losses.elements(output, labels)
    total = -elements.sum() if recipe.targeted else elements.sum()
    size = inputs[0].shape[0]
    return Seen(
        output=output.detach() if isinstance(output, Tensor) else None,
        labels=labels,
        gradients=tuple(input_gradient(total, inputs)),
        # A scalar is reduced already: no mean divides it again.
        terms=torch.full((size,), float(elements.numel()), device=inputs[0].device),
        drew=drew,
        wrote=wrote,
        form=form,
    )


def _random_states(attacks: BatchAttacks) -> list[Tensor]:
    """The states that the model draws from: torch's, and integers of its own, as Keras' seeds."""
    places = {t.device for t in attacks.features.tensors if t.device.type == "cuda"}
    seeds = [
        parameter.detach().clone()
        for module in modules_of(attacks.model)
        for parameter in module._parameters.values()
        if parameter is not None and not parameter.is_floating_point()
    ]
    states = [torch.cuda.get_rng_state(place) for place in sorted(places, key=str)]
    return [torch.get_rng_state(), *states, *seeds]


def _joined(parts: Sequence[Any]) -> Any:
    if all(isinstance(part, Tensor) for part in parts):
        return torch.cat(list(parts))
    return parts[0]
