"""The parts of a report on single choices: each alone, one after the other, and in training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torchfgsm.explanation.report.formatting import (
    Note,
    Section,
    Table,
    bar,
    number,
    share,
    shown,
    signed,
    signed_share,
)
from torchfgsm.explanation.report.verdict import distance_left, names
from torchfgsm.explanation.result import (
    Explanation,
    FieldEffect,
    Measures,
    PathStep,
    TrainingEffect,
)

_MEASURES = ("L2 away", "signs flipped", "cosine", "examples", "loss", "accuracy")


def differences(explanation: Explanation) -> Section:
    """Each field changed alone, of those that have an effect."""
    title = "Which choice makes the difference"
    if not explanation.effects:
        return Section("differences", title, ("The two recipes are the same in every field.",))
    active = [effect for effect in explanation.effects if not _is_idle(effect)]
    idle = _listed(effect.name for effect in explanation.effects if _is_idle(effect))
    paragraphs = (f"Without any effect on this model and batch: {idle}.",) if idle else ()
    table = _single_effects(explanation, active) if active else None
    notes = tuple(_note(explanation, effect) for effect in active)
    return Section("differences", title, paragraphs, table, notes=notes)


def without_effect(explanation: Explanation) -> Section | None:
    """What the other choices do, where they do something."""
    idle = [effect for effect in explanation.effects if _is_idle(effect)]
    if not idle:
        return None
    notes = tuple(_note(explanation, effect) for effect in idle)
    return Section("idle", "Choices without an effect here", notes=notes)


def _is_idle(effect: FieldEffect) -> bool:
    return all(m is not None and _moves_nothing(m) for m in (effect.from_a, effect.from_b))


def _moves_nothing(found: Measures) -> bool:
    return found.relative_l2 == 0 and found.sign_flips == 0


def _single_effects(explanation: Explanation, effects: Sequence[FieldEffect]) -> Table:
    a, b = names(explanation)
    rows, lengths, flips = [], [], []
    for effect in effects:
        for change, found in zip(
            _changes(effect.values), (effect.from_a, effect.from_b), strict=True
        ):
            cells = _cells(found) if found else ("cannot be run alone",) + ("",) * 5
            rows.append((effect.name, change, *cells))
            lengths.append(bar(found.relative_l2) if found else None)
            flips.append(bar(found.sign_flips) if found else None)
    return Table(
        f"Each field changed alone, from {a} (a) and from {b} (b), measured against that side's "
        "own perturbation. Loss in nats; pp are percentage points.",
        ("choice", "changed alone", *_MEASURES),
        tuple(rows),
        numeric=tuple(range(2, 8)),
        bars={2: tuple(lengths), 3: tuple(flips)},
        full="1 and above, and at 100%",
    )


def _changes(values: tuple[Any, Any]) -> tuple[str, str]:
    """What is changed on a and on b."""
    of_a, of_b = map(shown, values)
    return f"a: {of_a} to {of_b}", f"b: {of_b} to {of_a}"


def _cells(found: Measures) -> tuple[str, ...]:
    return (
        number(found.relative_l2),
        share(found.sign_flips),
        number(found.cosine),
        str(found.examples),
        signed(found.loss),
        signed_share(found.accuracy),
    )


def _note(explanation: Explanation, effect: FieldEffect) -> Note:
    values = " against ".join(map(shown, effect.values))
    lines = []
    sides = zip(names(explanation), effect.sentences, effect.sources, strict=True)
    for name, sentence, source in sides:
        lines.append(f"{name}: {sentence}" + (f" ({source})" if source else ""))
    if effect.reason:
        lines.append(f"Not run alone: {effect.reason}")
    return Note(f"{effect.name}: {values}", tuple(lines))


def way(explanation: Explanation) -> Section | None:
    """The path from a to b, of the steps that move anything."""
    if not explanation.path:
        return None
    steps = [step for step in explanation.path if not _moves_nothing(step.change)]
    still = [step for step in explanation.path if _moves_nothing(step.change)]
    idle = _listed(name for step in still for name in step.names)
    paragraphs = [
        "The effects of the single choices on a add up to the whole difference, but for "
        f"{number(explanation.remainder)} of its L2 norm, which belongs to no single choice."
    ]
    if idle:
        paragraphs.append(f"Left out, since they move nothing on the way: {idle}.")
    return Section(
        "path", "The way from a to b", tuple(paragraphs), _steps(distance_left(explanation), steps)
    )


def _steps(left: float, steps: Sequence[PathStep]) -> Table:
    rows = [("a as it is", "", "", number(left), "", "")]
    lengths: list[float | None] = [bar(left)]
    for step in steps:
        changed = ", ".join(
            f"{name}: {shown(old)} to {shown(new)}"
            for name, (old, new) in zip(step.names, step.values, strict=True)
        )
        change, rest = step.change, step.left
        cells = (number(change.relative_l2), share(change.sign_flips), number(rest.relative_l2))
        rows.append((changed, *cells, share(rest.sign_flips), str(rest.examples)))
        lengths.append(bar(rest.relative_l2))
    return Table(
        "One choice after the other is changed from a's to b's: how far each step moves the "
        "perturbation, and how far it is from b's then.",
        ("change", "moved in L2", "signs moved", "L2 left to b", "signs left", "examples left"),
        tuple(rows),
        numeric=(1, 2, 3, 4, 5),
        bars={3: tuple(lengths)},
    )


def training(explanation: Explanation) -> Section | None:
    """The same for the training loss, of the choices that have an effect."""
    found = explanation.training
    if found is None:
        return None
    active = [effect for effect in found.effects if not _trains_alike(effect)]
    idle = _listed(effect.name for effect in found.effects if _trains_alike(effect))
    paragraphs = [
        f"The training loss is {number(found.losses[0])} for a and {number(found.losses[1])} for "
        f"b. b's parameter gradient is {number(found.gradient)} away from a's in relative L2, "
        f"{number(found.scaled)} after the best common factor, which a learning rate can undo; "
        f"{number(found.remainder)} of the change belongs to no single choice."
    ]
    if idle:
        paragraphs.append(f"Without any effect on loss and gradient here: {idle}.")
    # Fields of the recipe are said above.
    told = {effect.name for effect in explanation.effects}
    a, b = names(explanation)
    notes = tuple(
        Note(effect.name, (f"{a}: {effect.sentences[0]}", f"{b}: {effect.sentences[1]}"))
        for effect in active
        if effect.name not in told
    )
    table = _training_effects(active) if active else None
    return Section("training", "The same in training", tuple(paragraphs), table, notes=notes)


def _trains_alike(effect: TrainingEffect) -> bool:
    changes = (
        effect.loss_from_a, effect.gradient_from_a, effect.loss_from_b, effect.gradient_from_b,
    )  # fmt: skip
    return all(change == 0 for change in changes)


def _training_effects(effects: Sequence[TrainingEffect]) -> Table:
    rows, lengths = [], []
    for effect in effects:
        from_a = (effect.loss_from_a, effect.gradient_from_a, effect.scaled_from_a)
        from_b = (effect.loss_from_b, effect.gradient_from_b, effect.scaled_from_b)
        for change, numbers in zip(_changes(effect.values), (from_a, from_b), strict=True):
            loss, gradient, scaled = numbers
            rows.append((effect.name, change, signed(loss), number(gradient), number(scaled)))
            lengths.append(bar(gradient))
    return Table(
        "Each choice of the training loss changed alone, measured against that side's own.",
        ("choice", "changed alone", "loss", "gradient away", "after a factor"),
        tuple(rows),
        numeric=(2, 3, 4),
        bars={3: tuple(lengths)},
    )


def _listed(found: Iterable[str]) -> str:
    return ", ".join(found)
