"""The smallest draw that still disagrees: fewer examples, options back to their defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from benchmarks.evidence.differential_draws import Draw
from benchmarks.evidence.differential_rules import Outcome
from torchfgsm.parity.cases import Case
from torchfgsm.parity.originals_side import iterations, up_to

# Options without a default, or whose default is a larger case or a random start.
_KEPT = ("attack", "attack_params", "eps", "eps_iter", "nb_iter", "norm", "rand_init", "targeted")


def shrunk(found: Outcome, outcome: Callable[[Draw], Outcome]) -> Outcome:
    """Makes a finding simpler, one change at a time, while it is still a finding.

    Args:
        found: The finding.
        outcome: Runs a draw on both sides.

    Returns:
        A finding of which no single change leaves a finding.
    """
    while True:
        simpler = (outcome(draw) for draw in _simpler(found.draw))
        smaller = next((one for one in simpler if one.word == found.word), None)
        if smaller is None:
            return found
        found = smaller


def _simpler(draw: Draw) -> Iterator[Draw]:
    """Draws that are simpler by one change, those with the largest change first."""
    count = len(draw.batch.y)
    if count > 1:
        for i in range(count):
            yield replace(draw, batch=draw.batch.examples([i]))
        for i in range(count if count > 2 else 0):
            rest = [j for j in range(count) if j != i]
            yield replace(draw, batch=draw.batch.examples(rest))
    for case in _simpler_cases(draw.case):
        yield replace(draw, case=case)
    if draw.batch.soft is not None:
        yield replace(draw, batch=replace(draw.batch, soft=None))


def _simpler_cases(case: Case) -> Iterator[Case]:
    if case.kind == "perturb" and iterations(case) > 1:
        yield up_to(case, 1)
        yield up_to(case, iterations(case) - 1)
    for name in case.params:
        if name not in _KEPT:
            yield replace(case, params={k: v for k, v in case.params.items() if k != name})
    for extra in case.extras:
        yield replace(case, extras=tuple(e for e in case.extras if e != extra))
    plain = Case(name="", library=case.library, params={})
    if case.output != plain.output:
        logits = {**case.loss, "from_logits": True}
        loss = logits if "from_logits" in case.loss else case.loss
        yield replace(case, output=plain.output, loss=loss)
    elif case.loss != plain.loss:
        yield replace(case, loss=plain.loss)
    if case.labels != plain.labels:
        params = {k: v for k, v in case.params.items() if k != "targeted"}
        yield replace(case, labels=plain.labels, params=params)
    if case.dtype != plain.dtype:
        yield replace(case, dtype=plain.dtype)
