"""Counts of right predictions and sums of losses, batch by batch and over processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchfgsm.evaluation import shards
from torchfgsm.losses.labels import class_numbers, predicted_labels
from torchfgsm.losses.output_form import OutputForm, class_dim, is_binary, is_single_logit


def classes_of(output: Tensor, form: OutputForm | None = None) -> int:
    """How many classes an output tells apart."""
    return 2 if is_binary(output, form) else output.shape[class_dim(output, form)]


def predictions(output: Tensor, *, probabilities: bool, form: OutputForm | None = None) -> Tensor:
    """The predicted class numbers: (N,) or (N, ...), the output's shape without the classes.

    Where each number is a yes or no of its own, 0 or 1 in the output's shape; (N,) of one number.
    """
    found = predicted_labels(output, probabilities=probabilities, form=form)
    return found.reshape(_shape(output, form)).long()


def true_classes(y: Any, output: Tensor, form: OutputForm | None = None) -> Tensor:
    """Labels as class numbers in the shape of the predictions.

    Args:
        y: Class numbers (N, ...), or rows in the output's shape, whose largest entry counts; of a
            binary model 0 or 1 or probabilities, (N,) or (N, 1).
        output: The model's output.
        form: What the model states of it.

    Raises:
        TypeError: Not a tensor.
        ValueError: Another shape.
    """
    return class_numbers(y, output, form).reshape(_shape(output, form))


def _shape(output: Tensor, form: OutputForm | None) -> tuple[int, ...]:
    if is_binary(output, form):
        return tuple(output.shape[:1] if is_single_logit(output) else output.shape)
    dim = class_dim(output, form)
    return (*output.shape[:dim], *output.shape[dim + 1 :])


class Scores:
    """Counts over one set of labels, for several versions of the input.

    Attributes:
        examples: How many examples there were.
        counts: Labels of each class, (classes,).
        right: Those predicted rightly, (versions, classes).
        losses: Sum and number of the losses, (versions, 2).
        no_classes: Why labels of a batch are no classes, so that nothing is predicted.
    """

    def __init__(self, versions: int) -> None:
        """Takes how many versions of the input there are."""
        self.examples = 0
        self.counts = torch.zeros(0, dtype=torch.float64)
        self.right = torch.zeros(versions, 0, dtype=torch.float64)
        self.losses = torch.zeros(versions, 2, dtype=torch.float64)
        self.no_classes: str | None = None

    def add_examples(self, count: int) -> None:
        """Counts the examples of a batch."""
        self.examples += count

    def add_labels(self, labels: Tensor, classes: int) -> None:
        """Counts the labels of a batch.

        Raises:
            ValueError: A label that is no class; another number of classes than before.
        """
        if len(self.counts) not in (0, classes):
            raise ValueError(f"the model had {len(self.counts)} classes and now has {classes}")
        self._make_room(classes)
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise ValueError(
                f"labels run from {int(labels.min())} to {int(labels.max())}, the model has "
                f"{classes} classes; ignore_index= names a label that does not count"
            )
        self.counts += torch.bincount(labels.flatten(), minlength=classes).cpu()

    def add(self, version: int, predicted: Tensor, labels: Tensor) -> None:
        """Counts the predictions for the labels of a batch."""
        hits = labels[predicted == labels].flatten()
        self.right[version] += torch.bincount(hits, minlength=len(self.counts)).cpu()

    def add_loss(
        self, version: int, losses: Tensor, examples: int, counting: Tensor | None = None
    ) -> None:
        """Adds losses, or a scalar that is the mean over some examples.

        Args:
            version: Of the input.
            losses: The losses.
            examples: How many there were.
            counting: Where losses count, in their shape, or what a scalar was averaged over.
        """
        values = losses.detach().cpu().double()
        kept = None if counting is None else counting.cpu()
        if not values.dim():
            number = float(examples if kept is None else kept.sum())
            # Nothing counts: torch's mean over nothing is NaN.
            total = values * number if number else values.new_zeros(())
        else:
            values = values if kept is None else values[kept]
            number, total = float(values.numel()), values.sum()
        self.losses[version] += torch.stack([total, torch.tensor(number).double()])

    def over_all_processes(self) -> None:
        """Makes the counts those of the whole set."""
        self._make_room(shards.largest(len(self.counts)))
        parts = [torch.tensor([float(self.examples)]).double(), self.counts, self.right.flatten()]
        packed = shards.summed(torch.cat([*parts, self.losses.flatten()]))
        sizes = [1, len(self.counts), self.right.numel(), self.losses.numel()]
        examples, self.counts, right, losses = torch.split(packed, sizes)
        self.examples = int(examples)
        self.right, self.losses = right.view_as(self.right), losses.view_as(self.losses)
        if shards.largest(int(self.no_classes is not None)) and self.no_classes is None:
            self.no_classes = "labels of another process are no classes"

    def accuracy(self, version: int) -> float | None:
        """Part of all labels that is predicted rightly; None where labels are no classes."""
        if self.no_classes is not None:
            return None
        return float(self.right[version].sum() / self.counts.sum())

    def class_accuracy(self, version: int, label: int) -> float | None:
        """The same of one class, None where there is no such label."""
        count = self.counts[label]
        return float(self.right[version, label] / count) if count else None

    def loss(self, version: int) -> float:
        """The mean loss."""
        return float(self.losses[version, 0] / self.losses[version, 1])

    def _make_room(self, classes: int) -> None:
        missing = classes - len(self.counts)
        self.counts = torch.nn.functional.pad(self.counts, (0, missing))
        self.right = torch.nn.functional.pad(self.right, (0, missing))
