"""Why two configurations give different perturbations, on one's own model and batch."""

from __future__ import annotations

import contextlib
import math
import platform
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from torchfgsm.core.model_gradient import LossFn
from torchfgsm.core.recipe import Recipe
from torchfgsm.explanation.batch_attacks import BatchAttacks, as_array, feature_name
from torchfgsm.explanation.effects import path, single_effects
from torchfgsm.explanation.measures import Attacked, measure, remainder
from torchfgsm.explanation.result import Explanation, Settings, Side
from torchfgsm.explanation.training_effects import explain_training
from torchfgsm.explanation.traps.finding import traps_of
from torchfgsm.libraries.configuration import Configuration
from torchfgsm.losses.labels import check_labels
from torchfgsm.models.features import items, normal
from torchfgsm.system.progress import Bar, Progress
from torchfgsm.training.loss import TrainingLoss
from torchfgsm.translation import TranslationError, translate
from torchfgsm.version import __version__

_OUTPUTS = ("logits", "probabilities")
_CURVE_POINTS = 7


def explain(
    model: Any,
    x: Any,
    y: Any,
    *,
    a: Configuration | Recipe | str,
    b: Configuration | Recipe | str,
    loss_fn: LossFn | None = None,
    model_output: str | None = None,
    target: Any = None,
    sample_weight: Tensor | None = None,
    epsilons: Sequence[float] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> Explanation:
    """Why two configurations give different perturbations, on this model and batch.

    Each field on which the recipes differ is changed alone from either end, and one after the
    other on the way from a to b; every distinct recipe is run once. Loss and accuracy are the
    model's own in eval mode, against `y`. Where both sides have a training loss, that is taken
    apart too, on a copy of the model in training mode. The model is left as it was: no gradients,
    no moved statistics, no changed modes; torch's random state is as before.

    Every run starts with the same seed, so that a difference is a field's and not the draw's.

    Args:
        model: As in `torchfgsm.attack`.
        x: The batch (N, ...), or a dict or list of features.
        y: Its labels: class numbers (N, ...), or rows. A recipe with `labels="given"` is run
            against them, one with `labels="predicted"` against the model's own prediction.
        a: A `Configuration`; or the name of a library, with its defaults; or a `Recipe`, which has
            no training loss.
        b: What it is compared with, likewise.
        loss_fn: `loss_fn(output, y)` -> losses per example or their mean, of both sides' attacks
            and training; default cross-entropy. It takes what the model gives: the recipes' field
            `model_output` has no effect then.
        model_output: What the model gives, "logits" or "probabilities". Default: what a converted
            model says of itself; else probabilities where all rows on this batch lie in [0, 1] and
            add up to 1. That it gives probabilities is believed only where most rows do. A recipe
            that takes probabilities sees a model of logits with a softmax; one that takes logits
            sees probabilities as they are. Of a converted model each recipe sees what its library
            would have got of the original: NSL and CleverHans 3 the logits behind a softmax,
            CleverHans 4 (`model_output="with_head"` in a recipe) the softmax's output.
        target: Labels that targeted recipes move towards.
        sample_weight: (N,) or (N, 1), factors of the training loss per example on NSL's side.
        epsilons: Lengths for the curve of accuracy, as in `torchfgsm.evaluate`; default a
            geometric row around both sides' own. Empty: none.
        batch_size: How many examples an attack sees at once, and so what a mean over the batch
            means; default all of them. Training is explained on the first so many.
        seed: Seed of random starts and of dropout.
        progress: True: a bar on stderr. A callable is called with the number of attacks done and
            None.

    Returns:
        The explanation; its arrays are on the CPU.

    Raises:
        TypeError: As `torchfgsm.attack`; a side that is none of these; a library without defaults.
        ValueError: As `torchfgsm.attack`; an unknown library; a target without a targeted recipe or
            the reverse; bad weights, lengths or sizes. Before the model is called.
    """
    sides = _configuration("a", a), _configuration("b", b)
    if y is None:
        raise ValueError("explain measures loss and accuracy against the labels: y is missing")
    x, y, target = normal(x), normal(y), normal(target)
    given: dict[str, Any] = {
        "target": target, "loss_fn": loss_fn, "batch_size": batch_size, "seed": seed
    }  # fmt: skip
    attacks = BatchAttacks(model, x, y, model_output=model_output, **given)
    _check(attacks, sides, sample_weight)
    lengths = _lengths(sides, epsilons)
    with _reporting(progress, attacks):
        clean = attacks.clean()
        ends = [attacks.run(side.recipe) for side in sides]
        effects, singles = single_effects(attacks, *sides)
        steps = tuple(path(attacks, sides[0].recipe, sides[1].recipe))
        curves = [attacks.curve(side.recipe, lengths) for side in sides]
        traps = traps_of(attacks, *sides)
        training = explain_training(attacks, *sides, sample_weight=sample_weight)
    return Explanation(
        a=_side(sides[0], ends[0], curves[0]),
        b=_side(sides[1], ends[1], curves[1]),
        inputs={
            feature_name(name): as_array(value)
            for name, value in items(x).items()
            if isinstance(value, Tensor) and value.layout == torch.strided
        },
        labels=as_array(y),
        clean_predictions=clean.predictions,
        clean_loss=clean.loss,
        clean_accuracy=clean.accuracy,
        total=measure(ends[1], ends[0]),
        effects=effects,
        path=steps,
        remainder=remainder(ends[0], ends[1], singles),
        traps=traps,
        training=training,
        equal=_equal(*sides),
        facts=_facts(attacks),
    )


def _configuration(name: str, side: Any) -> Configuration:
    if isinstance(side, Configuration):
        return side
    if isinstance(side, Recipe):
        return Configuration(recipe=side)
    if isinstance(side, str):
        return Configuration.of(side)
    raise TypeError(
        f"{name} must be a Configuration, a Recipe or a library's name, got {type(side).__name__}"
    )


def _check(
    attacks: BatchAttacks, sides: Sequence[Configuration], sample_weight: Tensor | None
) -> None:
    """Refuses what cannot be explained, without a call of the model."""
    if attacks.model_output not in (None, *_OUTPUTS):
        raise ValueError(
            f"model_output must be 'logits', 'probabilities' or None, got {attacks.model_output!r}"
        )
    size = attacks.batch_size
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise ValueError(f"batch_size must be an int of at least 1, got {size!r}")
    targeted = any(side.recipe.targeted for side in sides)
    if targeted != (attacks.target is not None):
        what = "a targeted recipe needs target=" if targeted else "target= was given"
        raise ValueError(f"{what}, the recipes say targeted={targeted}")
    for name, side in zip("ab", sides, strict=True):
        if side.recipe.step is None:
            raise ValueError(f"side {name} has no length of a step: give its recipe a number")
        try:
            attacks.check(side.recipe)
        except (TypeError, ValueError) as error:
            raise type(error)(f"side {name}, {side.title}: {error}") from None
    if not isinstance(attacks.y, Tensor):
        raise TypeError(f"y must be a tensor, got {type(attacks.y).__name__}")
    check_labels(attacks.y, attacks.features, default_loss=attacks.loss_fn is None, values=True)
    if sample_weight is not None:
        TrainingLoss(None, "logits", sample_weight, values=True).check(len(attacks.y))
        if not any(side.library == "nsl" for side in sides):
            raise ValueError("sample_weight is NSL's, and neither side is NSL: leave it out")


def _lengths(sides: Sequence[Configuration], epsilons: Sequence[float] | None) -> tuple[float, ...]:
    """Lengths of the curve: those given, or a geometric row around both sides' own."""
    if epsilons is not None:
        wrong = [epsilon for epsilon in epsilons if not 0 <= epsilon < math.inf]
        if wrong:
            raise ValueError(f"epsilons must be finite and at least 0, got {wrong[0]!r}")
        return tuple(float(epsilon) for epsilon in epsilons)
    recipes = [side.recipe for side in sides]
    lengths = [r.step if r.epsilon is None else r.epsilon for r in recipes]
    own = [float(length) for length in lengths if length]
    own = [length for length in own if length > 0]
    if not own:
        return ()
    row = np.geomspace(min(own) / 2, max(own) * 2, _CURVE_POINTS)
    return tuple(sorted({*own, *(float(f"{length:.2g}") for length in row)}))


@contextlib.contextmanager
def _reporting(progress: Progress | bool | None, attacks: BatchAttacks) -> Iterator[None]:
    if not progress:
        yield
    elif progress is True:
        with Bar("explaining", "attacks") as bar:
            attacks.report = lambda done: bar(done, None)
            yield
    else:
        attacks.report = lambda done: progress(done, None)
        yield


def _side(
    configuration: Configuration, attacked: Attacked, curve: tuple[tuple[float, float], ...]
) -> Side:
    return Side(
        configuration=configuration,
        perturbations=attacked.perturbations,
        predictions=attacked.predictions,
        loss=attacked.loss,
        accuracy=attacked.accuracy,
        curve=curve,
    )


def _equal(a: Configuration, b: Configuration) -> tuple[Settings, ...]:
    """What makes b like a, and a like b."""
    if not a.library or not b.library or a.library == b.library:
        return ()
    return (_settings("b", a, b.library), _settings("a", b, a.library))


def _settings(side: Literal["a", "b"], like: Configuration, library: str) -> Settings:
    """The settings of one side's library that make it like the other side."""
    try:
        translation = translate(like, to=library)
    except TranslationError as error:
        return Settings(side, reason=str(error))
    return Settings(side, translation.code, translation.outside, translation.conditions)


def _facts(attacks: BatchAttacks) -> dict[str, Any]:
    head = {"head": attacks.model.logits} if hasattr(attacks.model, "found_heads") else {}
    return {
        "torchfgsm": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": str(attacks.features.tensors[0].device),
        "dtype": str(attacks.features.tensors[0].dtype).removeprefix("torch."),
        "examples": len(attacks.y),
        "batch_size": attacks.batch_size or len(attacks.y),
        "model_output": attacks.model_output,
        **head,
        "seed": attacks.seed,
        "attacks": len(attacks.found),
    }
