"""FGSM, PGD and adversarial losses that mirror TensorFlow's NSL and CleverHans, in PyTorch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import torchfgsm.kernel  # noqa: F401 - what moves CUDA tensors, registered with the engine
from torchfgsm.core.attacks import attack, fgsm, perturb, pgd
from torchfgsm.core.recipe import Recipe
from torchfgsm.core.weighting import Weighting
from torchfgsm.graphs.captured_attack import CapturedAttack, capture
from torchfgsm.losses.output_form import OutputForm
from torchfgsm.training.step import AdversarialLosses, adversarial_loss, adversarial_step
from torchfgsm.version import __version__

if TYPE_CHECKING:
    from torchfgsm.evaluation.evaluating import evaluate
    from torchfgsm.evaluation.report import RobustReport
    from torchfgsm.explanation import Explanation, explain
    from torchfgsm.libraries.configuration import Configuration
    from torchfgsm.translation import Translation, TranslationError, translate

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

# Loaded when first asked for (PEP 562): attacks and training need none of it.
_LATER = {
    "Configuration": "torchfgsm.libraries.configuration",
    "Explanation": "torchfgsm.explanation",
    "RobustReport": "torchfgsm.evaluation.report",
    "Translation": "torchfgsm.translation",
    "TranslationError": "torchfgsm.translation",
    "evaluate": "torchfgsm.evaluation.evaluating",
    "explain": "torchfgsm.explanation",
    "translate": "torchfgsm.translation",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LATER[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
