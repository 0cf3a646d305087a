"""What is refused before the model is called, with what was expected, what came, how to mend it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy_models import NeverCalled, batch, one_hot

from torchfgsm import Recipe, attack, fgsm, nsl, perturb, pgd
from torchfgsm.cleverhans import tf2, v3
from torchfgsm.cleverhans import torch as cht

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


def neighbor(x: Any, **kwargs: Any) -> Any:
    config = nsl.AdvNeighborConfig(**kwargs)
    return nsl.gen_adv_neighbor(x, torch.tensor(1.0), config, raise_invalid_gradient=True)


def keras(**kwargs: Any) -> nsl.AdversarialRegularization:
    return nsl.AdversarialRegularization(
        MODEL, **{"loss": "sparse_categorical_crossentropy", **kwargs}
    )


def fgm(**kwargs: Any) -> Any:
    return v3.FastGradientMethod(MODEL).generate(X, **kwargs)


def v3_pgd(**kwargs: Any) -> Any:
    return v3.ProjectedGradientDescent(MODEL).generate(X, **kwargs)


NATIVE: list[tuple[str, Callable[[], Any], type[Exception], str]] = [
    # norms
    ("norm inf", lambda: fgsm(MODEL, X, eps=0.1, norm="inf"), ValueError, "use 'linf'"),
    ("norm numpy", lambda: fgsm(MODEL, X, eps=0.1, norm=np.inf), ValueError, "use 'linf'"),  # type: ignore[arg-type]
    ("norm 2", lambda: pgd(MODEL, X, eps=0.1, norm=2), ValueError, "use 'l2'"),  # type: ignore[arg-type]
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

DIALECTS: list[tuple[str, Callable[[], Any], type[Exception], str]] = [
    # nsl
    ("nsl norm", lambda: nsl.AdvNeighborConfig(adv_grad_norm="inf"), ValueError, "'infinity'"),
    ("nsl norm 2", lambda: nsl.make_adv_reg_config(adv_grad_norm=2), ValueError, "got 2"),
    (
        "nsl l1 ball",
        lambda: neighbor(X, adv_grad_norm="l1", pgd_epsilon=0.1),
        NotImplementedError,
        "'l2' and 'infinity'",
    ),
    ("nsl pgd", lambda: neighbor(X, pgd_iterations=2), ValueError, "pgd_model_fn and pgd_loss_fn"),
    ("nsl random", lambda: neighbor(X, random_init=True), ValueError, "pgd_model_fn and pgd_loss"),
    ("nsl no path", lambda: neighbor(X), ValueError, "Cannot perturb 1 of 1 features"),
    (
        "nsl integers",
        lambda: neighbor({"a": X, "n": Y}),
        ValueError,
        r"Cannot perturb non-Tensor input: \['n'\]",
    ),
    ("nsl no loss", lambda: nsl.gen_adv_neighbor(X, None, nsl.AdvNeighborConfig()), ValueError, "labeled_loss is missing"),
    ("nsl text", lambda: nsl.gen_adv_neighbor("x", torch.tensor(1.0), nsl.AdvNeighborConfig()), TypeError, "no feature is a tensor"),
    ("nsl mask", lambda: neighbor(X, feature_mask=1.5), ValueError, r"\[0, 1\].*1\.5"),
    ("nsl int mask", lambda: neighbor(X, feature_mask=1), ValueError, "torch.int64"),
    ("nsl bool mask", lambda: nsl.apply_feature_mask(X, X > 0), ValueError, "torch.bool"),
    ("nsl torch loss", lambda: keras(loss=nn.CrossEntropyLoss()), TypeError, r"\(y_true, y_pred"),
    (
        "nsl torch function",
        lambda: keras(loss=nn.functional.cross_entropy),
        TypeError,
        r"takes \(output, target\)",
    ),
    (
        "nsl torch loss in a list",
        lambda: keras(loss=[nn.MSELoss(), "mse"], label_keys=("a", "b")),
        TypeError,
        "use torchfgsm.losses",
    ),
    (
        "nsl adversarial_loss",
        lambda: nsl.adversarial_loss(X, Y, MODEL, nn.CrossEntropyLoss()),
        TypeError,
        "CrossEntropyLoss",
    ),
    ("nsl loss name", lambda: keras(loss="hinge"), ValueError, "unknown loss 'hinge'; known are"),
    ("nsl loss number", lambda: keras(loss=3), TypeError, "callable or a name, got 3"),
    ("nsl losses", lambda: keras(loss=["mse", "mse"]), ValueError, "2 entries of loss for 1 labels"),
    ("nsl label", lambda: keras()({"x": X}), ValueError, r"labels \['label'\] are not in the input"),
    ("nsl label key", lambda: keras().perturb_on_batch({"x": X}), KeyError, "label"),
    (
        "nsl unknown field",
        lambda: keras().perturb_on_batch({"x": X, "label": Y}, eps=1),
        TypeError,
        "eps",
    ),
    (
        "nsl float64",
        lambda: keras()({"x": X.double(), "label": Y}),
        ValueError,
        "feature 'x' is torch.float64.*torch.float32",
    ),
    ("nsl project", lambda: nsl.project_to_ball(X, 1.0, nsl.NormType.L1), NotImplementedError, "L2"),
    ("nsl ints", lambda: nsl.random_in_norm_ball(Y, 1.0, "l2"), ValueError, "floating tensors"),
    ("nsl batches", lambda: nsl.random_in_norm_ball([X, X[:2]], 1.0, "l2"), ValueError, "same"),
    # CleverHans 3
    ("v3 both", lambda: fgm(y=HOT, y_target=HOT), ValueError, "both y and y_target"),
    ("v3 index labels", lambda: fgm(y=Y), ValueError, r"one-hot labels.*got \(6,\)"),
    ("v3 other batch", lambda: fgm(y=HOT[:2]), ValueError, r"expected \(6, classes\)"),
    ("v3 norm", lambda: fgm(ord=3), ValueError, "numpy.inf, 1, 2, got 3"),
    ("v3 norm text", lambda: fgm(ord="inf"), ValueError, "got 'inf'"),
    ("v3 one side", lambda: fgm(clip_min=0.0), ValueError, "clip_min=0.0 and clip_max=None"),
    ("v3 clip_grad", lambda: fgm(clip_grad=True), ValueError, "clip_min and clip_max"),
    ("v3 range", lambda: fgm(clip_min=0.0, clip_max=0.5), ValueError, "sanity_checks=False"),
    ("v3 eps_iter", lambda: v3_pgd(eps=0.1, eps_iter=0.2), ValueError, "eps_iter=0.2 and eps=0.1"),
    ("v3 l1", lambda: v3_pgd(ord=1), NotImplementedError, "norm 1"),
    ("v3 wide", lambda: v3_pgd(eps=3, clip_min=0, clip_max=1), ValueError, "larger than the range"),
    (
        "v3 probs",
        lambda: v3.FastGradientMethod(v3.CallableModelWrapper(MODEL, "probs")).generate(X),
        NotImplementedError,
        "wrap a callable that returns logits",
    ),
    ("v3 layer", lambda: v3.CallableModelWrapper(MODEL, "softmax"), ValueError, "'softmax'"),
    ("v3 model", lambda: v3.FastGradientMethod(3), TypeError, "model must be"),
    (
        "v3 float64",
        lambda: v3.FastGradientMethod(MODEL).generate(X.double()),
        ValueError,
        "torch.float64.*torch.float32",
    ),
    ("v3 smoothing", lambda: v3.CrossEntropy(MODEL, smoothing=2.0), ValueError, r"in \[0, 1\]"),
    ("v3 attack", lambda: v3.CrossEntropy(MODEL, attack=fgsm), TypeError, "generate"),
    ("v3 labels", lambda: v3.CrossEntropy(MODEL).fprop(X, Y), ValueError, r"\(6,\) of torch.int64"),
    ("v3 no terms", lambda: v3.WeightedSum(MODEL, []).fprop(X, HOT), ValueError, "at least one"),
    (
        "v3 int weight",
        lambda: v3.WeightedSum(MODEL, [(1, v3.WeightDecay(MODEL))]).fprop(X, HOT),
        TypeError,
        "float, got 1",
    ),
    ("v3 decay", lambda: v3.WeightDecay(MODEL).fprop(X, HOT), ValueError, "rank 2 or more"),
    ("v3 linear", lambda: v3.optimize_linear(X, 1.0, 3), NotImplementedError, "got 3"),
    ("v3 eta", lambda: v3.clip_eta(X, 3, 1.0), ValueError, "got 3"),
    # CleverHans 4, TensorFlow 2
    ("tf2 norm", lambda: tf2.fast_gradient_method(MODEL, X, 0.1, 3), ValueError, "got 3"),
    (
        "tf2 one side",
        lambda: tf2.fast_gradient_method(MODEL, X, 0.1, 2, clip_max=1.0),
        ValueError,
        "clip_min=None and clip_max=1.0",
    ),
    (
        "tf2 range",
        lambda: tf2.fast_gradient_method(
            MODEL, X, 0.1, 2, clip_min=0.0, clip_max=0.3, sanity_checks=True
        ),
        ValueError,
        "outside of clip_min=0.0",
    ),
    (
        "tf2 eps_iter",
        lambda: tf2.projected_gradient_descent(MODEL, X, 0.1, 0.2, 2, 2),
        ValueError,
        "at most eps",
    ),
    (
        "tf2 l1",
        lambda: tf2.projected_gradient_descent(MODEL, X, 0.1, 0.1, 2, 1),
        NotImplementedError,
        "norm 1",
    ),
    (
        "tf2 float64",
        lambda: tf2.fast_gradient_method(MODEL, X.double(), 0.1, 2),
        ValueError,
        "torch.float64.*torch.float32",
    ),
    ("tf2 linear", lambda: tf2.optimize_linear(X, 1.0, 3), NotImplementedError, "got 3"),
    ("tf2 eta l1", lambda: tf2.clip_eta(X, 1, 1.0), NotImplementedError, "v3.clip_eta"),
    ("tf2 eta", lambda: tf2.clip_eta(X, 3, 1.0), ValueError, "got 3"),
    # CleverHans 4, PyTorch
    ("torch norm", lambda: cht.fast_gradient_method(MODEL, X, 0.1, "inf"), ValueError, "'inf'"),  # type: ignore[arg-type]
    ("torch eps", lambda: cht.fast_gradient_method(MODEL, X, -0.1, 2), ValueError, "eps must be"),
    (
        "torch eps_iter",
        lambda: cht.projected_gradient_descent(MODEL, X, 0.1, -0.1, 2, 2),
        ValueError,
        "eps_iter must be",
    ),
    (
        "torch eps_iter above eps",
        lambda: cht.projected_gradient_descent(MODEL, X, 0.1, 0.2, 2, 2),
        ValueError,
        "at most eps",
    ),
    (
        "torch eps per example",
        lambda: cht.fast_gradient_method(MODEL, X, torch.ones(6, 1), 2),  # type: ignore[arg-type]
        ValueError,
        r"0-d, got shape \(6, 1\)",
    ),
    (
        "torch crossed",
        lambda: cht.fast_gradient_method(MODEL, X, 0.1, 2, clip_min=1.0, clip_max=0.0),
        ValueError,
        "above clip_max",
    ),
    (
        "torch one side",
        lambda: cht.fast_gradient_method(MODEL, X, 0.1, 2, clip_min=0.0),
        ValueError,
        "clip_max=None",
    ),
    (
        "torch range, checked by default",
        lambda: cht.projected_gradient_descent(
            MODEL, X, 0.1, 0.1, 2, 2, clip_min=0.0, clip_max=0.3
        ),
        ValueError,
        "outside of clip_min",
    ),
    (
        "torch l1",
        lambda: cht.projected_gradient_descent(MODEL, X, 0.1, 0.1, 2, 1),
        NotImplementedError,
        "norm 1",
    ),
    (
        "torch float64",
        lambda: cht.fast_gradient_method(MODEL, X.double(), 0.1, 2),
        ValueError,
        "torch.float64.*torch.float32",
    ),
    ("torch eta l1", lambda: cht.clip_eta(X, 1, 1.0), NotImplementedError, "v3.clip_eta"),
]


@pytest.mark.parametrize(
    ("call", "exception", "match"),
    [pytest.param(*row[1:], id=row[0]) for row in NATIVE + DIALECTS],
)
def test_refused_before_the_model_is_called(
    call: Callable[[], Any], exception: type[Exception], match: str
) -> None:
    with pytest.raises(exception, match=f"(?s){match}") as raised:
        call()
    # The exception itself, not a subclass that something inside has raised by accident.
    assert type(raised.value) is exception


def test_the_model_of_these_tests_fails_when_called() -> None:
    for call in (
        lambda: fgsm(MODEL, X, Y, eps=0.1),
        lambda: fgm(y=HOT),
        lambda: keras()({"x": X, "label": Y}),
    ):
        with pytest.raises(AssertionError, match="the model was called"):
            call()


def test_values_are_looked_at_only_when_asked_for() -> None:
    class Reached(Exception):
        pass

    def model(x: Tensor) -> Tensor:
        raise Reached

    for kwargs in ({"clip_max": NAN}, {"mask": 2 * X}, {"eps": -torch.ones(6)}):
        with pytest.raises(Reached):
            fgsm(model, with_nan(), Y - 5, validate=False, **{"eps": 0.1, **kwargs})


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


def test_arguments_after_the_labels_are_keyword_only() -> None:
    for function in (attack, fgsm, pgd):
        with pytest.raises(TypeError, match="positional"):
            function(MODEL, X, Y, 0.1)  # type: ignore[operator]
