"""The attacks of one batch: each recipe is run once, seeded alike, and leaves no trace."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchfgsm.core.attacks import attack
from torchfgsm.core.model_gradient import LossFn
from torchfgsm.core.preparation import prepared
from torchfgsm.core.recipe import Recipe
from torchfgsm.evaluation.evaluating import at_length
from torchfgsm.evaluation.scores import predictions, true_classes
from torchfgsm.explanation.measures import Attacked
from torchfgsm.explanation.result import Array
from torchfgsm.explanation.traps.output_kind import WithProbabilities, kind_of_output
from torchfgsm.losses.output_checks import unsaid
from torchfgsm.losses.output_form import OutputForm, form_of
from torchfgsm.models.calling import call_model
from torchfgsm.models.features import Features, items
from torchfgsm.models.modes import attack_mode
from torchfgsm.training.loss import TrainingLoss

_WHOLE = slice(None)


@dataclass
class BatchAttacks:
    """A model, a labelled batch, and what each recipe makes of it.

    Attributes:
        model: The model.
        x: The batch, as the model takes it.
        y: Its labels.
        target: Labels that targeted recipes move towards, or None.
        loss_fn: `loss_fn(output, y)`; None: cross-entropy.
        model_output: What the model gives, "logits" or "probabilities"; None until the clean batch
            shows it, which also refutes what is not so.
        batch_size: How many examples an attack sees at once; None: all.
        seed: Seed of every run.
        report: Called with the number of attacks done so far.
        refuted: Clean examples that are no probabilities though they were said to be.
    """

    model: Any
    x: Any
    y: Tensor
    target: Any = None
    loss_fn: LossFn | None = None
    model_output: str | None = None
    batch_size: int | None = None
    seed: int = 0
    report: Callable[[int], None] = lambda done: None
    refuted: int = 0
    found: dict[Recipe, Attacked] = field(default_factory=dict, init=False)

    @property
    def features(self) -> Features:
        """The features that are perturbed."""
        return Features.take_apart(self.x)

    @property
    def form(self) -> OutputForm | None:
        """What the model states of its output."""
        return form_of(self.model)

    def labels(self, recipe: Recipe) -> Any:
        """The labels that a recipe is given: targets, `y`, or None for its own prediction."""
        if recipe.targeted:
            return self.target
        return self.y if recipe.labels == "given" else None

    def batches(self) -> Iterator[BatchAttacks]:
        """The same for each `batch_size` examples."""
        for part in self._parts():
            yield dataclasses.replace(
                self, x=_rows(self.x, part), y=self.y[part], target=_rows(self.target, part)
            )

    def first_batch(self) -> BatchAttacks:
        """The same for the first `batch_size` examples."""
        return next(self.batches())

    def check(self, recipe: Recipe) -> None:
        """Refuses what `torchfgsm.attack` refuses, without a call of the model."""
        with torch.inference_mode(False):
            prepared(self.model, self.x, self.labels(recipe), recipe=recipe, loss_fn=self.loss_fn)

    def clean(self) -> Attacked:
        """How the model fares on the clean batch; settles what the model's output is."""
        return self._scored([self.x], perturbations={}, validate=True)

    def run(self, recipe: Recipe) -> Attacked:
        """The perturbation that a recipe makes.

        Raises:
            ValueError: As `torchfgsm.attack`.
        """
        if recipe not in self.found:
            self.found[recipe] = self._run(recipe)
            self.report(len(self.found))
        return self.found[recipe]

    def curve(self, recipe: Recipe, lengths: tuple[float, ...]) -> tuple[tuple[float, float], ...]:
        """(length, accuracy) pairs; none for a recipe that lengths cannot scale."""
        try:
            recipes = [at_length(recipe, length) for length in lengths]
        except ValueError:
            return ()
        points = []
        for length, scaled in zip(lengths, recipes, strict=True):
            known = scaled in self.found
            attacked = self.run(scaled)
            points.append((length, attacked.accuracy))
            if not known:  # its perturbation is no longer needed
                self.found[scaled] = dataclasses.replace(attacked, perturbations={})
        return tuple(points)

    def view(self, recipe: Recipe, model: Any = None) -> Any:
        """The model as a recipe sees it in its own library's world.

        With a softmax where a recipe takes probabilities, and without the one that a converted
        model kept where it takes logits. A head that was cut off is put back by the attack itself.

        Args:
            recipe: The recipe.
            model: A copy in the model's place.
        """
        model = self.model if model is None else model
        if self.loss_fn is not None:
            return model
        form = form_of(model)
        if recipe.model_output == "probabilities" and self.model_output == "logits":
            return WithProbabilities(model, form or OutputForm())
        if recipe.model_output == "logits" and form and form.head and form.values != "logits":
            return getattr(model, "without_head", lambda: model)()
        return model

    def _run(self, recipe: Recipe) -> Attacked:
        model, labels = self.view(recipe), self.labels(recipe)
        generator = torch.Generator(self.features.tensors[0].device).manual_seed(self.seed)
        adversarial = []
        with undisturbed(self.model, self.features, self.seed), torch.no_grad(), unsaid():
            for part in self._parts():
                # The clean pass has looked at labels and values.
                adversarial.append(
                    attack(
                        model,
                        _rows(self.x, part),
                        _rows(labels, part),
                        recipe=recipe,
                        loss_fn=self.loss_fn,
                        generator=generator,
                        validate=False,
                    )
                )
        moved = [Features.take_apart(batch).tensors for batch in adversarial]
        perturbations = {
            feature_name(name): as_array(torch.cat(parts) - tensor.detach())
            for name, tensor, *parts in zip(
                self.features.names, self.features.tensors, *moved, strict=True
            )
        }
        return self._scored(adversarial, perturbations)

    def _parts(self) -> Iterator[slice]:
        count, size = len(self.y), self.batch_size
        if size is None or size >= count:
            yield _WHOLE
            return
        for begin in range(0, count, size):
            yield slice(begin, begin + size)

    def _scored(
        self, batches: list[Any], perturbations: Mapping[str, Array], validate: bool = False
    ) -> Attacked:
        """Loss and accuracy, in eval mode."""
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            undisturbed(self.model, self.features, self.seed),
            attack_mode(self.model, "eval", one_attack=False),
        ):
            parts = list(self._parts())
            if len(batches) != len(parts):
                batches = [_rows(batches[0], part) for part in parts]
            outputs = [call_model(self.model, batch) for batch in batches]
            if validate or self.model_output is None:
                # What a loss of the caller's own takes is nobody else's business.
                said = self.model_output if self.loss_fn is None else None
                gives, self.refuted = kind_of_output(outputs, self.form, said)
                if self.loss_fn is None or self.model_output is None:
                    self.model_output = gives
            loss = TrainingLoss(self.loss_fn, self.model_output, None, validate, self.form)
            total = 0.0
            for output, part in zip(outputs, parts, strict=True):
                y = self.y[part]
                elements = loss.elements(output, y).double()
                total += float(elements.mean()) * len(y)
            classes, accuracy = self._classes(outputs, parts)
        return Attacked(perturbations, classes, total / len(self.y), accuracy)

    def _classes(self, outputs: list[Any], parts: list[slice]) -> tuple[Array, float]:
        """Predicted classes and accuracy; none where a loss of the caller's takes other things."""
        form, probabilities = self.form, self.model_output == "probabilities"
        try:
            found = [predictions(o, probabilities=probabilities, form=form) for o in outputs]
            true = [true_classes(self.y[p], o, form) for p, o in zip(parts, outputs, strict=True)]
        except (AttributeError, TypeError, ValueError, IndexError):
            if self.loss_fn is None:
                raise
            return np.zeros(0, np.int64), math.nan
        right = torch.cat(found) == torch.cat(true)
        return as_array(torch.cat(found)), float(right.double().mean())


@contextlib.contextmanager
def undisturbed(model: Any, features: Features, seed: int) -> Iterator[None]:
    """Runs a block with random numbers of its own; puts back their state and moved statistics."""
    devices = {t.device for t in features.tensors if t.device.type == "cuda"}
    with (
        torch.random.fork_rng(devices=sorted(devices, key=str)),
        attack_mode(model, "keep", one_attack=False),
    ):
        torch.manual_seed(seed)
        yield


def feature_name(name: Any) -> str:
    """A feature's name in results: "x" for a lone tensor."""
    return "x" if name == "" else str(name)


def as_array(tensor: Tensor) -> Array:
    """A tensor as an array on the CPU; bfloat16, which numpy lacks, as float32."""
    tensor = tensor.detach().cpu()
    found: Array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return found


def _rows(values: Any, part: slice) -> Any:
    """The same examples of a tensor, or of every tensor of a structure."""
    if part == _WHOLE:
        return values
    if isinstance(values, Tensor):
        return values[part]
    if isinstance(values, (Mapping, list, tuple)):
        taken = {name: _rows(entry, part) for name, entry in items(values).items()}
        return taken if isinstance(values, Mapping) else list(taken.values())
    return values
