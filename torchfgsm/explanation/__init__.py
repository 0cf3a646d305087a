"""Why two configurations give different adversarial examples, on a model and a batch."""

from torchfgsm.explanation.explaining import explain
from torchfgsm.explanation.result import Explanation

__all__ = ["Explanation", "explain"]
