"""Which examples and features a report shows, and what their pictures hold."""

from __future__ import annotations

import base64
import dataclasses
import io
from typing import Any

import numpy as np
import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from explanation_cases import explanation
from matplotlib import image

from torchfgsm.explanation.report import pictures
from torchfgsm.explanation.report.examples import as_images, chosen, most_moved


def test_features_that_are_no_pictures() -> None:
    given = explanation({"x": (2,), "picture": (4, 4, 1), "z": ()}, count=2)
    a = {"x": [[1, -3], [1, 3]], "z": [0, 0], "picture": np.zeros((2, 4, 4, 1))}
    b = {"x": [[1, 3], [1, 3]], "z": [2, -4], "picture": np.ones((2, 4, 4, 1))}
    sides = [
        dataclasses.replace(given.a, perturbations={n: np.asarray(v) for n, v in p.items()})
        for p in (a, b)
    ]
    given = dataclasses.replace(given, a=sides[0], b=sides[1])
    moved = most_moved(given)
    assert [(m.name, m.a, m.b, m.difference) for m in moved] == [
        ("x[1]", 3.0, 3.0, 3.0),
        ("z", 0.0, 3.0, 3.0),
        ("x[0]", 1.0, 1.0, 0.0),
    ]
    assert [grid.feature for grid in pictures.grids(given)] == ["picture"]


def test_the_examples_that_show_most_come_first() -> None:
    given = explanation({"x": (1,)})
    zero = {"x": np.zeros((4, 1))}
    b = {"x": np.array([[1.0], [3.0], [0.0], [2.0]])}
    sides = [
        dataclasses.replace(given.a, perturbations=p, predictions=np.array(labels))
        for p, labels in ((zero, [0, 0, 0, 0]), (b, [0, 0, 1, 0]))
    ]
    given = dataclasses.replace(given, a=sides[0], b=sides[1])
    assert chosen(given, 3) == (2, 1, 3)


def _decoded(source: str) -> Any:
    content = base64.b64decode(source.removeprefix("data:image/png;base64,"))
    return np.rint(image.imread(io.BytesIO(content), format="png")[..., :3] * 255)


def test_pictures_show_the_values() -> None:
    """Input in grey; perturbations white at zero, blue and orange at the largest."""
    given = explanation({"x": (1, 2, 2)}, count=1)
    values = np.array([[[[0.0, 0.5], [-0.5, 0.25]]]])
    a = dataclasses.replace(given.a, perturbations={"x": values})
    b = dataclasses.replace(given.b, perturbations={"x": np.zeros_like(values)})
    inputs = {"x": np.array([[[[0.0, 1.0], [0.2, 0.4]]]])}
    given = dataclasses.replace(given, a=a, b=b, inputs=inputs)
    (grid,) = pictures.grids(given)
    assert grid.columns[1:3] == ("NSL 1.4.0", "CleverHans 3.1.0")
    assert grid.scales == ("0 to 1", "full colour at 0.5", "all zero", "full colour at 0.5")
    ((heading, shown),) = grid.rows
    assert heading == "example 0, label 0"
    assert [p.caption for p in shown] == ["predicted 0", "predicted 0", "predicted 1", ""]
    assert shown[1].alt == "perturbation by NSL 1.4.0, example 0, predicted 0"
    grey, of_a, of_b, apart = (_decoded(p.source) for p in shown)
    assert grey[..., 0].tolist() == [[0, 255], [51, 102]]
    orange, blue = [200, 75, 20], [20, 95, 180]
    half = np.rint((255 + np.array(orange)) / 2 + 1e-9).tolist()
    assert of_a.tolist() == [[[255] * 3, orange], [blue, half]]
    assert np.all(of_b == 255)
    assert apart[0, 1].tolist() == blue
    last = {"x": np.moveaxis(inputs["x"], 1, -1)}
    moved = [
        dataclasses.replace(s, perturbations={"x": np.moveaxis(s.perturbations["x"], 1, -1)})
        for s in (a, b)
    ]
    other = dataclasses.replace(given, a=moved[0], b=moved[1], inputs=last)
    assert pictures.grids(other) == (grid,)


def test_colour_and_large_pictures() -> None:
    given = explanation({"x": (3, 400, 200)}, count=1)
    (grid,) = pictures.grids(given)
    assert grid.colour
    (_, shown), *_ = grid.rows
    assert _decoded(shown[0].source).shape == (134, 67, 3)  # every third pixel
    a = given.a.perturbations["x"][0]
    expected = np.rint((a[:, ::3, ::3] / np.abs(a[:, ::3, ::3]).max() + 1) * 127.5)
    assert np.abs(_decoded(shown[1].source) - np.moveaxis(expected, 0, -1)).max() <= 1


def test_which_arrays_are_pictures() -> None:
    shapes = {(2, 1, 8, 8): True, (2, 8, 8, 3): True, (2, 8, 8, 2): False, (2, 3, 8): False}
    for shape, is_picture in {**shapes, (2, 1, 8, 1): False}.items():
        assert (as_images(np.zeros(shape)) is not None) == is_picture, shape
