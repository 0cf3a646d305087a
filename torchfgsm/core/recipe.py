"""Every choice on which the libraries differ in making a perturbation, as frozen data."""

from __future__ import annotations

import dataclasses
import math
import numbers
import operator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

from torchfgsm.core.presets import Norm, Presets, known_norm


@dataclass(frozen=True, kw_only=True)
class Recipe(Presets):
    """One way of making adversarial examples; the libraries are presets of it.

    The defaults are this package's own (`torchfgsm.fgsm`). The model, the loss function, labels
    and tensors of masks and bounds are not part of a recipe: they are given to the call.

    Attributes:
        labels: "given": labels are required (NSL). "predicted": the model's own prediction unless
            labels are given (CleverHans).
        ties: Prediction with several equal maxima: the "first" class (CleverHans 4), or the
            probability "shared" evenly among them (CleverHans 3).
        targeted: Labels are targets to move towards; the loss changes its sign.
        model_output: What the default loss takes the model's output for: "logits";
            "probabilities" clipped at 1e-7 as in Keras; or "with_head", whatever the original
            model gives, its softmax or sigmoid with it, taken for logits (CleverHans 4): a head
            that a conversion cut off is put back. Without such a head it is "logits".
        reduction: How per-example losses become the scalar that is differentiated: "sum" (an
            example does not see its batch) or "mean" (the gradient shrinks with the batch size,
            which shows where the L2 guard applies).
        nonfinite: A NaN or infinite entry of the gradient: "zero" before everything else (NSL),
            "propagate" (TensorFlow: the sign of NaN is NaN), or "ignore" (PyTorch: the sign of
            NaN is 0; under L2 and L1 it propagates).
        zero_gradient: An example whose gradient is all zero: "stay" where it is, or "refuse".
        missing_gradient: A feature without a path to the loss: "stay" unchanged and unclipped, or
            "refuse".
        clip_grad: Gradient entries whose step would be clipped away count as 0 (CleverHans 3).
        norm: The norm of the step and of the ball; numpy.inf, "infinity", 2 and the like too.
        guard: Floor under the squared L2 norm by which a gradient is divided. 0: none is needed,
            the gradient is scaled first; only an all-zero gradient gives no step.
        joint: The norm is taken over all features of an example together (NSL).
        scalar_examples: Input of shape (N,): "each" entry is an example, or the batch is one
            "joint" vector (CleverHans 4's torch port).
        step: Length of one step in the norm, in the input's units; None: given to the call as a
            tensor.
        iterations: Number of steps; one is FGSM.
        epsilon: Radius of the ball around the input to which each iterate is projected; None: no
            projection.
        order: "project_clip": the perturbation is projected, then the sum clipped (NSL).
            "clip_project_clip": the step is clipped, its perturbation projected, then the sum
            clipped again; with a projection the start is clipped too (CleverHans).
        random_start: "none"; "uniform" in the ball; "cube" uniform in the L-inf ball whatever the
            norm (CleverHans 4's torch port); "biased_l1" as "uniform" but with the off-centre L1
            draw of CleverHans 3 and 4's TensorFlow ports (Laplace noise with mean 1).
        random_radius: Radius of the random start; None: `epsilon`, or `step` without one.
        clip_min: Smallest value of the input's range, or None.
        clip_max: Largest value of the input's range, or None.
        one_sided_clip: A range with one side only is "allowed" (NSL) or "refused" (CleverHans).
        crossed_clip: clip_min > clip_max: "refuse", or the value that the original gives: the
            "max" (NSL) or the "min" (CleverHans in TensorFlow).
        through_perturbation: The training gradient may flow through the perturbation (CleverHans 3
            and 4's tf2 under L2: a second-order term).
        model_mode: "eval" during the attack; "keep" each submodule's own mode, statistics put back
            afterwards; "keep_and_update" the same but BatchNorm statistics stay updated.
    """

    labels: Literal["given", "predicted"] = "predicted"
    ties: Literal["first", "shared"] = "first"
    targeted: bool = False
    model_output: Literal["logits", "probabilities", "with_head"] = "logits"
    reduction: Literal["sum", "mean"] = "sum"
    nonfinite: Literal["zero", "propagate", "ignore"] = "zero"
    zero_gradient: Literal["stay", "refuse"] = "stay"
    missing_gradient: Literal["stay", "refuse"] = "refuse"
    clip_grad: bool = False
    norm: Norm = "linf"
    guard: float = 0.0
    joint: bool = True
    scalar_examples: Literal["each", "joint"] = "each"
    step: float | None
    iterations: int = 1
    epsilon: float | None = None
    order: Literal["project_clip", "clip_project_clip"] = "project_clip"
    random_start: Literal["none", "uniform", "cube", "biased_l1"] = "none"
    random_radius: float | None = None
    clip_min: float | None = None
    clip_max: float | None = None
    one_sided_clip: Literal["allowed", "refused"] = "allowed"
    crossed_clip: Literal["refuse", "max", "min"] = "refuse"
    through_perturbation: bool = False
    model_mode: Literal["eval", "keep", "keep_and_update"] = "eval"

    def __post_init__(self) -> None:
        if self.norm not in _CHOICES["norm"]:  # the libraries' words for a norm
            object.__setattr__(self, "norm", known_norm(self.norm) or self.norm)
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(
                    f"Recipe.{name} must be one of {', '.join(map(repr, choices))}, got {value!r}"
                )
        for name in ("step", "epsilon", "random_radius", "clip_min", "clip_max", "guard"):
            _check_number(name, getattr(self, name), minimum=_SMALLEST.get(name))
        if operator.index(self.iterations) < 0:
            raise ValueError(f"Recipe.iterations must be at least 0, got {self.iterations}")
        if (
            self.crossed_clip == "refuse"
            and self.clip_min is not None
            and self.clip_max is not None
            and self.clip_min > self.clip_max
        ):
            raise ValueError(f"clip_min {self.clip_min} is above clip_max {self.clip_max}")

    def diff(self, other: Recipe) -> dict[str, tuple[Any, Any]]:
        """The fields on which two recipes differ.

        Args:
            other: The recipe to compare with.

        Returns:
            Field name -> (own value, the other's value), in the order of the fields.
        """
        pairs = {
            field.name: (getattr(self, field.name), getattr(other, field.name))
            for field in dataclasses.fields(self)
        }
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


_SMALLEST = {"epsilon": 0.0, "random_radius": 0.0, "guard": 0.0}
_CHOICES: dict[str, tuple[object, ...]] = {
    name: get_args(hint)
    for name, hint in get_type_hints(Recipe).items()
    if getattr(hint, "__origin__", None) is Literal
}


def _check_number(name: str, value: object, *, minimum: float | None) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"Recipe.{name} must be a number or None, got {type(value).__name__}; tensors are "
            "given to the call"
        )
    if not -math.inf < float(value) < math.inf:  # not isfinite, which torch.compile cannot trace
        # Infinite bounds are bounds that never apply; an infinite step or ball is a mistake.
        if name in ("clip_min", "clip_max") and not math.isnan(value):
            return
        raise ValueError(f"Recipe.{name} must be finite, got {value!r}")
    if minimum is not None and value < minimum:
        raise ValueError(f"Recipe.{name} must be at least {minimum}, got {value!r}")
