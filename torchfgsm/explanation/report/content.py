"""What a report says, decided once; text, Markdown and the page only lay it out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchfgsm.explanation.report.effect_tables import differences, training, way, without_effect
from torchfgsm.explanation.report.examples import most_moved
from torchfgsm.explanation.report.formatting import (
    Note,
    Report,
    Section,
    Table,
    bar,
    number,
    share,
    shown,
)
from torchfgsm.explanation.report.verdict import names, verdict
from torchfgsm.explanation.result import Explanation, Settings

_SEVERITIES = ("error", "warning", "note")


def report(explanation: Explanation) -> Report:
    """What is said about an explanation, in order."""
    a, b = names(explanation)
    sections = (
        differences(explanation),
        way(explanation),
        _features(explanation),
        _accuracy(explanation),
        _curve(explanation),
        _traps(explanation),
        training(explanation),
        *_equal(explanation),
        without_effect(explanation),
        _facts(explanation),
    )
    return Report(
        title=f"{a} against {b}",
        verdict=verdict(explanation),
        sections=tuple(section for section in sections if section is not None),
    )


def _features(explanation: Explanation) -> Section | None:
    moved = most_moved(explanation)
    if not moved:
        return None
    largest = max((m.difference for m in moved if m.difference == m.difference), default=0.0)
    rows = tuple((m.name, *map(number, (m.input, m.a, m.b, m.difference))) for m in moved)
    table = Table(
        "The features whose perturbations differ most: mean absolute values over the examples.",
        ("feature", "input", "a moves it by", "b moves it by", "difference"),
        rows,
        numeric=(1, 2, 3, 4),
        bars={4: tuple(bar(m.difference / largest) if largest else 0.0 for m in moved)},
        full="the largest difference",
    )
    return Section("features", "Most moved features", table=table)


def _accuracy(explanation: Explanation) -> Section:
    a, b = names(explanation)
    clean = ("clean", number(explanation.clean_loss), share(explanation.clean_accuracy))
    sides = zip((a, b), (explanation.a, explanation.b), strict=True)
    rows = [clean, *((name, number(s.loss), share(s.accuracy)) for name, s in sides)]
    table = Table(
        "Mean loss in nats, and accuracy, on the clean and on the adversarial examples.",
        ("examples", "loss", "accuracy"),
        tuple(rows),
        numeric=(1, 2),
    )
    return Section("accuracy", "Loss and accuracy", table=table)


def _curve(explanation: Explanation) -> Section | None:
    of_a, of_b = dict(explanation.a.curve), dict(explanation.b.curve)
    rows = []
    for step in sorted({*of_a, *of_b}):
        cells = (share(side[step]) if step in side else "" for side in (of_a, of_b))
        rows.append((number(step), *cells))
    if not rows:
        return None
    table = Table(
        f"Accuracy on the adversarial examples of {names(explanation)[0]} (a) and "
        f"{names(explanation)[1]} (b) with other lengths of the step.",
        ("step", "accuracy under a", "accuracy under b"),
        tuple(rows),
        numeric=(1, 2),
    )
    return Section("curve", "Accuracy by the length of the step", table=table)


def _traps(explanation: Explanation) -> Section:
    title = "Silent traps in this model and batch"
    if not explanation.traps:
        return Section("traps", title, ("None was found.",))
    found = sorted(explanation.traps, key=lambda trap: _SEVERITIES.index(trap.severity))
    table = Table(
        "What silently changes results here; whose attack it concerns.",
        ("severity", "trap", "whose", "how many"),
        tuple((t.severity, t.name, t.side, _counted(t.count, t.of)) for t in found),
    )
    notes = tuple(Note(t.name, (t.message,)) for t in found)
    return Section("traps", title, table=table, notes=notes)


def _counted(count: int | None, of: int | None) -> str:
    if count is None:
        return ""
    return str(count) if of is None else f"{count} of {of}"


def _equal(explanation: Explanation) -> tuple[Section, ...]:
    """One part for each side that gives way."""
    return tuple(_settings(explanation, settings) for settings in explanation.equal)


def _settings(explanation: Explanation, settings: Settings) -> Section:
    changed, like = names(explanation)[:: 1 if settings.side == "a" else -1]
    title = f"What makes {changed} ({settings.side}) like {like}"
    name = f"equal-{settings.side}"
    if settings.reason:
        return Section(name, title, (settings.reason[:1].upper() + settings.reason[1:],))
    given = (("Besides", settings.outside), ("Provided that", settings.conditions))
    notes = tuple(Note(heading, lines) for heading, lines in given if lines)
    return Section(name, title, code=settings.code.strip("\n"), notes=notes)


def _facts(explanation: Explanation) -> Section:
    rows = [
        (f"options of {name}", _options(side.configuration.options))
        for name, side in zip(names(explanation), (explanation.a, explanation.b), strict=True)
    ]
    rows += [(str(name), shown(value)) for name, value in explanation.facts.items()]
    table = Table("The options of each side, versions and seeds.", ("what", "value"), tuple(rows))
    return Section("facts", "How this was measured", table=table)


def _options(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options.items()) or "defaults"
