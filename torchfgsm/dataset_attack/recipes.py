"""The options of `torchfgsm attack`, and the recipe that they stand for."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from torchfgsm import checks
from torchfgsm.configuration import LIBRARIES, Configuration
from torchfgsm.parity.cases import NSL_WORDS, NUMPY_ORDERS
from torchfgsm.presets import Norm
from torchfgsm.recipe import Recipe

NATIVE = "native"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that choose a recipe."""
    parser.add_argument(
        "--recipe", choices=(*LIBRARIES, NATIVE), default=NATIVE,
        help="whose attack, with its defaults; default native, this package's own",
    )  # fmt: skip
    parser.add_argument("--norm", choices=("linf", "l2", "l1"), help="default: the recipe's")
    parser.add_argument("--eps", type=float, help="length of a step in the data's units")
    parser.add_argument("--steps", type=int, help="iterate: number of steps")
    parser.add_argument("--epsilon", type=float, help="radius of the ball that steps stay in")
    parser.add_argument("--clip-min", type=float, help="smallest value of the data's range")
    parser.add_argument("--clip-max", type=float, help="largest value of the data's range")
    parser.add_argument(
        "--random-start", action=argparse.BooleanOptionalAction,
        help="whether iterated steps start at a random point of the ball; default: the recipe's",
    )  # fmt: skip
    parser.add_argument("--targeted", action="store_true", help="the labels are targets")
    parser.add_argument(
        "--model-output", choices=("logits", "with_head"),
        help="what the loss takes for logits: the logits, or the output of a softmax or sigmoid "
        "that was cut off in conversion; default: the recipe's, with_head for CleverHans 4",
    )  # fmt: skip


def recipe_of(options: argparse.Namespace) -> Recipe:
    """The recipe of the options; what is not given is the library's default.

    Raises:
        ValueError: An option that is missing, bad, or not the library's.
    """
    if options.steps is not None and options.steps < 1:
        raise ValueError(f"--steps must be at least 1, got {options.steps}")
    if options.steps is None:
        for name in ("epsilon", "random_start"):
            if getattr(options, name) is not None:
                option = "--" + name.replace("_", "-")
                raise ValueError(f"{option} belongs to iterated steps: give their number, --steps")
    try:
        recipe = _of_library(options)
    except NotImplementedError as error:
        raise ValueError(str(error)) from None
    if options.model_output is None:
        return recipe
    return dataclasses.replace(recipe, model_output=options.model_output)


def _of_library(options: argparse.Namespace) -> Recipe:
    if options.recipe == "nsl":
        return _nsl(options)
    return _native(options) if options.recipe == NATIVE else _cleverhans(options)


def _nsl(options: argparse.Namespace) -> Recipe:
    if options.targeted:
        raise ValueError("NSL has no targeted attacks: --targeted needs another --recipe")
    given = {
        "adv_step_size": options.eps,
        "adv_grad_norm": options.norm and NSL_WORDS[options.norm],
        "pgd_iterations": options.steps,
        "pgd_epsilon": options.epsilon,
        "random_init": options.random_start,
        "clip_value_min": options.clip_min,
        "clip_value_max": options.clip_max,
    }
    return Recipe.nsl(**_without_none(given))


def _cleverhans(options: argparse.Namespace) -> Recipe:
    iterated = options.steps is not None
    first = options.recipe == "cleverhans3"
    lengths = (
        {"eps": options.epsilon, "eps_iter": options.eps} if iterated else {"eps": options.eps}
    )
    if not first:
        # Their own functions have no defaults for these.
        _need(options, "epsilon", "eps") if iterated else _need(options, "eps")
    norm = options.norm or "linf"
    given = {
        **lengths,
        "ord" if first else "norm": NUMPY_ORDERS[norm],
        "nb_iter": options.steps,
        "rand_init": options.random_start,
        "clip_min": options.clip_min,
        "clip_max": options.clip_max,
        "targeted": options.targeted,
    }
    return Configuration.of(options.recipe, _without_none(given)).recipe


def _native(options: argparse.Namespace) -> Recipe:
    norm: Norm = options.norm or "linf"
    steps, radius = options.steps, options.epsilon
    _need(options, *(["eps"] if steps is None else ["epsilon"]))
    length = options.eps if options.eps is not None else 2.5 * radius / steps
    for name, value in (("--eps", options.eps), ("--epsilon", radius)):
        checks.check_length(name, value)
    starts = steps is not None and options.random_start is not False
    return Recipe(
        norm=norm,
        step=length,
        iterations=steps or 1,
        epsilon=radius,
        random_start="uniform" if starts else "none",
        clip_min=options.clip_min,
        clip_max=options.clip_max,
        targeted=options.targeted,
    )


def _need(options: argparse.Namespace, *names: str) -> None:
    meaning = {"eps": "the length of a step", "epsilon": "the radius of the ball"}
    for name in names:
        if getattr(options, name) is None:
            what = "one step" if options.steps is None else "iterated steps"
            raise ValueError(
                f"--recipe {options.recipe} needs --{name} for {what}: {meaning[name]} in the "
                "data's units"
            )


def _without_none(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}
