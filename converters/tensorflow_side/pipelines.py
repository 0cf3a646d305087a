"""What stands before a model in predict, evaluate and fit, and is no part of it."""

from __future__ import annotations

from typing import Any

_LIBRARIES = ("keras_hub", "keras_nlp", "keras_cv")


def lost_preprocessor(model: Any) -> list[str]:
    """Returns what to say of the preprocessor of a keras-hub task, nothing of other models.

    A model of the user's own that has such an attribute may well use it in its call.
    """
    libraries = {kind.__module__.partition(".")[0] for kind in type(model).__mro__}
    preprocessor = getattr(model, "preprocessor", None)
    if preprocessor is None or libraries.isdisjoint(_LIBRARIES):
        return []
    return [
        f"the preprocessor {type(preprocessor).__name__}, which predict, evaluate and fit apply: "
        "give preprocessed inputs, and eps in their units"
    ]
