"""What is drawn: one configuration of one library, and a batch for one of the drawn models.

Every draw has a generator of its own, of seed and number, so that it can be drawn again alone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.evidence.differential_batches import OF_ROWS, Batch, batch
from benchmarks.evidence.differential_models import Architecture
from torchfgsm.parity.cases import NSL_WORDS, NUMPY_ORDERS, Case

_NORMS = ("linf", "linf", "l2", "l2", "l1")
_LENGTHS = {"linf": 0.1, "l2": 0.5, "l1": 1.0}
_SINGLE_INPUT = ("nsl", "cleverhans3", "cleverhans-tf2", "cleverhans-torch")


@dataclass(frozen=True)
class Draw:
    """One configuration, and what it runs on.

    Attributes:
        number: Which draw of the seed.
        model: Index of its model.
        case: The configuration.
        batch: The batch.
    """

    number: int
    model: int
    case: Case
    batch: Batch

    @property
    def text(self) -> str:
        """The configuration in a line."""
        case, defaults = self.case, Case(name="", library="", params={})
        shown = {"params": dict(case.params)} | {
            key: getattr(case, key)
            for key in ("kind", "output", "labels", "dtype", "loss", "extras")
            if getattr(case, key) != getattr(defaults, key)
        }
        words = ", ".join(f"{key} {value}" for key, value in shown.items())
        return f"{case.library}: {words}, {len(self.batch.y)} examples, model {self.model}"


def draw(seed: int, number: int, model: int, architecture: Architecture) -> Draw:
    """The draw of a number, on a model."""
    rng = random.Random(f"draw {seed} {number}")
    library = "nsl" if len(architecture.inputs) > 1 else rng.choice(_SINGLE_INPUT)
    norm = rng.choice(_NORMS)
    case = _nsl(rng, norm) if library == "nsl" else _cleverhans(rng, library, norm)
    # Of NaN the two frameworks' gradients of ReLU differ.
    hostile = case.kind == "perturb" and not architecture.kinked
    numbers = np.random.default_rng([seed, number])
    drawn = batch(rng, numbers, architecture, hostile=hostile)
    return Draw(number, model, replace(case, name=f"{number}", model=f"{model}"), drawn)


def _chance(rng: random.Random, share: float) -> bool:
    return rng.random() < share


def _length(rng: random.Random, norm: str) -> float:
    return _LENGTHS[norm] * rng.choice([0.1, 0.5, 1.0, 1.0, 3.0])


def _nsl(rng: random.Random, norm: str) -> Case:
    params: dict[str, Any] = {"adv_grad_norm": NSL_WORDS[norm]}
    step = _length(rng, norm)
    params["adv_step_size"] = rng.choice([step] * 8 + [-step, 0.0])
    if _chance(rng, 0.4):
        params["pgd_iterations"] = rng.choice([1, 2, 2, 3, 4])
        if norm != "l1" or _chance(rng, 0.1):
            params["pgd_epsilon"] = step * rng.choice([0.0, 0.5, 1.0, 1.5, 2.5, 2.5])
    for name in ("adv_grad_norm", "adv_step_size"):
        if _chance(rng, 0.05):
            del params[name]
    if _chance(rng, 0.02):
        params["adv_grad_norm"] = rng.choice(["L2", "inf", "l3"])
    train = _chance(rng, 0.2)
    if train:
        params["multiplier"] = rng.choice([0.0, 0.2, 1.0, 3.0])
    loss, output = _loss(rng)
    return Case(
        name="",
        library="nsl",
        kind="train" if train else "perturb",
        params=params,
        output=output,  # type: ignore[arg-type]
        dtype="float64" if _chance(rng, 0.2) else "float32",
        loss=loss,
        extras=_extras(rng, train=train),
    )


def _extras(rng: random.Random, *, train: bool) -> tuple[str, ...]:
    """Masks, bounds and weights of an NSL case."""
    masks = [""] * 6 + ["mask", "mask", "fractional mask", "fractional mask", "first mask"]
    mask = "wide mask" if _chance(rng, 0.01) else rng.choice(masks)
    low = rng.choice(["", "", "", "low", "low", "low tensor", "first low"])
    high = rng.choice(["", "", "", "high", "high", "high tensor"])
    weights = ("w_column" if train else "w") if _chance(rng, 0.25) else ""
    return tuple(name for name in (mask, low, high, weights) if name)


def _loss(rng: random.Random) -> tuple[dict[str, Any], str]:
    """A Keras loss, and what output of the model it takes."""
    output = "probabilities" if _chance(rng, 0.2) else "logits"
    sparse = "SparseCategoricalCrossentropy"
    loss: dict[str, Any] = {"class": rng.choice([sparse, sparse, sparse, *OF_ROWS])}
    if loss["class"] != "MeanSquaredError":
        loss["from_logits"] = output == "logits"
    if loss["class"] in ("CategoricalCrossentropy", "BinaryCrossentropy") and _chance(rng, 0.4):
        loss["label_smoothing"] = rng.choice([0.1, 0.3])
    if _chance(rng, 0.35):
        loss["reduction"] = rng.choice(["sum", "sum", "sum_over_batch_size"])
    return loss, output


def _cleverhans(rng: random.Random, library: str, norm: str) -> Case:
    if library == "cleverhans3" and _chance(rng, 0.15):
        return _cleverhans3_training(rng, norm)
    iterated = _chance(rng, 0.05 if norm == "l1" else 0.45)
    params: dict[str, Any] = {"attack": _attack(rng, library, iterated=iterated)}
    params["ord" if library == "cleverhans3" else "norm"] = (
        3 if _chance(rng, 0.01) else NUMPY_ORDERS[norm]
    )
    length = _length(rng, norm)
    # CleverHans 4's torch part refuses a negative one, PGD any with a positive step.
    negative = 0.02 if iterated or library == "cleverhans-torch" else 0.1
    params["eps"] = -length if _chance(rng, negative) else rng.choice([length] * 12 + [0.0])
    if iterated:
        # Refused where it is longer than eps.
        share = 1.3 if _chance(rng, 0.03) else rng.choice([0.3, 0.5, 0.5, 1.0])
        params["eps_iter"] = abs(params["eps"]) * rng.choice([share] * 8 + [-share, 0.0])
        params["nb_iter"] = rng.choice([0, 1, 2, 2, 3, 4])
        params["rand_init"] = False
        if library == "cleverhans3" and params["attack"] == "BasicIterativeMethod":
            del params["rand_init"]
    extras = _bounds(rng, library, params)
    labels = rng.choice(["true", "true", "predicted", "target"])
    if labels == "target" and library != "cleverhans3":
        params["targeted"] = True
    # Its attacks of other norms, and iterated ones, fail on float64; a few are drawn.
    fits = norm == "linf" and not iterated
    double = library == "cleverhans3" and _chance(rng, 0.4 if fits else 0.03)
    return Case(
        name="",
        library=library,
        params=params,
        output="probabilities" if _chance(rng, 0.1) else "logits",
        labels=labels,  # type: ignore[arg-type]
        dtype="float64" if double else "float32",
        extras=extras,
    )


def _attack(rng: random.Random, library: str, *, iterated: bool) -> str:
    if library != "cleverhans3":
        return "projected_gradient_descent" if iterated else "fast_gradient_method"
    several = ["ProjectedGradientDescent", "BasicIterativeMethod"]
    return rng.choice(several) if iterated else "FastGradientMethod"


def _bounds(rng: random.Random, library: str, params: dict[str, Any]) -> tuple[str, ...]:
    """Sets clip bounds, clip_grad and sanity checks; names bounds that are tensors."""
    extras: tuple[str, ...] = ()
    kind = rng.choice(["none", "none", "numbers", "numbers", "numbers", "tensors"])
    if _chance(rng, 0.03):
        kind = rng.choice(["low alone", "high alone", "reversed"])
    if kind == "tensors" and library != "cleverhans-torch":
        extras = ("clip_min", "clip_max")
    elif kind in ("numbers", "tensors"):
        params |= {"clip_min": 0.0, "clip_max": rng.choice([1.0, 1.0, 0.75])}
    elif kind == "low alone":
        params["clip_min"] = 0.0
    elif kind == "high alone":
        params["clip_max"] = 1.0
    elif kind == "reversed":
        params |= {"clip_min": 1.0, "clip_max": 0.0}
    if library == "cleverhans3" and _chance(rng, 0.3 if extras or kind == "numbers" else 0.02):
        params["clip_grad"] = True
    # Data on a bound or beyond it are drawn too, which the checks refuse.
    checks = {} if _chance(rng, 0.3) else {"sanity_checks": _chance(rng, 0.15)}
    params.update(checks)
    return extras


def _cleverhans3_training(rng: random.Random, norm: str) -> Case:
    attack_params: dict[str, Any] = {"eps": _length(rng, norm), "ord": NUMPY_ORDERS[norm]}
    attack = "FastGradientMethod"
    if norm != "l1" and _chance(rng, 0.3):
        attack = "BasicIterativeMethod"
        attack_params |= {"eps_iter": attack_params["eps"] / 2, "nb_iter": rng.choice([1, 2, 3])}
    params: dict[str, Any] = {"attack": attack, "attack_params": attack_params}
    params["pass_y"] = _chance(rng, 0.5)
    params["adv_coeff"] = rng.choice([0.0, 0.3, 0.5, 1.0])
    if _chance(rng, 0.4):
        params["smoothing"] = rng.choice([0.1, 0.3])
    return Case(name="", library="cleverhans3", kind="train", params=params)
