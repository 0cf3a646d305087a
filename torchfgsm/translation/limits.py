"""What a library refuses whatever the other one says."""

from __future__ import annotations

from collections.abc import Callable

from torchfgsm.core.recipe import Recipe
from torchfgsm.translation.entries import CLEVERHANS
from torchfgsm.translation.reach import clips, ends_at_the_edge, is_random
from torchfgsm.translation.reading import Source

Reason = str
# (source, the library that is translated to) -> whether the limit is passed.
Passed = Callable[[Source, str], bool]


def _recipe(source: Source) -> Recipe:
    return source.configuration.recipe


def _one_of(source: Source, to: str, libraries: tuple[str, ...]) -> bool:
    return to in libraries or source.configuration.library in libraries


def _iterates(recipe: Recipe) -> bool:
    return recipe.iterations != 1 or recipe.epsilon is not None or is_random(recipe)


def _l1_ball(source: Source, to: str) -> bool:
    recipe = _recipe(source)
    return recipe.norm == "l1" and recipe.epsilon is not None and _one_of(source, to, ("nsl",))


def _l1_iterated(source: Source, to: str) -> bool:
    return to in CLEVERHANS and _recipe(source).norm == "l1" and _iterates(_recipe(source))


def _step_above_ball(source: Source, to: str) -> bool:
    recipe, cleverhans = _recipe(source), source.configuration.library in CLEVERHANS
    if recipe.epsilon is None or recipe.step is None or not _one_of(source, to, CLEVERHANS):
        return False
    # The others compare the signed length; the torch port takes none that is negative.
    step = abs(recipe.step) if _one_of(source, to, CLEVERHANS[2:]) else recipe.step
    # A single L-inf step as long as the radius stands for a longer one.
    return step > recipe.epsilon and (cleverhans or not ends_at_the_edge(recipe))


def _nothing_in_torch(source: Source, to: str) -> bool:
    recipe = _recipe(source)
    nothing = recipe.step == 0 or recipe.epsilon == 0
    return nothing and _one_of(source, to, CLEVERHANS[2:]) and (clips(recipe) or is_random(recipe))


def _down_from_prediction(source: Source, to: str) -> bool:
    recipe = _recipe(source)
    down = (recipe.step or 0.0) < 0
    return to == "cleverhans-torch" and down and recipe.labels == "predicted"


LIMITS: tuple[tuple[Passed, Reason], ...] = (
    (
        lambda source, to: _recipe(source).step is None,
        "the length of a step is not a number: give one",
    ),
    (_l1_ball, "NSL projects to L2 and L-inf balls, and refuses pgd_epsilon under L1"),
    (
        _l1_iterated,
        "CleverHans' projected gradient descent does not take norm 1: one L1 step moves a single "
        "entry",
    ),
    (
        _step_above_ball,
        "CleverHans refuses steps that are longer than the radius of the ball (eps_iter > eps), "
        "which NSL projects",
    ),
    (
        _nothing_in_torch,
        "CleverHans 4's torch port gives x itself for eps or eps_iter 0, neither clipped nor "
        "started at random",
    ),
    (
        _down_from_prediction,
        "CleverHans 4's torch port takes no negative eps: the step down is a targeted one, which "
        "needs labels; translate with labels='given' and pass the predicted ones",
    ),
    (
        lambda source, to: source.trains and _recipe(source).targeted,
        "a targeted attack inside of a training loss needs targets besides the labels: translate "
        "the attack alone",
    ),
)


def refusals(source: Source, to: str) -> list[Reason]:
    """The reasons why a library cannot do what the source says, if any."""
    return [reason for passed, reason in LIMITS if passed(source, to)]
