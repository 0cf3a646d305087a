"""Runs a model on clean and on attacked batches, and counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from torchfgsm.core.attacks import attack
from torchfgsm.core.checks import refuse_other_dtype
from torchfgsm.core.gradient import leaf
from torchfgsm.core.model_gradient import LossFn, output_tensor
from torchfgsm.core.recipe import Recipe
from torchfgsm.evaluation.scores import Scores, classes_of, predictions, true_classes
from torchfgsm.losses.labels import no_classes
from torchfgsm.losses.output_form import gives_probabilities
from torchfgsm.models.calling import call_model, detached, mapped
from torchfgsm.models.features import Features, normal
from torchfgsm.models.modes import watched
from torchfgsm.training.loss import TrainingLoss

CLEAN, ADVERSARIAL, CURVE = 0, 1, 2
"""Versions of the input by number: clean, attacked, and the first length of a curve."""


@dataclass
class Attacks:
    """The attacks on each batch."""

    model: Any
    recipes: Sequence[Recipe]
    loss_fn: LossFn | None
    pass_y: bool
    target: Callable[[Tensor], Tensor] | None
    arguments: Mapping[str, Any]

    def run(self, number: int, x: Any, y: Any) -> Any:
        """The examples of a batch, attacked by one of the recipes."""
        labels = y if self.pass_y else None
        if self.target is not None:
            labels = self.target(y)
        # The mode is set for all batches, and a model that draws numbers draws new ones after the
        # attack: its defence would be known to an attack that puts the random state back.
        recipe = replace(self.recipes[number], model_mode="keep_and_update")
        return attack(self.model, x, labels, recipe=recipe, loss_fn=self.loss_fn, **self.arguments)


@dataclass
class Scoring:
    """Runs the model on clean and attacked batches, and counts."""

    attacks: Attacks
    loss: TrainingLoss
    scores: Scores
    probabilities: bool | None = None
    """Whether the model gives probabilities; None before the first batch."""

    def add(self, x: Any, y: Any, rows: Tensor | None, count: int) -> None:
        """Adds a batch, of whose `count` examples only `rows` count where there are such."""
        output = self._first_output(x) if self.probabilities is None else self._output(x)
        labels = _Labels.of(y, output, rows, count, self.loss)
        if labels is not None:
            self.scores.add_examples(labels.examples)
            if labels.no_classes is None:
                self.scores.add_labels(labels.counting, classes_of(output, self.loss.form))
            else:
                self.scores.no_classes = labels.no_classes
            self._score(CLEAN, output, labels)
        # A batch of repetitions alone runs too: a model in shards waits for every process.
        for number in range(len(self.attacks.recipes)):
            output = self._output(self.attacks.run(number, x, y))
            if labels is not None:
                self._score(ADVERSARIAL + number, output, labels)

    def _first_output(self, x: Any) -> Any:
        """The output, and what autograd's graph says of it."""
        features = Features.take_apart(normal(x))
        for name, tensor in zip(features.names, features.tensors, strict=True):
            called = f"feature {name!r}" if name != "" else "x"
            refuse_other_dtype(self.attacks.model, called, tensor)
        with torch.enable_grad():
            output = self._output(features.put_together([leaf(t) for t in features.tensors]))
            declared = self.loss.model_output == "probabilities"
            self.probabilities = isinstance(output, Tensor) and gives_probabilities(
                output, self.loss.form, declared=declared
            )
        return detached(output)

    def _output(self, x: Any) -> Any:
        with watched(self.attacks.model):
            output = call_model(self.attacks.model, x)
        return output if self.loss.loss_fn is not None else output_tensor(output)

    def _score(self, version: int, output: Any, labels: _Labels) -> None:
        output, form = _rows(output, labels.rows), self.loss.form
        elements = self.loss.elements(output, labels.y)
        counting = self.loss.counting(output, labels.y, elements)
        self.scores.add_loss(version, elements, labels.examples, counting)
        if labels.no_classes is None:
            predicted = predictions(output, probabilities=bool(self.probabilities), form=form)
            self.scores.add(version, labels.only_counting(predicted), labels.counting)


@dataclass
class _Labels:
    """The labels of a batch: as the loss takes them, and the class numbers that count."""

    y: Any
    rows: Tensor | None
    examples: int
    counting: Tensor
    mask: Tensor | None
    no_classes: str | None

    @classmethod
    def of(
        cls, y: Any, output: Any, rows: Tensor | None, count: int, loss: TrainingLoss
    ) -> _Labels | None:
        """None where no example of the batch counts."""
        examples = count if rows is None else len(rows)
        if not examples:
            return None
        y, output = _rows(y, rows), _rows(output, rows)
        reason = _no_classes(y, output, loss)
        if reason is not None:
            return cls(y, rows, examples, torch.zeros(0), None, reason)
        classes = true_classes(y, output, loss.form)
        mask = None if loss.ignore_index is None else classes != loss.ignore_index
        return cls(y, rows, examples, classes if mask is None else classes[mask], mask, None)

    def only_counting(self, predicted: Tensor) -> Tensor:
        return predicted if self.mask is None else predicted[self.mask]


def _no_classes(y: Any, output: Any, loss: TrainingLoss) -> str | None:
    """Why the labels that a loss of the caller's own takes are no classes; None where they are."""
    if loss.loss_fn is None:
        return None  # the default loss refuses what is none
    if not isinstance(output, Tensor):
        return f"the model's output is {type(output).__name__}, whose classes only loss_fn knows"
    if output.dim() > 2 and loss.form is None and output.shape[1] == 1:
        return "an output of one class in dim 1 predicts nothing"
    try:
        true_classes(y, output, loss.form)
    except (TypeError, ValueError) as error:
        return str(error)
    return no_classes(y, output, loss.form)


def _rows(values: Any, rows: Tensor | None) -> Any:
    """The same examples of a tensor, or of every tensor of a structure, in its own types."""
    if rows is None:
        return values
    return mapped(values, lambda tensor: tensor[rows.to(tensor.device)])
