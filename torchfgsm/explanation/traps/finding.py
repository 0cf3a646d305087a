"""Silent traps: what about a model and a batch changes results without an error."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from torchfgsm.core.model_gradient import LossFn
from torchfgsm.explanation.batch_attacks import BatchAttacks
from torchfgsm.explanation.first_gradient import SideView, side_views
from torchfgsm.explanation.result import Trap
from torchfgsm.explanation.traps import gradient as gradient_traps
from torchfgsm.explanation.traps import input as input_traps
from torchfgsm.explanation.traps import model as model_traps
from torchfgsm.explanation.traps import output as output_traps
from torchfgsm.libraries.configuration import Configuration
from torchfgsm.losses.output_form import form_of
from torchfgsm.models.features import normal

_SEARCHES: tuple[Callable[[SideView], Iterator[Trap]], ...] = (
    input_traps.nonfinite_input,
    output_traps.nonfinite_output,
    gradient_traps.nonfinite_gradient,
    output_traps.kind_of_output,
    output_traps.one_class,
    output_traps.saturated,
    gradient_traps.no_path,
    gradient_traps.zero_gradient,
    gradient_traps.guarded,
    gradient_traps.tied_largest,
    output_traps.wrong_predictions,
    output_traps.tied_predictions,
    input_traps.outside_range,
    input_traps.length_and_range,
    input_traps.lost_in_rounding,
    input_traps.half_precision,
    input_traps.several_inputs,
    model_traps.random_layers,
    model_traps.batch_statistics,
    model_traps.cut_head,
    model_traps.lost_in_conversion,
    model_traps.tf32,
    model_traps.autocast,
)


def find_traps(
    model: Any,
    x: Any,
    y: Any,
    a: Configuration,
    b: Configuration,
    *,
    target: Any = None,
    loss_fn: LossFn | None = None,
    model_output: str | None = None,
    batch_size: int | None = None,
    seed: int = 0,
) -> tuple[Trap, ...]:
    """The traps in a model and a batch that concern two configurations.

    The model is called once with the clean batch for each side, or once for both where they see
    the same, and left as it was. Arguments are those of `torchfgsm.explain`, checked there.

    Args:
        model: As in `torchfgsm.attack`.
        x: The batch (N, ...), or a dict or list of features.
        y: Its labels.
        a: One side.
        b: The other.
        target: Labels that targeted recipes move towards.
        loss_fn: `loss_fn(output, y)` of both attacks; default cross-entropy. What the output is
            and where it saturates is not looked at then.
        model_output: What the model gives, "logits" or "probabilities"; what the model states or
            one more call of it shows goes before it.
        batch_size: How many examples the attacks see at once; None: all.
        seed: Seed of dropout.

    Returns:
        What was found; a trap that both sides have alike is there once.
    """
    x, y, target = normal(x), normal(y), normal(target)
    attacks = BatchAttacks(
        model, x, y, target, loss_fn, model_output, batch_size=batch_size, seed=seed
    )
    if model_output != "logits" or form_of(model) is not None:
        attacks.clean()
    return traps_of(attacks, a, b)


def traps_of(attacks: BatchAttacks, a: Configuration, b: Configuration) -> tuple[Trap, ...]:
    """The traps of `find_traps`, where the clean batch has shown what the model gives."""
    first, second = side_views(attacks, (a, b))
    found: list[Trap] = []
    for search in _SEARCHES:
        of_a, of_b = tuple(search(first)), tuple(search(second))
        found += [dataclasses.replace(t, side="both" if t in of_b else "a") for t in of_a]
        found += [dataclasses.replace(t, side="b") for t in of_b if t not in of_a]
    return tuple(found)
