"""What an evaluation under attack found."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from torchfgsm.core.recipe import Recipe


@dataclass(frozen=True)
class ClassScore:
    """One class.

    Attributes:
        label: Its number.
        count: Labels of this class.
        clean_accuracy: Part of them that is predicted on the clean input; None without labels.
        adversarial_accuracy: The same on the adversarial input.
    """

    label: int
    count: int
    clean_accuracy: float | None
    adversarial_accuracy: float | None


@dataclass(frozen=True)
class CurvePoint:
    """The attack at another length.

    Attributes:
        epsilon: The length in the input's units: of the ball, or else of the step.
        accuracy: Accuracy on the adversarial input; None where labels are no classes.
        loss: Mean loss there.
    """

    epsilon: float
    accuracy: float | None
    loss: float


@dataclass(frozen=True)
class RobustReport:
    """Accuracy and loss on clean and on adversarial input.

    Attributes:
        recipe: The attack.
        examples: How many examples were evaluated, each once.
        labels: How many labels were scored: the examples, or all positions of dense outputs.
        clean_accuracy: Part of the labels that is predicted; None where labels are no classes.
        adversarial_accuracy: The same on the adversarial input.
        clean_loss: Mean loss.
        adversarial_loss: Mean loss on the adversarial input.
        classes: One row for each class.
        curve: One point for each of the `epsilons`, in their order.
        no_accuracy: Why there is none: what the labels are instead of classes.
    """

    recipe: Recipe
    examples: int
    labels: int
    clean_accuracy: float | None
    adversarial_accuracy: float | None
    clean_loss: float
    adversarial_loss: float
    classes: tuple[ClassScore, ...]
    curve: tuple[CurvePoint, ...] = ()
    no_accuracy: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        found = dataclasses.asdict(self)
        return {name: list(v) if isinstance(v, tuple) else v for name, v in found.items()}

    def to_text(self) -> str:
        """The report as tables for people."""
        counted = f"{self.examples} examples"
        if self.labels != self.examples and self.no_accuracy is None:
            counted += f", {self.labels} labels"
        clean, adversarial = _percent(self.clean_accuracy), _percent(self.adversarial_accuracy)
        lines = [
            counted,
            f"{'':12}  accuracy      loss",
            f"{'clean':12}  {clean:>8}  {self.clean_loss:8.4g}",
            f"{'adversarial':12}  {adversarial:>8}  {self.adversarial_loss:8.4g}",
            "",
        ]
        if self.no_accuracy is not None:
            lines.append(f"no accuracy: {self.no_accuracy}")
        else:
            lines.append(f"{'class':>6}  {'count':>8}     clean  adversarial")
        for row in self.classes:
            clean, adversarial = _percent(row.clean_accuracy), _percent(row.adversarial_accuracy)
            lines.append(f"{row.label:6}  {row.count:8}  {clean:>8}  {adversarial:>11}")
        if self.curve:
            lines += ["", f"{'epsilon':>10}  accuracy      loss"]
            lines += [
                f"{p.epsilon:10.4g}  {_percent(p.accuracy):>8}  {p.loss:8.4g}" for p in self.curve
            ]
        return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"
