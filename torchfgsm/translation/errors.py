"""The refusal of a translation."""

from __future__ import annotations


class TranslationError(ValueError):
    """No configuration of the other library does the same; the message says why."""
