"""FGSM, PGD and adversarial losses that mirror TensorFlow's NSL and CleverHans, in PyTorch."""

from torchfgsm.attacks import attack, fgsm, perturb, pgd
from torchfgsm.graphs import CapturedAttack, capture
from torchfgsm.recipe import Recipe
from torchfgsm.version import __version__
from torchfgsm.weighting import Weighting

__all__ = [
    "CapturedAttack",
    "Recipe",
    "Weighting",
    "__version__",
    "attack",
    "capture",
    "fgsm",
    "perturb",
    "pgd",
]
