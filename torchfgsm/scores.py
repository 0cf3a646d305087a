"""Counts of right predictions and sums of losses, batch by batch and over processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchfgsm import shards
from torchfgsm.labels import is_single_logit, predicted_labels


def classes_of(output: Tensor) -> int:
    """How many classes an output tells apart."""
    return 2 if is_single_logit(output) else output.shape[1]


def predictions(output: Tensor, *, probabilities: bool) -> Tensor:
    """The predicted class numbers, (N,) or (N, ...)."""
    found = predicted_labels(output, probabilities=probabilities)
    return found.flatten().long() if is_single_logit(output) else found


def true_classes(y: Any, output: Tensor) -> Tensor:
    """Labels as class numbers in the shape of the predictions.

    Args:
        y: Class numbers (N, ...), or rows in the output's shape, whose largest entry counts; of a
            binary model 0 or 1 or probabilities, (N,) or (N, 1).
        output: The model's output.

    Raises:
        TypeError: Not a tensor.
        ValueError: Another shape.
    """
    if not isinstance(y, Tensor):
        raise TypeError(f"labels must be a tensor, got {type(y).__name__}; use torch.as_tensor")
    if is_single_logit(output):
        if y.shape in (output.shape[:1], (*output.shape[:1], 1)):
            return (y > 0.5).long().flatten() if y.is_floating_point() else y.long().flatten()
    elif y.is_floating_point() and y.shape == output.shape:
        return y.argmax(dim=1)
    elif not y.is_floating_point() and y.shape == (*output.shape[:1], *output.shape[2:]):
        return y.long()
    raise ValueError(
        f"accuracy needs integer labels of shape {(*output.shape[:1], *output.shape[2:])} or float "
        f"rows of shape {tuple(output.shape)}, got {tuple(y.shape)} of {y.dtype}"
    )


class Scores:
    """Counts over one set of labels, for several versions of the input.

    Attributes:
        examples: How many examples there were.
        counts: Labels of each class, (classes,).
        right: Those predicted rightly, (versions, classes).
        losses: Sum and number of the losses, (versions, 2).
    """

    def __init__(self, versions: int) -> None:
        """Takes how many versions of the input there are."""
        self.examples = 0
        self.counts = torch.zeros(0, dtype=torch.float64)
        self.right = torch.zeros(versions, 0, dtype=torch.float64)
        self.losses = torch.zeros(versions, 2, dtype=torch.float64)

    def add_labels(self, labels: Tensor, classes: int, examples: int) -> None:
        """Counts the labels of a batch.

        Raises:
            ValueError: A label that is no class; another number of classes than before.
        """
        if len(self.counts) not in (0, classes):
            raise ValueError(f"the model had {len(self.counts)} classes and now has {classes}")
        self._make_room(classes)
        self.examples += examples
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

    def add_loss(self, version: int, losses: Tensor, examples: int) -> None:
        """Adds losses, or a scalar that is the mean over some examples."""
        values = losses.detach().cpu().double()
        number = values.numel() if values.dim() else examples
        total = values.sum() if values.dim() else values * examples
        self.losses[version] += torch.stack([total, torch.tensor(float(number)).double()])

    def over_all_processes(self) -> None:
        """Makes the counts those of the whole set."""
        self._make_room(shards.largest(len(self.counts)))
        parts = [torch.tensor([float(self.examples)]).double(), self.counts, self.right.flatten()]
        packed = shards.summed(torch.cat([*parts, self.losses.flatten()]))
        sizes = [1, len(self.counts), self.right.numel(), self.losses.numel()]
        examples, self.counts, right, losses = torch.split(packed, sizes)
        self.examples = int(examples)
        self.right, self.losses = right.view_as(self.right), losses.view_as(self.losses)

    def accuracy(self, version: int) -> float:
        """Part of all labels that is predicted rightly."""
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
