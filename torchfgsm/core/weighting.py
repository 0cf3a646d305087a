"""How the clean and the adversarial loss are weighted against each other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

Loss = TypeVar("Loss", Tensor, float)


@dataclass(frozen=True)
class Weighting:
    """The training loss is `clean * L(x) + adversarial * L(x_adv)`.

    NSL weighs `1 : multiplier`, CleverHans 3 weighs `(1 - adv_coeff) : adv_coeff`. Both train
    towards the same optimum when `multiplier = adv_coeff / (1 - adv_coeff)`; NSL's loss is then
    `1 / (1 - adv_coeff)` times CleverHans'. With SGD that factor scales the learning rate; with
    Adam it scales epsilon alone.

    Attributes:
        clean: Factor of the loss on the clean examples.
        adversarial: Factor of the loss on the adversarial examples.

    Raises:
        ValueError: A factor is not a finite number.
    """

    clean: float
    adversarial: float

    def __post_init__(self) -> None:
        for name, value in (("clean", self.clean), ("adversarial", self.adversarial)):
            if not math.isfinite(value):
                raise ValueError(f"Weighting.{name} must be a finite number, got {value!r}")

    @classmethod
    def from_nsl(cls, multiplier: float = 0.2) -> Weighting:
        """The weighting of `nsl.configs.AdvRegConfig(multiplier=...)`: `1 : multiplier`."""
        return cls(1.0, float(multiplier))

    @classmethod
    def from_cleverhans(cls, adv_coeff: float = 0.5) -> Weighting:
        """The weighting of `cleverhans.loss.CrossEntropy(adv_coeff=...)`."""
        return cls(1.0 - float(adv_coeff), float(adv_coeff))

    def to_nsl(self) -> float:
        """NSL's `multiplier` with the same ratio (the overall scale is `clean`).

        Raises:
            ValueError: The clean loss has weight 0: no multiplier leaves the clean loss out.
        """
        if self.clean == 0:
            raise ValueError(
                "a weighting without the clean loss (adv_coeff = 1, adversarial examples only) has "
                "no NSL multiplier: NSL always adds the clean loss with weight 1"
            )
        return self.adversarial / self.clean

    def to_cleverhans(self) -> float:
        """CleverHans' `adv_coeff` with the same ratio (the overall scale is `clean + adversarial`).

        Raises:
            ValueError: The two weights cancel, so that no coefficient has their ratio.
        """
        total = self.clean + self.adversarial
        if total == 0:
            raise ValueError(
                f"the weights {self.clean} and {self.adversarial} cancel: CleverHans' weights "
                "(1 - adv_coeff) and adv_coeff always add up to 1"
            )
        return self.adversarial / total

    def combine(self, clean_loss: Loss | None, adversarial_loss: Loss) -> Loss:
        """The weighted training loss.

        Args:
            clean_loss: The loss on clean examples; may be None when its weight is 0, so that its
                forward pass can be saved (as CleverHans 3 does at `adv_coeff = 1`).
            adversarial_loss: The loss on adversarial examples.

        Returns:
            `clean * clean_loss + adversarial * adversarial_loss`.

        Raises:
            ValueError: `clean_loss` is None although its weight is not 0.
        """
        if clean_loss is None:
            if self.clean != 0:
                raise ValueError(f"the clean loss has weight {self.clean} but was not given")
            return self.adversarial * adversarial_loss
        return self.clean * clean_loss + self.adversarial * adversarial_loss
