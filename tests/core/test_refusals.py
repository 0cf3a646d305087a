"""What is refused before the model is called, with what was expected, what came, how to mend it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy_models import NeverCalled, batch, one_hot

from torchfgsm import Recipe, attack, fgsm, perturb, pgd

MODEL = NeverCalled()
X, Y = batch(torch.float32)
HOT = one_hot(Y, torch.float32)
NAN, INF = float("nan"), float("inf")
STEP = Recipe(step=0.1)


class Named(NeverCalled):
    input_names = ("image", "mask")


def with_nan() -> Tensor:
    x = X.clone()
    x[2, 1] = NAN
    return x


REFUSED: list[tuple[str, Callable[[], Any], type[Exception], str]] = [
    # norms
    ("norm -inf", lambda: fgsm(MODEL, X, eps=0.1, norm=-np.inf), ValueError, "got -inf"),
    ("norm 3", lambda: pgd(MODEL, X, eps=0.1, norm=3), ValueError, "'l2' or 'l1', got 3"),
    ("norm true", lambda: fgsm(MODEL, X, eps=0.1, norm=True), ValueError, "got True"),
    ("norm unknown", lambda: perturb(X, X, eps=0.1, norm="l3"), ValueError, "got 'l3'"),
    ("norm none", lambda: perturb(X, X, eps=0.1, norm=None), ValueError, "got None"),  # type: ignore[arg-type]
    # lengths
    ("eps negative", lambda: fgsm(MODEL, X, eps=-0.1), ValueError, r"eps .*at least 0, got -0\.1"),
    ("eps nan", lambda: fgsm(MODEL, X, eps=NAN), ValueError, "eps must be finite"),
    ("eps inf", lambda: pgd(MODEL, X, eps=INF), ValueError, "eps must be finite"),
    ("eps none", lambda: fgsm(MODEL, X, eps=None), TypeError, "eps must be a number"),  # type: ignore[arg-type]
    ("eps text", lambda: fgsm(MODEL, X, eps="0.1"), TypeError, "got str"),  # type: ignore[arg-type]
    ("eps bool", lambda: fgsm(MODEL, X, eps=True), TypeError, "got bool"),
    ("eps ints", lambda: fgsm(MODEL, X, eps=torch.ones(6).long()), TypeError, "torch.int64"),
    ("eps tensor", lambda: fgsm(MODEL, X, eps=-torch.ones(6)), ValueError, "every entry"),
    ("eps tensor nan", lambda: pgd(MODEL, X, eps=torch.full((6,), NAN)), ValueError, "finite"),
    ("eps shape", lambda: fgsm(MODEL, X, eps=torch.ones(5)), ValueError, r"\(5,\).*\(6, 4\)"),
    (
        "radius per element",
        lambda: pgd(MODEL, X, eps=torch.ones(4), norm="l2"),
        ValueError,
        r"one number per example: expected shape \(6,\), got \(4,\)",
    ),
    (
        "perturb eps",
        lambda: perturb(X, X, eps=-torch.ones(6)),
        ValueError,
        "eps must be finite and at least 0",
    ),
    ("step", lambda: pgd(MODEL, X, eps=1.0, step_size=-0.1), ValueError, "step_size must be"),
    ("iterations", lambda: pgd(MODEL, X, eps=1.0, iterations=0), ValueError, "at least 1, got 0"),
    ("iterations float", lambda: pgd(MODEL, X, eps=1.0, iterations=2.0), ValueError, "2.0"),  # type: ignore[arg-type]
    (
        "no step",
        lambda: attack(MODEL, X, recipe=Recipe(step=None)),
        ValueError,
        "no step: give it to the call",
    ),
    ("call step", lambda: attack(MODEL, X, recipe=STEP, step=NAN), ValueError, "step must be"),
    ("no target", lambda: fgsm(MODEL, X, eps=0.1, targeted=True), ValueError, "give the target"),
    ("no target, pgd", lambda: pgd(MODEL, X, eps=0.1, targeted=True), ValueError, "the target"),
    (
        "crossed numbers for a dict",
        lambda: fgsm(MODEL, {"a": X, "b": X}, eps=0.1, clip_min=1.0, clip_max=0.0),
        ValueError,
        "clip_min of feature 'a' is above clip_max",
    ),
    (
        "nan bound for a list",
        lambda: fgsm(MODEL, [X, X], eps=0.1, clip_min=NAN),
        ValueError,
        "clip_min of feature 0 has a NaN",
    ),
    # inputs
    ("x nan", lambda: fgsm(MODEL, with_nan(), eps=0.1), ValueError, r"the first at \(2, 1\)"),
    (
        "x nan asked for",
        lambda: fgsm(MODEL, with_nan(), eps=0.1, validate=True),
        ValueError,
        "NaN or infinite",
    ),
    ("x inf", lambda: perturb(X / 0, X, eps=0.1), ValueError, "NaN or infinite"),
    (
        "x integer",
        lambda: fgsm(MODEL, X.byte(), eps=0.1),
        TypeError,
        r"torch.uint8.*x.float\(\) / 255",
    ),
    ("x bool", lambda: fgsm(MODEL, X > 0, eps=0.1), TypeError, "torch.bool"),
    ("x complex", lambda: fgsm(MODEL, X * 1j, eps=0.1), TypeError, "complex"),
    ("x array", lambda: fgsm(MODEL, X.numpy(), eps=0.1), TypeError, "ndarray"),
    ("x none", lambda: fgsm(MODEL, None, eps=0.1), TypeError, "None"),
    ("x integers only", lambda: fgsm(MODEL, {"a": Y}, eps=0.1), TypeError, "'a': 'torch.int64'"),
    ("x empty", lambda: fgsm(MODEL, X[:0], eps=0.1), ValueError, r"non-empty.*\(0, 4\)"),
    ("x scalar", lambda: fgsm(MODEL, X[0, 0], eps=0.1), ValueError, r"got shape \(\)"),
    (
        "x batches",
        lambda: fgsm(MODEL, {"a": X, "b": X[:3]}, eps=0.1),
        ValueError,
        "'a': 6, 'b': 3",
    ),
    (
        "x float64",
        lambda: fgsm(MODEL, X.double(), eps=0.1),
        ValueError,
        r"torch.float64.*torch.float32.*x.to\(torch.float32\)",
    ),
    (
        "x float32",
        lambda: fgsm(NeverCalled(torch.float64), X, eps=0.1),
        ValueError,
        "torch.float32.*torch.float64",
    ),
    ("x device", lambda: fgsm(MODEL, X.to("meta"), eps=0.1), ValueError, "meta.*cpu"),
    (
        "feature names",
        lambda: fgsm(Named(), {"image": X, "masks": X}, eps=0.1),
        ValueError,
        r"\['image', 'mask'\], got features \['image', 'masks'\]",
    ),
    # labels
    ("y shorter", lambda: fgsm(MODEL, X, Y[:5], eps=0.1), ValueError, r"\(6, ...\), got \(5,\)"),
    ("y scalar", lambda: fgsm(MODEL, X, Y[0], eps=0.1), ValueError, r"got \(\)"),
    ("y negative", lambda: fgsm(MODEL, X, Y - 9, eps=0.1), ValueError, "at least 0, got -9"),
    ("y list", lambda: fgsm(MODEL, X, Y.tolist(), eps=0.1), TypeError, r"torch.as_tensor\(y\)"),
    ("y device", lambda: fgsm(MODEL, X, Y.to("meta"), eps=0.1), ValueError, "y is on meta"),
    (
        "y missing",
        lambda: attack(MODEL, X, recipe=Recipe.nsl()),
        ValueError,
        "given labels: y is missing",
    ),
    # ranges
    (
        "crossed",
        lambda: fgsm(MODEL, X, eps=0.1, clip_min=1.0, clip_max=0.0),
        ValueError,
        "clip_min is above clip_max: 1.0 > 0.0",
    ),
    (
        "crossed tensors",
        lambda: fgsm(MODEL, X, eps=0.1, clip_min=torch.ones(4), clip_max=0.5),
        ValueError,
        "above clip_max",
    ),
    ("bound nan", lambda: fgsm(MODEL, X, eps=0.1, clip_max=NAN), ValueError, "clip_max has a NaN"),
    ("bound text", lambda: fgsm(MODEL, X, eps=0.1, clip_min="0"), TypeError, "got str"),
    (
        "bound shape",
        lambda: fgsm(MODEL, X, eps=0.1, clip_min=torch.zeros(3)),
        ValueError,
        r"clip_min of shape \(3,\) does not broadcast to the feature's shape \(6, 4\)",
    ),
    (
        "bound larger",
        lambda: fgsm(MODEL, X, eps=0.1, clip_min=torch.zeros(2, 6, 4)),
        ValueError,
        "does not broadcast",
    ),
    (
        "bound names",
        lambda: fgsm(MODEL, {"a": X}, eps=0.1, clip_min={"b": 0.0}),
        ValueError,
        r"clip_min names features \['b'\]",
    ),
    (
        "one side",
        lambda: attack(MODEL, X, recipe=Recipe.cleverhans3(), clip_min=0.0),
        ValueError,
        "clip_min=0.0 and clip_max=None",
    ),
    (
        "clip_grad",
        lambda: perturb(X, X, eps=0.1, clip_grad=True, clip_min=0.0),
        ValueError,
        "clip_grad needs both",
    ),
    # masks
    ("mask range", lambda: fgsm(MODEL, X, eps=0.1, mask=2 * X), ValueError, r"lie in \[0, 1\]"),
    ("mask nan", lambda: fgsm(MODEL, X, eps=0.1, mask=NAN), ValueError, r"lie in \[0, 1\]"),
    ("mask shape", lambda: fgsm(MODEL, X, eps=0.1, mask=X[:3]), ValueError, "mask of shape"),
    (
        "mask names",
        lambda: fgsm(MODEL, {"a": X}, eps=0.1, mask={"b": X}),
        ValueError,
        r"mask names features \['b'\]",
    ),
    # gradients
    ("grad shape", lambda: perturb(X, X[:3], eps=0.1), ValueError, r"shape.*\[6, 4\]"),
    ("grad dtype", lambda: perturb(X, X.double(), eps=0.1), ValueError, "float32, not torch.fl"),
    ("grad device", lambda: perturb(X, X.to("meta"), eps=0.1), ValueError, "cpu, not meta"),
    ("grad none", lambda: perturb(X, None, eps=0.1), TypeError, "grad must be a tensor"),
    (
        "grad missing",
        lambda: perturb({"a": X, "b": X}, {"a": X}, eps=0.1),
        TypeError,
        "gradient of feature 'b'",
    ),
]


@pytest.mark.parametrize(
    ("call", "exception", "match"),
    [pytest.param(*row[1:], id=row[0]) for row in REFUSED],
)
def test_refused_before_the_model_is_called(
    call: Callable[[], Any], exception: type[Exception], match: str
) -> None:
    with pytest.raises(exception, match=f"(?s){match}") as raised:
        call()
    # The exception itself, not a subclass that something inside has raised by accident.
    assert type(raised.value) is exception


def test_the_model_of_these_tests_fails_when_called() -> None:
    with pytest.raises(AssertionError, match="the model was called"):
        fgsm(MODEL, X, Y, eps=0.1)


def test_values_are_looked_at_only_when_asked_for() -> None:
    class ReachedError(Exception):
        pass

    def model(x: Tensor) -> Tensor:
        raise ReachedError

    unusual: list[dict[str, Any]] = [{"clip_max": NAN}, {"mask": 2 * X}, {"eps": -torch.ones(6)}]
    for entry in unusual:
        kwargs = {"eps": 0.1, **entry}
        with pytest.raises(ReachedError):
            fgsm(model, with_nan(), Y - 5, validate=False, **kwargs)


def test_values_are_never_looked_at_while_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    x = with_nan()
    assert perturb(x, X, eps=0.0, validate=True).isnan().sum() == 1


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (Y + 9, "expected labels from 0 to 2"),
        (HOT[:, :2], r"labels \(6, 2\) of torch.float32 and an output \(6, 3\)"),
        (Y[:, None], r"labels \(6, 1\) of torch.int64"),
        (Y.float(), r"expected integer labels of shape \(6,\)"),
    ],
)
def test_labels_that_only_the_output_shows_to_be_wrong(y: Tensor, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        fgsm(nn.Linear(4, 3), X, y, eps=0.1)


def test_outputs_and_losses_that_cannot_be_used() -> None:
    with pytest.raises(TypeError, match="output is tuple, not a tensor: give labels y and a loss"):
        fgsm(lambda x: (x, x), X, eps=0.1)
    with pytest.raises(TypeError, match="loss_fn must return a tensor, got float"):
        fgsm(nn.Linear(4, 3), X, Y, eps=0.1, loss_fn=lambda o, t: 1.0)  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match="no path leads from x to the loss"):
        fgsm(nn.Linear(4, 3), X, Y, eps=0.1, loss_fn=lambda o, t: torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"no path leads from features \['b'\]"):
        fgsm(lambda d: d["a"], {"a": X, "b": X}, Y, eps=0.1)


@pytest.mark.parametrize("function", [attack, fgsm, pgd])
def test_arguments_after_the_labels_are_keyword_only(function: Any) -> None:
    with pytest.raises(TypeError, match="positional"):
        function(MODEL, X, Y, 0.1)
