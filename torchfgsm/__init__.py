"""FGSM, PGD and adversarial losses that mirror TensorFlow's NSL and CleverHans, in PyTorch."""

from torchfgsm.attacks import attack, fgsm, perturb, pgd
from torchfgsm.configuration import Configuration
from torchfgsm.evaluation import evaluate
from torchfgsm.explanation import Explanation, explain
from torchfgsm.graphs import CapturedAttack, capture
from torchfgsm.output_form import OutputForm
from torchfgsm.recipe import Recipe
from torchfgsm.robust_report import RobustReport
from torchfgsm.training import AdversarialLosses, adversarial_loss, adversarial_step
from torchfgsm.translation import Translation, TranslationError, translate
from torchfgsm.version import __version__
from torchfgsm.weighting import Weighting

__all__ = [
    "AdversarialLosses",
    "CapturedAttack",
    "Configuration",
    "Explanation",
    "OutputForm",
    "Recipe",
    "RobustReport",
    "Translation",
    "TranslationError",
    "Weighting",
    "__version__",
    "adversarial_loss",
    "adversarial_step",
    "attack",
    "capture",
    "evaluate",
    "explain",
    "fgsm",
    "perturb",
    "pgd",
    "translate",
]
