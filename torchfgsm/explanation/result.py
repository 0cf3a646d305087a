"""What an explanation holds: plain data, from which text, pages and JSON are made."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from torchfgsm.libraries.configuration import Configuration

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Measures:
    """How far one perturbation is from a reference on the same batch.

    Attributes:
        sign_flips: Share of the entries whose sign differs (0 counts as a sign), in [0, 1].
        relative_l2: L2 norm of the difference over that of the reference, of the whole batch;
            0 where both are 0, inf where the reference alone is 0.
        cosine: Cosine between the two, of the whole batch; NaN where one is 0.
        examples: Number of examples in which an entry differs by more than rounding: by over 1e-3
            of the largest entry of the example.
        loss: Mean loss on these adversarial examples, less that on the reference's, in nats.
        accuracy: Accuracy on these adversarial examples, less that on the reference's.
    """

    sign_flips: float
    relative_l2: float
    cosine: float
    examples: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class FieldEffect:
    """One field on which two recipes differ, changed alone.

    Attributes:
        name: The field of `Recipe`.
        values: a's value and b's.
        sentences: What it does in a's library and in b's, one sentence each.
        sources: The originals' function that decides it, a's and b's, and the paper if any.
        from_a: a's perturbation with b's value of this field alone, measured against a's; None
            where that cannot be run.
        from_b: b's perturbation with a's value, measured against b's; None likewise.
        reason: Why one of them cannot be run; else "".
    """

    name: str
    values: tuple[Any, Any]
    sentences: tuple[str, str]
    sources: tuple[str, str]
    from_a: Measures | None
    from_b: Measures | None
    reason: str = ""


@dataclass(frozen=True)
class PathStep:
    """One step of the way from a to b, one field (or fields that only go together) at a time.

    Attributes:
        names: The fields that change in this step.
        values: Their old and new values.
        change: The new perturbation measured against the one before this step.
        left: The new perturbation measured against b's.
    """

    names: tuple[str, ...]
    values: tuple[tuple[Any, Any], ...]
    change: Measures
    left: Measures


@dataclass(frozen=True)
class Trap:
    """Something about the model or the batch that silently changes results.

    Attributes:
        name: Short name, such as "saturated probabilities".
        severity: "error": results mean something else than intended; "warning": some examples are
            affected; "note": worth knowing.
        count: Number of examples (or entries, or modules) that are affected; None: not countable.
        of: Out of how many.
        message: What was found, what it does, and how to mend it, in one or two sentences.
        side: "a", "b" or "both": whose attack it concerns.
    """

    name: str
    severity: Literal["error", "warning", "note"]
    count: int | None
    of: int | None
    message: str
    side: Literal["a", "b", "both"] = "both"


@dataclass(frozen=True)
class TrainingEffect:
    """One choice of the training loss, changed alone from a's to b's and back.

    Attributes:
        name: The choice: "weighting", "label_smoothing", "through_perturbation", ...
        values: a's value and b's.
        sentences: What it does in each library.
        loss_from_a: Training loss with b's choice alone, less a's loss.
        gradient_from_a: Relative L2 difference of the parameter gradient likewise.
        scaled_from_a: The same after the best common factor (what a learning rate can undo).
        loss_from_b: Training loss with a's choice alone, less b's loss.
        gradient_from_b: Likewise from b.
        scaled_from_b: Likewise from b.
    """

    name: str
    values: tuple[Any, Any]
    sentences: tuple[str, str]
    loss_from_a: float
    gradient_from_a: float
    scaled_from_a: float
    loss_from_b: float
    gradient_from_b: float
    scaled_from_b: float


@dataclass(frozen=True)
class TrainingExplanation:
    """The difference of two training losses on one batch.

    Attributes:
        losses: The training loss of a and of b.
        gradient: Relative L2 difference of b's parameter gradient from a's.
        scaled: The same after the best common factor.
        effects: Each choice alone.
        remainder: Share of the change of the gradient that belongs to no single choice.
    """

    losses: tuple[float, float]
    gradient: float
    scaled: float
    effects: tuple[TrainingEffect, ...]
    remainder: float


@dataclass(frozen=True)
class Side:
    """What one configuration does to the batch.

    Attributes:
        configuration: The configuration.
        perturbations: Perturbation of each feature, by name ("x" for a single tensor).
        predictions: Predicted class of each adversarial example; empty where there are no classes.
        loss: Mean loss on the adversarial examples.
        accuracy: Accuracy on them.
        curve: (step, accuracy) pairs: accuracy with other lengths of the step.
    """

    configuration: Configuration
    perturbations: Mapping[str, Array]
    predictions: Array
    loss: float
    accuracy: float
    curve: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Settings:
    """What makes one side like the other: what `torchfgsm.translate` says.

    Attributes:
        side: The side that gives way, "a" or "b".
        code: Its call of the original library; "" where it cannot be done.
        outside: What must be done outside of that call.
        conditions: What must hold besides for the two to be equal.
        reason: Why no configuration does it; else "".
    """

    side: Literal["a", "b"]
    code: str = ""
    outside: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Explanation:
    """Why two configurations give different perturbations, on one model and batch.

    Attributes:
        a: One side.
        b: The other.
        inputs: The clean features, by name.
        labels: The labels that were given.
        clean_predictions: Predicted class of each clean example.
        clean_loss: Mean loss on the clean examples.
        clean_accuracy: Accuracy on them.
        total: b's perturbation measured against a's.
        effects: Each differing field alone.
        path: The way from a to b.
        remainder: L2 norm of (b's perturbation - a's - the sum of the single effects from a), over
            that of (b's - a's): what belongs to no single field. 0: the effects add up.
        traps: What was found in the model and batch.
        training: The same for the training loss; None where a side has none.
        equal: How to make them equal, from either side; empty for recipes of no library.
        facts: Versions, device, seed, number of examples.
    """

    a: Side
    b: Side
    inputs: Mapping[str, Array]
    labels: Array
    clean_predictions: Array
    clean_loss: float
    clean_accuracy: float
    total: Measures
    effects: tuple[FieldEffect, ...]
    path: tuple[PathStep, ...]
    remainder: float
    traps: tuple[Trap, ...]
    training: TrainingExplanation | None = None
    equal: tuple[Settings, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def differs(self) -> bool:
        """Whether any entry of the two perturbations differs."""
        return any(
            not np.array_equal(perturbation, self.b.perturbations[name], equal_nan=True)
            for name, perturbation in self.a.perturbations.items()
        )

    def to_text(self) -> str:
        """The report for terminals, the verdict first."""
        from torchfgsm.explanation.report.text import to_text

        return to_text(self)

    def to_markdown(self) -> str:
        """The report as Markdown."""
        from torchfgsm.explanation.report.document import to_markdown

        return to_markdown(self)

    def to_dict(self) -> dict[str, Any]:
        """The explanation as JSON values; of arrays their shapes."""
        from torchfgsm.explanation.report.document import to_dict

        return to_dict(self)

    def to_html(self) -> str:
        """The report as one HTML page that needs nothing else.

        Raises:
            ImportError: Jinja2 or matplotlib is missing.
        """
        from torchfgsm.explanation.report.page import to_html

        return to_html(self)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Writes the report, whole or not at all.

        Args:
            path: A file with the suffix .html, .md, .json or .txt, which says what is written.
            overwrite: Replace a file that is there.

        Raises:
            ValueError: Another suffix, a file that is there, or a folder that is not.
            ImportError: Jinja2 or matplotlib is missing, for .html.
            OSError: The system refuses.
        """
        from torchfgsm.explanation.report.saving import save

        save(self, path, overwrite=overwrite)

    def __repr__(self) -> str:
        # Not the fields: their arrays would fill pages.
        sides = f"{self.a.configuration.title} against {self.b.configuration.title}"
        return f"<Explanation: {sides}, {len(self.labels)} examples>"

    def __str__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str | None:
        """What a notebook shows; without Jinja2 and matplotlib it shows the Markdown."""
        from torchfgsm.explanation.report.page import to_fragment

        try:
            return to_fragment(self)
        except ImportError:
            return None

    def _repr_markdown_(self) -> str:
        return self.to_markdown()
