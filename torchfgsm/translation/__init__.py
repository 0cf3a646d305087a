"""One library's configuration in the words of another."""

from torchfgsm.translation.reading import TranslationError
from torchfgsm.translation.translating import Translation, translate

__all__ = ["Translation", "TranslationError", "translate"]
