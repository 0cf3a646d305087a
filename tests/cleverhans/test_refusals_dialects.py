"""What the dialects refuse before the model is called; see test_refusals.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from toy_models import NeverCalled, batch, one_hot

from torchfgsm import fgsm, nsl
from torchfgsm.cleverhans import tf2, v3
from torchfgsm.cleverhans import torch as cht

MODEL = NeverCalled()
X, Y = batch(torch.float32)
HOT = one_hot(Y, torch.float32)


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


REFUSED: list[tuple[str, Callable[[], Any], type[Exception], str]] = [
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
    (
        "nsl no loss",
        lambda: nsl.gen_adv_neighbor(X, None, nsl.AdvNeighborConfig()),
        ValueError,
        "labeled_loss is missing",
    ),
    (
        "nsl text",
        lambda: nsl.gen_adv_neighbor("x", torch.tensor(1.0), nsl.AdvNeighborConfig()),
        TypeError,
        "no feature is a tensor",
    ),
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
    ("nsl loss name", lambda: keras(loss="hinges"), ValueError, "unknown loss 'hinges'; known are"),
    (
        "nsl configuration by position",
        lambda: nsl.AdversarialRegularization(
            MODEL,
            nsl.make_adv_reg_config(),  # type: ignore[arg-type]
            loss="mse",
        ),
        TypeError,
        "give it as adv_config=",
    ),
    (
        "nsl label key",
        lambda: nsl.AdversarialRegularization(MODEL, "label", loss="mse"),
        TypeError,
        r"a list of names, such as \['label'\]",
    ),
    ("nsl loss number", lambda: keras(loss=3), TypeError, "callable or a name, got 3"),
    (
        "nsl losses",
        lambda: keras(loss=["mse", "mse"]),
        ValueError,
        "2 entries of loss for 1 labels",
    ),
    (
        "nsl label",
        lambda: keras()({"x": X}),
        ValueError,
        r"labels \['label'\] are not in the input",
    ),
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
    (
        "nsl project",
        lambda: nsl.project_to_ball(X, 1.0, nsl.NormType.L1),
        NotImplementedError,
        "L2",
    ),
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
        "v3 wide tensors",
        lambda: v3_pgd(eps=3, clip_min=X - 0.5, clip_max=X + 0.5),
        ValueError,
        r"^eps 3 is larger than the range from \[-?\d[^\n]* \.\.\. [^\n]*\Z",
    ),
    ("v3 one side of steps", lambda: v3_pgd(clip_min=0.0), ValueError, "and clip_max=None"),
    (
        "v3 crossed steps",
        lambda: v3_pgd(clip_min=1.0, clip_max=0.0, sanity_checks=False),
        ValueError,
        "clip_min 1.0 is above clip_max 0.0",
    ),
    (
        "v3 NaN",
        lambda: v3.FastGradientMethod(MODEL).generate(X * torch.nan, clip_min=0.0, clip_max=1.0),
        ValueError,
        "x spans nan to nan",
    ),
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
    ("call", "exception", "match"), [pytest.param(*row[1:], id=row[0]) for row in REFUSED]
)
def test_refused_before_the_model_is_called(
    call: Callable[[], Any], exception: type[Exception], match: str
) -> None:
    with pytest.raises(exception, match=f"(?s){match}") as raised:
        call()
    assert type(raised.value) is exception


@pytest.mark.parametrize(
    "call",
    [
        lambda: keras()({"x": X, "label": Y}),
        lambda: fgm(y=HOT),
        lambda: tf2.fast_gradient_method(MODEL, X, 0.1, 2),
        lambda: cht.fast_gradient_method(MODEL, X, 0.1, 2),
    ],
)
def test_the_model_of_these_tests_fails_when_called(call: Callable[[], Any]) -> None:
    with pytest.raises(AssertionError, match="the model was called"):
        call()
