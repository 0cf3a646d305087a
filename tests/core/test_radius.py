"""`--eps` of `torchfgsm attack` is the radius of every recipe's ball, in every norm."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attack_files import inputs, made, run
from toy_models import ORDERS, batch, mlp

from torchfgsm import Recipe, attack, pgd
from torchfgsm.cli.attack import recipes
from torchfgsm.cli.attack.spans import Spans
from torchfgsm.libraries.configuration import LIBRARIES

NORMS = ("linf", "l2", "l1")
# NSL and CleverHans project to no L1 ball; one step of that length they take.
PAIRS = [
    (recipe, norm, iterations)
    for recipe in (*LIBRARIES, recipes.NATIVE)
    for norm in NORMS
    for iterations in (None, 1, 2, 3, 10)
    if recipe == recipes.NATIVE or norm != "l1" or iterations is None
]


def recipe_of(*arguments: Any) -> Recipe:
    parser = argparse.ArgumentParser()
    recipes.add_options(parser)
    return recipes.recipe_of(parser.parse_args(list(map(str, arguments))))


@pytest.mark.parametrize(("recipe", "norm", "iterations"), PAIRS)
def test_nothing_moves_further_than_eps_and_something_nearly_as_far(
    recipe: str, norm: str, iterations: int | None
) -> None:
    x, y = batch(size=24)
    generator = torch.Generator().manual_seed(0)
    for eps in ("0.03", "8/255", "2", "0.1"):
        options: tuple[Any, ...] = ("--recipe", recipe, "--norm", norm, "--eps", eps)
        if iterations is not None:
            options += ("--iterations", iterations)
        for more in ((), ("--clip-min", 0, "--clip-max", 1), ("--random-start",)):
            if "--random-start" in more and iterations is None:
                continue
            made_by = recipe_of(*options, *more)
            moved = attack(mlp(), x, y, recipe=made_by, generator=generator) - x
            radius = 8 / 255 if eps == "8/255" else float(eps)
            lengths = torch.linalg.vector_norm(moved, ORDERS[norm], dim=1)
            assert lengths.max() <= radius * (1 + 1e-12) + 1e-15, (eps, more)
            if "--clip-min" not in more:
                assert lengths.max() >= 0.9 * radius, (eps, more)


@pytest.mark.parametrize("recipe", [*LIBRARIES, recipes.NATIVE])
def test_step_sizes(recipe: str) -> None:
    given = ("--recipe", recipe, "--eps", 0.1, "--iterations", 10)
    assert recipe_of(*given).step == pytest.approx(0.025)
    assert recipe_of(*given, "--step-size", "2/255").step == 2 / 255
    assert recipe_of(*given[:-1], 40).step == pytest.approx(0.1 * 2.5 / 40)
    # CleverHans refuses steps above the radius, the others project them.
    cleverhans = recipe.startswith("cleverhans")
    assert recipe_of(*given[:-1], 1).step == pytest.approx(0.1 if cleverhans else 0.25)
    assert recipe_of(*given[:-1], 1).epsilon == 0.1
    assert recipe_of(*given[:-2]).step == 0.1
    assert recipe_of(*given[:-2]).epsilon is None


def test_without_eps_it_is_the_librarys_own_configuration() -> None:
    assert recipe_of("--recipe", "nsl", "--iterations", 3) == Recipe.nsl(pgd_iterations=3)
    assert recipe_of("--recipe", "nsl", "--iterations", 3, "--step-size", 0.5) == Recipe.nsl(
        0.5, pgd_iterations=3
    )
    assert recipe_of("--recipe", "cleverhans3", "--iterations", 3) == Recipe.cleverhans3(nb_iter=3)


def test_the_native_recipe_is_that_of_pgd() -> None:
    x, y = batch(size=5)
    for iterations in (1, 2, 7):
        recipe = recipe_of("--eps", "8/255", "--iterations", iterations, "--norm", "np.inf")
        draws = [torch.Generator().manual_seed(3) for _ in range(2)]
        expected = pgd(mlp(), x, y, eps=8 / 255, iterations=iterations, generator=draws[0])
        assert torch.equal(attack(mlp(), x, y, recipe=recipe, generator=draws[1]), expected)


@pytest.mark.parametrize("option", ["--eps", "--step-size", "--clip-min", "--clip-max"])
@pytest.mark.parametrize("text", ["1/0", "8/", "/255", "8/2/5", "a", "8\\255", "0,1"])
def test_what_is_no_number(option: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        recipe_of(option, text)
    assert stopped.value.code == 2
    assert "expected a number such as 0.1 or 8/255" in capsys.readouterr().err


def test_an_older_name_says_the_new_one() -> None:
    parser = argparse.ArgumentParser()
    recipes.add_options(parser)
    known = {name for action in parser._actions for name in action.option_strings}
    for older, newer in recipes._MEANT.items():
        assert newer.split()[0] in known - recipes._MEANT.keys()
        for given in ([older, "3"], [f"{older}=3"], [older]):
            with pytest.raises(ValueError, match=f"unknown option {older}: did you mean {newer}"):
                parser.parse_args(["--eps", "0.1", *given])


def noted(
    capsys: pytest.CaptureFixture[str], model: Path, folder: Path, x: Any, *arguments: Any
) -> list[str]:
    data = folder / "range.npy"
    np.save(data, x)
    code, _, lines = run(
        capsys, model, "--no-verify", "--data", data, "-o", folder / "o.npy", "--force", *arguments
    )
    assert code == 0
    return [line for line in lines if "the data lie in" in line]


def test_what_leaves_the_range_of_the_data_is_said(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unit = np.random.default_rng(5).random((40, 6), np.float32)
    unit[3, :2] = 0.0, 1.0
    both = ("--clip-min", 0, "--clip-max", 1)
    (line,) = noted(capsys, model_file, tmp_path, unit, "--eps", 0.25, "--batch-size", 7)
    assert "the data lie in [0, 1], the adversarial examples in [-0.2" in line
    assert line.endswith("to stay in [0, 1] give --clip-min 0 --clip-max 1")
    assert noted(capsys, model_file, tmp_path, unit, "--eps", 0.25, *both) == []
    (line,) = noted(
        capsys, model_file, tmp_path, unit, "--recipe", "native", "--eps", 0.25, *both[:2]
    )
    assert line.endswith("to stay in [0, 1] give --clip-max 1")
    # Clipping to a range that the data leave moves them by more than eps.
    (line,) = noted(capsys, model_file, tmp_path, 255 * unit, "--eps", 0.25, *both)
    assert "the data lie in [0, 255], outside of the range" in line
    found = made(model_file, tmp_path / "range.npy", tmp_path / "o.npy", "--force", "--eps", 1)
    assert abs(found - 255 * unit).max() == 1


@pytest.mark.parametrize(
    ("low", "high", "proposed"),
    [
        (0.0, 0.9, "--clip-min 0 --clip-max 1"),
        (-0.7, 0.8, "--clip-min -1 --clip-max 1"),
        (3.0, 250.0, "--clip-min 0 --clip-max 255"),
        (0.0, 16.0, "--clip-min 0 --clip-max 16"),
        (0.0, 0.25, "--clip-min 0 --clip-max 0.25"),
        (-3.1234567, 2.5, "--clip-min -3.1234567 --clip-max 2.5"),
    ],
)
def test_the_range_that_is_proposed(low: float, high: float, proposed: str) -> None:
    spans = Spans()
    assert spans.notes(Recipe(step=1.0)) == []
    rows = np.array([[low, high], [high, low]], np.float32)
    spans.add(rows, rows)
    assert spans.notes(Recipe(step=1.0)) == []
    spans.add(rows, rows + np.float32(300))
    (note,) = spans.notes(Recipe(step=1.0))
    assert note.endswith(f"give {proposed}")
    bounds = [float(word) for word in proposed.split()[1::2]]
    # What is proposed holds the data: clipping to it moves none of them.
    assert (np.float32(bounds[0]) <= rows).all()
    assert (rows <= np.float32(bounds[1])).all()


def test_rows_that_stay_within_their_range_are_not_spoken_of(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = 0.3 + 0.7 * np.random.default_rng(6).random((20, 6), np.float32) * 0.9
    assert noted(capsys, model_file, tmp_path, inner, "--eps", 0.01) == []
    assert noted(capsys, model_file, tmp_path, inputs(), "--eps", 0) == []
