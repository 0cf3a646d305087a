"""One batch of adversarial training: its clean pass, its attack, and what the two share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchfgsm.core import checks
from torchfgsm.core.engine import refuse_missing
from torchfgsm.core.gradient import connected, leaf
from torchfgsm.core.limits import Call
from torchfgsm.core.model_gradient import LossFn, ModelGradient, run_on_model, starts_at_input
from torchfgsm.core.preparation import prepared
from torchfgsm.core.recipe import Recipe
from torchfgsm.core.weighting import Weighting
from torchfgsm.losses.output_form import form_of, puts_head_back
from torchfgsm.models.features import normal
from torchfgsm.models.keras_mode import warn_if_untrained
from torchfgsm.models.modules import is_training
from torchfgsm.training.loss import TrainingLoss, number


@dataclass
class CleanPass:
    """The clean forward pass."""

    inputs: list[Tensor]
    output: Any
    loss: Tensor
    count: Any
    """By what the sum of the losses per example or position was divided."""


@dataclass
class TrainingBatch:
    """One batch: its losses at any point, and its attack."""

    attack: ModelGradient
    call: Call
    y: Any
    training_loss: TrainingLoss
    weighting: Weighting
    own_loss: bool
    """Whether the attack's loss is the training loss up to a positive factor per example."""
    shares_forward: bool
    """Whether the attack's first forward pass is the clean one."""

    @classmethod
    def of(
        cls,
        model: Any,
        x: Any,
        y: Any,
        recipe: Recipe,
        weighting: Weighting,
        loss_fn: LossFn | None,
        attack_loss_fn: LossFn | None,
        sample_weight: Tensor | None,
        pass_y: bool,
        target: Any,
        ignore_index: int | None = None,
        **attack_arguments: Any,
    ) -> TrainingBatch:
        """Takes the arguments of `adversarial_loss`, checked.

        Raises:
            ValueError: As `adversarial_loss`.
        """
        if recipe.targeted != (target is not None):
            what = "a targeted recipe needs target=" if recipe.targeted else "target= was given"
            raise ValueError(f"{what}, the recipe says targeted={recipe.targeted}")
        if y is None:
            raise ValueError("training needs labels: y is None")
        warn_if_untrained(model)
        y, sample_weight = normal(y), normal(sample_weight)
        labels = target if recipe.targeted else y if pass_y else None
        values = checks.looks_at_values(x, attack_arguments.get("validate"))
        training_loss = TrainingLoss(
            loss_fn, recipe.model_output, sample_weight, values, form_of(model), ignore_index
        )
        attacking = attack_loss_fn or loss_fn
        ignores = ignore_index is not None and attack_loss_fn is None and labels is y
        if ignores and loss_fn is None:
            attacking = training_loss.elements
        attack, call = prepared(model, x, labels, recipe=recipe, loss_fn=attacking,
                                **attack_arguments)  # fmt: skip
        training_loss.check(len(attack.features.tensors[0]))
        weighted = sample_weight is not None
        if attack_loss_fn is None and (weighted or ignores) and recipe.reduction == "mean":
            attack.loss_fn = training_loss
        own = attack_loss_fn is None and pass_y and not recipe.targeted
        own = own and not (weighted and recipe.reduction == "sum")
        own = own and puts_head_back(model, recipe.model_output) is None
        same_mode = recipe.model_mode != "eval" or not is_training(model)
        shares = recipe.iterations > 0 and same_mode and starts_at_input(recipe, call)
        return cls(attack, call, y, training_loss, weighting, own, shares)

    @property
    def attacks_first(self) -> bool:
        """Whether the attack comes before the clean pass, as CleverHans' in eval mode.

        The clean pass would move the BatchNorm statistics that the attack sees.
        """
        return self.attack.recipe.model_mode == "eval" and not self.shares_forward

    def clean(self) -> CleanPass:
        """The clean forward pass; its inputs are leaves where the attack shares it."""
        tensors = self.attack.features.tensors
        inputs = [leaf(t) if self.shares_forward else t.detach() for t in tensors]
        output = self.attack.output(inputs)
        if self.training_loss.loss_fn is None:
            self.attack.look(output)
        elements = self.training_loss.elements(output, self.y)
        counting = self.training_loss.counting(output, self.y, elements)
        loss = self.training_loss.reduced(elements, counting)
        count = number(elements, counting) if elements.dim() else 1
        return CleanPass(inputs, output, loss, count)

    def refuse_missing(self, clean: CleanPass, first: list[Tensor | None] | None) -> None:
        """Refuses a clean pass that has no path from the input to the loss, if the recipe does.

        Args:
            clean: The clean pass.
            first: The attack's gradient there; None: the loss's own gradient will be that.

        Raises:
            ValueError: As `torchfgsm.attack`.
        """
        looks = self.attack.recipe.missing_gradient == "refuse" and self.shares_forward
        if looks and not torch.compiler.is_compiling():
            found = connected(clean.loss, clean.inputs) if first is None else first
            refuse_missing(self.attack.features, found, self.attack.recipe)

    def run(self, first: list[Tensor | None] | None) -> list[Tensor]:
        """The adversarial features."""
        return run_on_model(self.attack, self.call, first)

    def loss_at(self, tensors: list[Tensor]) -> Tensor:
        """The training loss at given features."""
        return self.training_loss(self.attack.output(tensors), self.y)

    def unscaled(self, gradient: Tensor | None, clean: CleanPass, scale: Tensor | None) -> Any:
        """The attack's gradient, from that of the weighted and scaled clean loss."""
        if gradient is None:
            return None
        if scale is not None:
            # What the scale lets overflow is no gradient of the model: the scaler skips such a
            # step, but a NaN in the adversarial batch would stay in the BatchNorm statistics.
            gradient = torch.nan_to_num(gradient / scale.to(gradient.device), 0.0, 0.0, 0.0)
        if self.weighting.clean != 1:
            gradient = gradient / self.weighting.clean
        recipe = self.attack.recipe
        # The training loss is a mean; the sum does not let the guard see the batch size.
        alone = isinstance(clean.count, int) and clean.count == 1
        return gradient if alone or recipe.reduction != "sum" else gradient * clean.count
