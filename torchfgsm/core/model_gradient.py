"""The gradient that drives an attack on a model: its output, its labels, its loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from torchfgsm.core import norms
from torchfgsm.core.engine import run
from torchfgsm.core.gradient import autocasts, input_gradient, leaf, may_underflow, scaled_gradient
from torchfgsm.core.limits import Call
from torchfgsm.core.recipe import Recipe
from torchfgsm.losses.labels import predicted_labels
from torchfgsm.losses.output_checks import look_at_output, warn_of_head
from torchfgsm.losses.output_form import (
    OutputForm,
    as_taken,
    form_of,
    gives_probabilities,
    puts_head_back,
)
from torchfgsm.losses.per_example import DefaultLoss
from torchfgsm.models.calling import call_model
from torchfgsm.models.features import Features
from torchfgsm.models.modes import attack_mode
from torchfgsm.models.modules import is_training

LossFn = Callable[[Any, Any], Tensor]


@dataclass
class ModelGradient:
    """The gradient of a model's loss at any point; predicts labels when none are given.

    Attributes:
        model: The model.
        features: The clean input's features.
        y: Labels or targets; None until they are predicted from the first forward pass.
        recipe: The choices.
        loss_fn: (output, target) -> scalar or per-example losses; None: cross-entropy.
        keep_graph: Keep gradients differentiable with respect to parameters and the input.
        values: Whether labels and outputs are looked at.
        expects_logits: The dialects': `loss_fn` takes logits whatever the model states, and an
            output of probabilities is worth a warning.
        scales: Whether the gradients of float16 models are kept from rounding to 0.
        forwards: How often the model was called.
        backwards: How often a gradient was taken.
    """

    model: Any
    features: Features
    y: Any
    recipe: Recipe
    loss_fn: LossFn | None = None
    keep_graph: bool = False
    values: bool = True
    expects_logits: bool = False
    scales: bool = True
    looked: bool = field(default=False, init=False)
    forwards: int = field(default=0, init=False)
    backwards: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.form = None if self.expects_logits else form_of(self.model)
        self.head = None
        if self.loss_fn is None or self.expects_logits:
            self.head = puts_head_back(self.model, self.recipe.model_output)
        if self.head is not None and not self.expects_logits:
            # What a head gives is taken for the logits of classes, whichever head it is.
            self.form = OutputForm("logits", None, self.head.class_dim)
        self.default = DefaultLoss(self.recipe.model_output, self.form, self.values)

    def __call__(self, turn: int, tensors: list[Tensor]) -> list[Tensor | None]:
        """Gradient of the attack's loss with respect to each feature at `tensors`."""
        with torch.enable_grad():
            inputs = [t if self.keep_graph and t.requires_grad else leaf(t) for t in tensors]
            return self.of(self.output(inputs), inputs)

    def of(
        self, output: Any, inputs: Sequence[Tensor], *, retain_graph: bool | None = None
    ) -> list[Tensor | None]:
        """Gradient of the attack's loss at an output by the inputs that it was computed from."""
        output = self._as_taken(output)
        if self.y is None:
            self._predict(output)
        self.backwards += 1
        options: dict[str, Any] = {"create_graph": self.keep_graph, "retain_graph": retain_graph}
        if self.scales and may_underflow(output, inputs):
            return self._scaled(output, inputs, options)
        return input_gradient(self._loss(output), inputs, **options)

    def _scaled(
        self, output: Tensor, inputs: Sequence[Tensor], options: dict[str, Any]
    ) -> list[Tensor | None]:
        """The gradient in float16, up to positive factors where those change no direction."""
        recipe, size = self.recipe, inputs[0].shape[:1]
        one_vector = recipe.scalar_examples == "joint" and inputs[0].dim() == 1
        return scaled_gradient(
            self._loss,
            output,
            inputs,
            # A loss of the caller's may hold float16 weights, which autocast alone lets mix.
            widen=output.dtype is torch.float16 and (self.loss_fn is None or autocasts(output)),
            by_example=output.shape[:1] == size and not one_vector and not is_training(self.model),
            scale_back=norms.sees_length(recipe.norm, recipe.guard),
            **options,
        )

    def output(self, tensors: Sequence[Tensor]) -> Any:
        """The model's output at given features."""
        self.forwards += 1
        return call_model(self.model, self.features.put_together(tensors))

    def predict(self) -> None:
        """Fixes the labels from the clean input, for attacks that start elsewhere."""
        with torch.no_grad():
            self._predict(self._as_taken(self.output(self.features.tensors)))

    def _as_taken(self, output: Any) -> Any:
        """The output as a default loss takes it: with the head that was cut off, if it wants that.

        A loss of the caller's own takes what the model gives; that of a dialect is a default.
        """
        taken = as_taken(output, self.head)
        if taken is not output and self.head is not None and self.values:
            warn_of_head(self.model, self.head)
        return taken

    def _predict(self, output: Any) -> None:
        found, declared = output_tensor(output), self.recipe.model_output == "probabilities"
        probabilities = (
            declared
            if self.expects_logits
            else gives_probabilities(found, self.form, declared=declared)
        )
        self.y = predicted_labels(
            found, self.recipe.ties, probabilities=probabilities, form=self.form
        )

    def look(self, output: Any) -> None:
        """Warns, once per model, of an output that is not what the loss takes it for."""
        look_at_output(
            self.model,
            output_tensor(output),
            self.form,
            probabilities=not self.expects_logits and self.default.probabilities,
            values=self.values,
        )

    def _loss(self, output: Any) -> Tensor:
        first, self.looked = not self.looked, True
        if first and self.head is None and (self.loss_fn is None or self.expects_logits):
            self.look(output)
        if self.loss_fn is not None:
            loss = self.loss_fn(output, self.y)
        else:
            loss = self.default(output_tensor(output), self.y)
            if first:
                self.default.refuse_no_classes(output, self.y)
        if not isinstance(loss, Tensor):
            raise TypeError(f"loss_fn must return a tensor, got {type(loss).__name__}")
        if loss.dim():
            loss = loss.sum() if self.recipe.reduction == "sum" else loss.mean()
        return -loss if self.recipe.targeted else loss


def output_tensor(output: Any) -> Tensor:
    """The output of a model as the default loss takes it.

    Raises:
        TypeError: Not a tensor.
    """
    if not isinstance(output, Tensor):
        raise TypeError(
            f"the model's output is {type(output).__name__}, not a tensor: give labels y and a "
            "loss_fn(output, target) that takes it (to explain, also recipes with labels='given')"
        )
    return output


def starts_at_input(recipe: Recipe, call: Call) -> bool:
    """Whether the first gradient is taken at the input itself, not at a random or clipped start."""
    bounded = any(bound is not None for bound in (*call.lows, *call.highs))
    iterated = recipe.order == "clip_project_clip" and call.radii[0] is not None
    return recipe.random_start == "none" and not (iterated and bounded)


def run_on_model(
    gradient: ModelGradient, call: Call, first: list[Tensor | None] | None = None
) -> list[Tensor]:
    """Runs a recipe against a model, in the recipe's mode and without a trace on it.

    Args:
        gradient: The model, its input, labels and loss.
        call: Steps, bounds and masks of this call.
        first: The gradient at the input, where it is known and the recipe starts there.

    Returns:
        The adversarial features; part of autograd's graph only with `keep_graph`.
    """
    recipe = gradient.recipe
    unseeded = recipe.random_start != "none" and call.generator is None
    # A compiled graph takes torch's own generator: it cannot make one.
    if unseeded and (recipe.model_mode == "keep" or not torch.compiler.is_compiling()):
        # Seeded here, since a mode that puts the random state back would repeat the same start.
        device = gradient.features.tensors[0].device
        seed = int(torch.randint(2**62, (1,)))
        call = replace(call, generator=torch.Generator(device).manual_seed(seed))
    with (
        attack_mode(gradient.model, recipe.model_mode, keep_graph=gradient.keep_graph),
        torch.set_grad_enabled(gradient.keep_graph),
    ):
        if gradient.y is None and not starts_at_input(recipe, call):
            gradient.predict()

        def gradient_at(turn: int, tensors: list[Tensor]) -> list[Tensor | None]:
            return first if turn == 0 and first is not None else gradient(turn, tensors)

        return run(gradient.features, gradient_at, recipe, call)
