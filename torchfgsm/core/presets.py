"""Each library as a preset of `Recipe`, with its own parameter names and defaults."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeVar

Norm = Literal["linf", "l2", "l1"]
R = TypeVar("R", bound="Presets")

# The originals' own names for a norm.
NSL_WORDS: Mapping[Norm, str] = MappingProxyType({"linf": "infinity", "l2": "l2", "l1": "l1"})
NUMPY_ORDERS: Mapping[Norm, float] = MappingProxyType({"linf": math.inf, "l2": 2, "l1": 1})
_OTHER_WORDS: Mapping[str, Norm] = MappingProxyType(
    {"inf": "linf", "infinity": "linf", "2": "l2", "1": "l1"}
)
_STARTS = ("numpy.", "np.", "math.", "torch.", "l_", "l-")

# Floor under the squared L2 norm in all four originals (NSL writes it as epsilon ** 2, 1e-6).
_ORIGINALS_GUARD = 1e-12


def known_norm(word: object) -> Norm | None:
    """The norm that a word or number stands for, None where it stands for none.

    Args:
        word: This package's names, NSL's words and `NormType`, numpy's orders, and any of these as
            text: "linf", "inf", "np.inf", "infinity", numpy.inf, "L2", "2", 2.
    """
    word = getattr(word, "value", word)
    if isinstance(word, str):
        name = word.strip().lower()
        for start in _STARTS:
            name = name.removeprefix(start)
        return next((norm for norm in NSL_WORDS if norm == name), _OTHER_WORDS.get(name))
    if isinstance(word, bool):
        return None
    if isinstance(word, numbers.Real):
        return next((norm for norm, order in NUMPY_ORDERS.items() if order == word), None)
    return None


class Presets:
    """The presets of `torchfgsm.Recipe`, whose fields these choose."""

    def __init__(self, **fields: Any) -> None:
        """Takes a recipe's fields; `Recipe` has its own."""
        raise TypeError("Presets are made as torchfgsm.Recipe")

    @classmethod
    def nsl(
        cls: type[R],
        adv_step_size: float | None = 0.001,
        adv_grad_norm: object = "l2",
        clip_value_min: float | None = None,
        clip_value_max: float | None = None,
        pgd_iterations: int = 1,
        pgd_epsilon: float | None = None,
        random_init: bool = False,
    ) -> R:
        """NSL 1.4.0 with the names and defaults of `nsl.configs.AdvNeighborConfig`.

        Its feature mask and bounds given as tensors go to the call. NSL takes at least one step,
        or none after a random start when `pgd_iterations` is 0.

        Args:
            adv_step_size: Length of a step.
            adv_grad_norm: "infinity", "l2", "l1", or `torchfgsm.nsl.NormType`; the words of the
                other libraries too, here as in the other presets.
            clip_value_min: Smallest value of the features.
            clip_value_max: Largest value of the features.
            pgd_iterations: Number of steps.
            pgd_epsilon: Radius of the ball, or None.
            random_init: Start at a random point of the ball.

        Raises:
            ValueError: An unknown norm.
        """
        norm = known_norm(adv_grad_norm)
        if norm is None:
            raise ValueError(
                f"NSL's adv_grad_norm must be 'l1', 'l2', 'infinity' or a NormType, "
                f"got {adv_grad_norm!r}"
            )
        return cls(
            labels="given",
            reduction="mean",
            nonfinite="zero",
            missing_gradient="stay",
            norm=norm,
            guard=_ORIGINALS_GUARD,
            joint=True,
            step=adv_step_size,
            iterations=pgd_iterations if random_init else max(pgd_iterations, 1),
            epsilon=pgd_epsilon,
            order="project_clip",
            random_start="uniform" if random_init else "none",
            clip_min=clip_value_min,
            clip_max=clip_value_max,
            crossed_clip="max",
        )

    @classmethod
    def cleverhans3(
        cls: type[R],
        eps: float | None = 0.3,
        eps_iter: float | None = 0.05,
        nb_iter: int | None = None,
        ord: object = math.inf,
        clip_min: float | None = None,
        clip_max: float | None = None,
        rand_init: bool | None = None,
        rand_init_eps: float | None = None,
        clip_grad: bool = False,
        targeted: bool = False,
    ) -> R:
        """CleverHans 3.1.0 with the names and defaults of `parse_params`.

        Without `nb_iter` it is one step of `FastGradientMethod`; with it `ProjectedGradientDescent`
        (whose own default is 10 iterations from a random start).

        Args:
            eps: Length of the step, or radius of the ball when iterated.
            eps_iter: Length of one step when iterated.
            nb_iter: Number of iterations.
            ord: numpy.inf, 1 or 2.
            clip_min: Smallest value of the input.
            clip_max: Largest value of the input.
            rand_init: Random start when iterated; None means True, as in `MadryEtAl`.
            rand_init_eps: Radius of the random start; None: eps.
            clip_grad: Ignore gradient entries whose step would be clipped away.
            targeted: The labels are targets (`y_target`).

        Raises:
            ValueError: An unknown norm.
            NotImplementedError: Iterated steps under L1, as in the original.
        """
        return cls._cleverhans(
            eps=eps,
            eps_iter=eps_iter,
            nb_iter=nb_iter,
            order=ord,
            clip=(clip_min, clip_max),
            random_radius=rand_init_eps,
            targeted=targeted,
            ties="shared",
            random_start="biased_l1" if rand_init is None or rand_init else "none",
            clip_grad=clip_grad,
            through_perturbation=True,
            # Iterated steps check their own input, whatever sanity_checks says of the first.
            crossed_clip="refuse" if nb_iter else "min",
        )

    @classmethod
    def cleverhans_tf2(
        cls: type[R],
        eps: float | None,
        norm: object,
        eps_iter: float | None = None,
        nb_iter: int | None = None,
        clip_min: float | None = None,
        clip_max: float | None = None,
        targeted: bool = False,
        rand_init: bool | None = None,
        rand_minmax: float | None = None,
    ) -> R:
        """CleverHans 4.0.0's TensorFlow 2 port: `cleverhans.tf2.attacks`.

        Without `nb_iter` it is `fast_gradient_method`, with it `projected_gradient_descent`.

        Raises:
            ValueError: An unknown norm.
            NotImplementedError: Iterated steps under L1, as in the original.
        """
        return cls._cleverhans(
            eps=eps,
            eps_iter=eps_iter,
            nb_iter=nb_iter,
            order=norm,
            clip=(clip_min, clip_max),
            random_radius=rand_minmax,
            targeted=targeted,
            model_output="with_head",
            random_start="biased_l1" if rand_init else "none",
            through_perturbation=True,
            crossed_clip="min",
        )

    @classmethod
    def cleverhans_torch(
        cls: type[R],
        eps: float | None,
        norm: object,
        eps_iter: float | None = None,
        nb_iter: int | None = None,
        clip_min: float | None = None,
        clip_max: float | None = None,
        targeted: bool = False,
        rand_init: bool = True,
        rand_minmax: float | None = None,
    ) -> R:
        """CleverHans 4.0.0's PyTorch port: `cleverhans.torch.attacks`.

        Without `nb_iter` it is `fast_gradient_method`, with it `projected_gradient_descent`.

        Raises:
            ValueError: An unknown norm, a negative eps or eps_iter, or clip_min > clip_max.
            NotImplementedError: Iterated steps under L1, as in the original.
        """
        for name, value in (("eps", eps), ("eps_iter", eps_iter)):
            if value is not None and value < 0:
                raise ValueError(f"{name} must be greater than or equal to 0, got {value}")
        return cls._cleverhans(
            eps=eps,
            eps_iter=eps_iter,
            nb_iter=nb_iter,
            order=norm,
            clip=(clip_min, clip_max),
            random_radius=rand_minmax,
            targeted=targeted,
            model_output="with_head",
            reduction="mean",
            nonfinite="ignore",
            scalar_examples="joint",
            random_start="cube" if rand_init else "none",
            model_mode="keep",
        )

    @classmethod
    def _cleverhans(
        cls: type[R],
        *,
        eps: float | None,
        eps_iter: float | None,
        nb_iter: int | None,
        order: object,
        clip: tuple[float | None, float | None],
        random_start: str,
        random_radius: float | None,
        **choices: Any,
    ) -> R:
        """What the three CleverHans ports share: one FGM step, or PGD when iterated."""
        norm = known_norm(order)
        if norm is None:
            raise ValueError(f"CleverHans' norm must be numpy.inf, 1 or 2, got {order!r}")
        iterated = nb_iter is not None
        if iterated and norm == "l1":
            raise NotImplementedError(
                "CleverHans' projected gradient descent does not take norm 1: one L1 step moves a "
                "single entry. Use linf or l2, or this package's own torchfgsm.pgd(norm='l1')"
            )
        starts_at_random = iterated and random_start != "none"
        return cls(
            norm=norm,
            guard=_ORIGINALS_GUARD,
            joint=False,
            step=eps_iter if iterated else eps,
            iterations=nb_iter if iterated else 1,
            epsilon=eps if iterated else None,
            order="clip_project_clip",
            random_start=random_start if starts_at_random else "none",
            random_radius=random_radius if starts_at_random else None,
            clip_min=clip[0],
            clip_max=clip[1],
            one_sided_clip="refused",
            **{"nonfinite": "propagate", **choices},
        )
