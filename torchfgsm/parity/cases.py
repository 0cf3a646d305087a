"""What is compared: one case is one call of one original, in the original's own words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from torchfgsm.libraries.configuration import LIBRARIES

# Steps and radii in the digits' unit, the range from 0 to 1.
_EPS = {"linf": 0.1, "l2": 0.5, "l1": 1.0}
_STEP = {"linf": 0.02, "l2": 0.1, "l1": 0.2}
NSL_WORDS = {"linf": "infinity", "l2": "l2", "l1": "l1"}
NUMPY_ORDERS: Mapping[str, float] = {"linf": math.inf, "l2": 2, "l1": 1}

_NO_TIES = "without a zero gradient and a tie, on which the original raises AssertionError"
_KERAS_LOSS: Mapping[str, Any] = MappingProxyType(
    {"class": "SparseCategoricalCrossentropy", "from_logits": True}
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One comparison.

    Attributes:
        name: Unique name, starting with the library's.
        library: One of `LIBRARIES`.
        kind: "perturb": adversarial examples; "train": training loss and parameter gradients, or
            one optimizer step; "function": a helper function on given arrays.
        params: The original's own parameters.
        model: Which of the demo's models: "digits", "digits-reshaped" (the same, its softmax
            followed by a reshape, so that nobody recovers the logits), "digits-batchnorm",
            "digits-two-inputs"; any name for a model of the user's.
        output: "logits" or "probabilities": what the original is given.
        labels: "true", "predicted" or "target" (the next class).
        dtype: "float32" or "float64", on both sides.
        loss: Keras loss of an NSL case.
        extras: Names of the arrays of `Data.extras` that the call gets.
        training: Whether the model runs in training mode (training cases).
        optimizer: {"sgd": rate} for one step, or None.
        note: What the reader of the table should know of this row.
    """

    name: str
    library: str
    kind: Literal["perturb", "train", "function"] = "perturb"
    params: Mapping[str, Any]
    model: str = "digits"
    output: Literal["logits", "probabilities"] = "logits"
    labels: Literal["true", "predicted", "target"] = "true"
    dtype: Literal["float32", "float64"] = "float32"
    loss: Mapping[str, Any] = field(default_factory=lambda: _KERAS_LOSS)
    extras: tuple[str, ...] = ()
    training: bool = False
    optimizer: Mapping[str, float] | None = None
    note: str = ""


def _nsl(name: str, norm: str | None = None, **options: Any) -> Case:
    """An NSL case; `norm` sets the norm and a step that fits it."""
    params = options.pop("params", {})
    if norm is not None:
        params = {"adv_grad_norm": NSL_WORDS[norm], "adv_step_size": _EPS[norm], **params}
    return Case(name=f"nsl / {name}", library="nsl", params=params, **options)


def _cleverhans(library: str, name: str, norm: str | None = None, **options: Any) -> Case:
    """A CleverHans case; the parameters are named as in the library."""
    params = options.pop("params", {})
    if norm is not None:
        order = "ord" if library == "cleverhans3" else "norm"
        params = {order: NUMPY_ORDERS[norm], "eps": _EPS[norm], **params}
    if options.get("labels") == "target" and library != "cleverhans3":
        params = {**params, "targeted": True}
    fgm = "FastGradientMethod" if library == "cleverhans3" else "fast_gradient_method"
    if options.get("kind", "perturb") == "perturb":
        params = {"attack": fgm, **params}
    return Case(name=f"{library} / {name}", library=library, params=params, **options)


def _nsl_cases() -> Iterator[Case]:
    yield _nsl("defaults")
    for norm in ("linf", "l2", "l1"):
        yield _nsl(norm, norm)
        yield _nsl(f"{norm}, float64", norm, dtype="float64")
        yield _nsl(
            f"{norm}, clipped probabilities",
            norm,
            model="digits-reshaped",
            output="probabilities",
            loss={"class": "SparseCategoricalCrossentropy", "from_logits": False},
        )
        yield _nsl(f"{norm}, lower clip", norm, extras=("clip_value_min",))
        yield _nsl(f"{norm}, upper clip", norm, extras=("clip_value_max",))
        yield _nsl(f"{norm}, tensor clip", norm, extras=("clip_tensor_min", "clip_tensor_max"))
        yield _nsl(f"{norm}, mask", norm, extras=("feature_mask",))
        yield _nsl(f"{norm}, sample weights", norm, extras=("w",))
        yield _nsl(f"{norm}, two inputs", norm, model="digits-two-inputs")
        yield _nsl(
            f"{norm}, two inputs, mask and clip of one",
            norm,
            model="digits-two-inputs",
            extras=("first_mask", "first_clip_min"),
        )
    yield _nsl("l2, fractional mask", "l2", extras=("fractional_mask",))
    yield _nsl("l2, sum over the batch", "l2", loss={**_KERAS_LOSS, "reduction": "sum"})
    yield _nsl("l2, negative step", "l2", params={"adv_step_size": -0.5})
    ten = {"pgd_iterations": 10}
    clip = ("clip_value_min", "clip_value_max")
    for norm in ("linf", "l2"):
        iterated = {**ten, "adv_step_size": _STEP[norm], "pgd_epsilon": _EPS[norm]}
        yield _nsl(f"{norm}, PGD-10", norm, params=iterated)
        yield _nsl(f"{norm}, PGD-10, clip", norm, params=iterated, extras=clip)
        yield _nsl(f"{norm}, PGD-10, float64", norm, params=iterated, dtype="float64")
    yield _nsl("l1, PGD-10 without a ball", "l1", params={**ten, "adv_step_size": 0.2})


def _cleverhans_cases() -> Iterator[Case]:
    yield _cleverhans("cleverhans3", "defaults", labels="predicted")
    yield _cleverhans("cleverhans-tf2", "defaults", "linf", labels="predicted")
    yield _cleverhans("cleverhans-torch", "defaults", "linf", labels="predicted")
    clip = {"clip_min": 0.0, "clip_max": 1.0}
    for library in LIBRARIES[1:]:
        for norm in ("linf", "l2", "l1"):
            for labels in ("true", "predicted", "target"):
                words = "target" if labels == "target" else f"{labels} labels"
                yield _cleverhans(library, f"{norm}, {words}", norm, labels=labels)
            yield _cleverhans(library, f"{norm}, clip", norm, params=clip)
            if library != "cleverhans-torch":
                extras = ("clip_min", "clip_max")
                yield _cleverhans(library, f"{norm}, tensor clip", norm, extras=extras)
            if library == "cleverhans3":
                params = {**clip, "clip_grad": True}
                yield _cleverhans(library, f"{norm}, clip_grad", norm, params=params)
        yield _cleverhans(
            library,
            "linf, probabilities taken for logits",
            "linf",
            model="digits-reshaped",
            output="probabilities",
            note="the port warns",
        )
        for norm in ("linf", "l2"):
            yield _cleverhans(library, f"{norm}, PGD-10", norm, params=_iterated(library, norm))
            params = {**_iterated(library, norm), **clip}
            yield _cleverhans(library, f"{norm}, PGD-10, clip", norm, params=params)
    yield _cleverhans("cleverhans3", "linf, float64", "linf", dtype="float64")


def _iterated(library: str, norm: str) -> dict[str, Any]:
    if library == "cleverhans3":
        return {"attack": "BasicIterativeMethod", "eps_iter": _STEP[norm], "nb_iter": 10}
    return {
        "attack": "projected_gradient_descent",
        "eps_iter": _STEP[norm],
        "nb_iter": 10,
        "rand_init": False,
    }


def _nsl_training_cases() -> Iterator[Case]:
    for norm in ("l2", "linf", "l1"):
        yield _nsl(f"training, {norm}", norm, kind="train", params={"multiplier": 0.2})
    yield _nsl("training, defaults", kind="train")
    yield _nsl("training, sample weights", "l2", kind="train", extras=("w_column",))
    yield _nsl("training, float64", "l2", kind="train", dtype="float64")
    yield _nsl(
        "training, label smoothing",
        "l2",
        kind="train",
        labels="true",
        loss={
            "class": "CategoricalCrossentropy",
            "from_logits": True,
            "label_smoothing": 0.1,
        },
    )
    yield _nsl(
        "training step, BatchNorm in training mode",
        "l2",
        kind="train",
        model="digits-batchnorm",
        training=True,
        optimizer={"sgd": 0.1},
    )


def _cleverhans_training_cases() -> Iterator[Case]:
    def training(name: str, params: Mapping[str, Any], **options: Any) -> Case:
        return _cleverhans("cleverhans3", f"training{name}", params=params, kind="train", **options)

    for norm in ("linf", "l2", "l1"):
        for pass_y, words in ((True, "true"), (False, "predicted")):
            params = {**_attack(norm), "pass_y": pass_y, "adv_coeff": 0.5}
            yield training(f", {norm}, {words} labels", params)
    given = {**_attack("l2"), "pass_y": True}
    yield training(", adversarial examples only", {**given, "adv_coeff": 1.0})
    yield training(", adv_coeff 0.3", {**given, "adv_coeff": 0.3})
    yield training(", label smoothing", {**given, "smoothing": 0.1})
    yield training(", weight decay", {**_attack("linf"), "pass_y": True, "weight_decay": 0.01})
    iterated = {**given["attack_params"], "eps_iter": 0.1, "nb_iter": 5}
    params = {**given, "attack": "BasicIterativeMethod", "attack_params": iterated}
    yield training(", l2, BIM-5", params)
    yield training(
        " step, BatchNorm in training mode",
        given,
        model="digits-batchnorm",
        training=True,
        optimizer={"sgd": 0.1},
        note="CleverHans leaves a Keras BatchNormalization's moving statistics as they are, a "
        "fault that is not copied; all other weights are compared",
    )


def _attack(norm: str) -> dict[str, Any]:
    params = {"eps": _EPS[norm], "ord": NUMPY_ORDERS[norm]}
    return {"attack": "FastGradientMethod", "attack_params": params}


def _function_cases() -> Iterator[Case]:
    def function(library: str, name: str, norm: str | None = None, **params: Any) -> Case:
        words: Mapping[str, Any] = NSL_WORDS if library == "nsl" else NUMPY_ORDERS
        if norm is not None:
            params["norm"] = words[norm]
        return Case(
            name=f"{library} / {name}" + (f", {norm}" if norm else ""),
            library=library,
            kind="function",
            params={"function": name, **params},
            note=_NO_TIES
            if (library, name, norm) == ("cleverhans-torch", "direction", "l1")
            else "",
        )

    for library in LIBRARIES:
        for norm in ("linf", "l2", "l1"):
            yield function(library, "direction", norm)
            # Only CleverHans 3 projects to L1 balls.
            if norm != "l1" or library == "cleverhans3":
                yield function(library, "project", norm, radius=2.0)
            if library == "nsl":
                yield function(library, "normalize", norm)
    yield function("nsl", "apply_feature_mask")
    yield function("cleverhans3", "zero_out_clipped_grads")
    yield function("cleverhans-torch", "zero_out_clipped_grads")


def all_cases() -> list[Case]:
    """Every case, each original at its own defaults and across."""
    cases = [
        *_function_cases(),
        *_nsl_cases(),
        *_cleverhans_cases(),
        *_nsl_training_cases(),
        *_cleverhans_training_cases(),
    ]
    names = [case.name for case in cases]
    if len(set(names)) != len(names):
        raise ValueError("two cases have the same name")
    return cases


def main_cases() -> list[Case]:
    """The cases of the demo: what a newcomer should see, in under a minute."""
    left_out = ("float64", "tensor clip", "upper clip", "fractional", "target", "negative", "sum")
    cases = all_cases()
    return [
        case
        for case in cases
        if not any(words in case.name for words in left_out)
        and not (case.kind == "function" and case.library != "nsl")
        and not ("PGD-10" in case.name and "linf" in case.name and "clip" not in case.name)
    ]


def norm_of(case: Case) -> str:
    """This package's name of a case's norm."""
    params = {**case.params, **case.params.get("attack_params", {})}
    default: Any = "l2" if case.library == "nsl" else math.inf
    for key in ("adv_grad_norm", "ord", "norm"):
        default = params.get(key, default)
    names: dict[Any, str] = {
        word: name for name, word in (*NSL_WORDS.items(), *NUMPY_ORDERS.items())
    }
    return names[default]
