"""The options of `torchfgsm attack`, and the recipe that they stand for."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

from torchfgsm.cli.inputs.option_values import norm, number
from torchfgsm.core import call_checks
from torchfgsm.core.recipe import Recipe
from torchfgsm.libraries.configuration import LIBRARIES, Configuration, check_library

NATIVE = "native"
# Older names of the options and those of the libraries, and what they are called here.
_MEANT = {
    "--steps": "--iterations",
    "--step": "--step-size",
    "--epsilon": "--eps",
    "--nb-iter": "--iterations",
    "--pgd-iterations": "--iterations",
    "--eps-iter": "--step-size",
    "--alpha": "--step-size",
    "--adv-step-size": "--eps for one step, or --step-size",
    "--pgd-epsilon": "--eps",
    "--ord": "--norm",
    "--adv-grad-norm": "--norm",
}


class _Refused(argparse.Action):
    """Says what an option is called."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        name = str(option_string)
        raise ValueError(
            f"unknown option {name}: did you mean {_MEANT[self.option_strings[0]]}? --eps is the "
            "radius of the ball and the length of a single step, --step-size the length of one "
            "of --iterations steps"
        )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that choose a recipe."""
    parser.add_argument(
        "--recipe", default=NATIVE, metavar="RECIPE",
        help=f"whose attack, with its defaults: {', '.join((*LIBRARIES, NATIVE))}; default native, "
        "this package's own",
    )  # fmt: skip
    parser.add_argument(
        "--norm", type=norm, metavar="NORM", help="linf, l2 or l1; default: the recipe's"
    )
    parser.add_argument(
        "--eps", type=number,
        help="radius of the ball, which is the length of a single step, in the data's units, such "
        "as 0.1 or 8/255",
    )  # fmt: skip
    parser.add_argument("--iterations", type=int, help="iterate: number of steps")
    parser.add_argument(
        "--step-size", type=number,
        help="length of one of several steps; default 2.5 * eps / iterations (CleverHans: at most "
        "eps), without --eps the recipe's",
    )  # fmt: skip
    parser.add_argument("--clip-min", type=number, help="smallest value of the data's range")
    parser.add_argument("--clip-max", type=number, help="largest value of the data's range")
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
    for name in _MEANT:
        parser.add_argument(name, action=_Refused, nargs="?", help=argparse.SUPPRESS)


def recipe_of(options: argparse.Namespace) -> Recipe:
    """The recipe of the options; what is not given is the library's default.

    Raises:
        ValueError: An option that is missing, bad, or not the library's.
    """
    check_library(options.recipe, "recipe", (NATIVE,))
    if options.iterations is not None and options.iterations < 1:
        raise ValueError(f"--iterations must be at least 1, got {options.iterations}")
    if options.iterations is None:
        for name in ("step_size", "random_start"):
            if getattr(options, name) is not None:
                option = "--" + name.replace("_", "-")
                raise ValueError(
                    f"{option} belongs to iterated steps: give their number, --iterations"
                    + (", or for one step its length, --eps" if name == "step_size" else "")
                )
    for name in ("eps", "step_size"):
        call_checks.check_length("--" + name.replace("_", "-"), getattr(options, name))
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
    iterated = options.iterations is not None
    if iterated and options.norm == "l1" and options.eps is not None:
        raise ValueError(
            "NSL projects to balls of the norms l2 and linf only: --norm l1 takes --step-size "
            "without --eps, or --recipe native"
        )
    given = {
        "adv_step_size": _step_size(options) if iterated else options.eps,
        "adv_grad_norm": options.norm,
        "pgd_iterations": options.iterations,
        "pgd_epsilon": options.eps if iterated else None,
        "random_init": options.random_start,
        "clip_value_min": options.clip_min,
        "clip_value_max": options.clip_max,
    }
    return Configuration.of("nsl", _without_none(given)).recipe


def _cleverhans(options: argparse.Namespace) -> Recipe:
    first = options.recipe == "cleverhans3"
    if not first:
        _need_eps(options)  # their own functions have no default for it
    step = _step_size(options)
    if options.step_size is None and step is not None:
        step = min(step, options.eps)  # the originals refuse longer ones
    given = {
        "eps": options.eps,
        "eps_iter": step,
        "ord" if first else "norm": options.norm or "linf",
        "nb_iter": options.iterations,
        "rand_init": options.random_start,
        "clip_min": options.clip_min,
        "clip_max": options.clip_max,
        "targeted": options.targeted,
    }
    recipe = Configuration.of(options.recipe, _without_none(given)).recipe
    if recipe.epsilon is not None and recipe.step is not None and recipe.step > recipe.epsilon:
        raise ValueError(
            f"--step-size {recipe.step} is longer than the ball's radius {recipe.epsilon}, which "
            "CleverHans refuses: give at most --eps"
        )
    return recipe


def _native(options: argparse.Namespace) -> Recipe:
    _need_eps(options)
    iterated = options.iterations is not None
    return Recipe(
        norm=options.norm or "linf",
        step=_step_size(options) if iterated else options.eps,
        iterations=options.iterations or 1,
        epsilon=options.eps if iterated else None,
        random_start="uniform" if iterated and options.random_start is not False else "none",
        clip_min=options.clip_min,
        clip_max=options.clip_max,
        targeted=options.targeted,
    )


def _step_size(options: argparse.Namespace) -> float | None:
    """The length of one of several steps, by default as `torchfgsm.pgd` has it."""
    if options.step_size is not None or options.eps is None or options.iterations is None:
        given: float | None = options.step_size
        return given
    return 2.5 * float(options.eps) / int(options.iterations)


def _need_eps(options: argparse.Namespace) -> None:
    if options.eps is None:
        what = "the length of the step" if options.iterations is None else "the radius of the ball"
        raise ValueError(f"--recipe {options.recipe} needs --eps: {what} in the data's units")


def _without_none(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}
