"""Every choice has a sentence and a source, and every source exists in the originals."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import subprocess
import sys
from typing import Any, get_args, get_type_hints

import pytest

from torchfgsm import Recipe
from torchfgsm.explanation.catalogue import (
    CATALOGUE,
    RECIPE_CHOICES,
    TRAINING_CHOICES,
    sentence,
    source,
)
from torchfgsm.explanation.choice import ANY
from torchfgsm.explanation.training_effects import Training
from torchfgsm.libraries.configuration import LIBRARIES, TITLES, Configuration
from torchfgsm.originals import KERAS_2, WORKERS, python_for
from torchfgsm.originals.cleverhans_torch import cleverhans_torch

FIELDS = [field.name for field in dataclasses.fields(Recipe)]
PLAIN: dict[str, list[Any]] = {
    "step": [0.3],
    "iterations": [0, 1, 10],
    "epsilon": [None, 0.3],
    "guard": [0.0, 1e-12],
    "random_radius": [None, 0.3],
    "clip_min": [None, 0, 0.5],
    "clip_max": [None, 1, 0.5],
}
VALUES: dict[str, list[Any]] = {
    name: list(get_args(hint)) or [False, True]
    for name, hint in get_type_hints(Recipe).items()
} | PLAIN  # fmt: skip
TRAINING: dict[str, list[Any]] = {
    "weighting": ["1 : 0.2"],
    "label_smoothing": [0.0, 0.1],
    "smoothed_attack": [True, False],
    "sample_weight": ["given", None],
}


def functions(library: str) -> list[str]:
    return sorted({choice.origins[library].function for choice in CATALOGUE.values()})


def test_there_is_one_for_each_choice() -> None:
    assert set(RECIPE_CHOICES) == set(FIELDS) == set(VALUES)
    training = {field.name for field in dataclasses.fields(Training)} - {"recipe"}
    assert set(TRAINING_CHOICES) == training == set(TRAINING)
    assert all(set(choice.origins) == set(LIBRARIES) for choice in CATALOGUE.values())


@pytest.mark.parametrize("library", [*LIBRARIES, ""])
def test_each_value_has_a_sentence(library: str) -> None:
    for name, values in {**VALUES, **TRAINING}.items():
        found = [sentence(name, library, value) for value in values]
        assert len(set(found)) == len(values), name  # the value is in it
        for text in found:
            assert re.fullmatch(r"[A-Z][^{}]*\.", text), text
            assert len(text) < 200
        assert bool(source(name, library, values[0])) or not library


def test_no_sentence_is_of_another_library() -> None:
    words = {"nsl": "NSL", "cleverhans3": "CleverHans 3", "cleverhans-tf2": "CleverHans 4"}
    for choice, (library, word) in itertools.product(CATALOGUE.values(), words.items()):
        note = choice.origins[library].note
        assert not any(other in note for other in words.values() if other != word), note
    assert set(words) < set(TITLES)


def test_every_value_of_a_preset_has_a_meaning_of_its_own_or_a_number() -> None:
    for name, choice in RECIPE_CHOICES.items():
        assert ANY in choice.meanings or set(VALUES[name]) == set(choice.meanings)
    for options in ({}, {"eps": 0.1, "norm": 2}):
        for library in LIBRARIES:
            if bool(options) == library.startswith("cleverhans-"):
                recipe = Configuration.of(library, options).recipe
                for name in FIELDS:
                    assert sentence(name, library, getattr(recipe, name))


_LOOK_UP = """
import importlib, json, sys
sys.path.insert(0, %(workers)r)
import stand_ins
stand_ins.keras_2()
for module in %(first)r: importlib.import_module(module)
missing = []
for name in %(names)r:
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
            break
        except ModuleNotFoundError:
            continue
    for part in parts[end:]:
        found = getattr(found, part, None)
    if not callable(found):
        missing.append(name)
print(json.dumps(missing))
"""


def looking_up(first: list[str], names: list[str]) -> str:
    """The code that prints those of the names that are not there, once modules were imported."""
    return _LOOK_UP % {"workers": str(WORKERS), "first": first, "names": names}


def look_up(first: list[str], names: list[str]) -> list[str]:
    """Those of the names that the originals' packages do not have."""
    done = subprocess.run(
        [str(python_for(KERAS_2)), "-c", looking_up(first, names)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    missing: list[str] = json.loads(done.stdout.splitlines()[-1])
    return missing


@pytest.mark.live
def test_functions_exist_in_nsl_and_cleverhans_for_tensorflow_2() -> None:
    names = [*functions("nsl"), *functions("cleverhans-tf2"), "cleverhans.tf2.utils.no_such"]
    assert look_up(["nsl"], names) == ["cleverhans.tf2.utils.no_such"]


@pytest.mark.live
def test_functions_exist_in_cleverhans_3() -> None:
    names = [*functions("cleverhans3"), "cleverhans.attacks.attack.Attack.no_such"]
    # The worker makes TensorFlow look like version 1.
    found = look_up(["cleverhans3"], names)
    assert found == ["cleverhans.attacks.attack.Attack.no_such"]


@pytest.mark.live
def test_functions_exist_in_cleverhans_for_torch() -> None:
    original = cleverhans_torch()
    for name in functions("cleverhans-torch"):
        found = getattr(original, name.rpartition(".")[2])
        assert f"{found.__module__}.{found.__qualname__}" == name


def test_the_look_up_runs_in_this_python_too() -> None:
    code = looking_up([], ["json.dumps", "json.JSONDecoder.decode", "json.no"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert json.loads(done.stdout) == ["json.no"]
