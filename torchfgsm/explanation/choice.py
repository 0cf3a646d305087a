"""What one choice means, and where each library makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

GOODFELLOW = "Goodfellow et al. 2015, arXiv:1412.6572"
MADRY = "Madry et al. 2018, arXiv:1706.06083"
KURAKIN = "Kurakin et al. 2017, arXiv:1611.01236"
MIYATO = "Miyato et al. 2018, arXiv:1704.03976"

# The originals' functions, below their packages.
NEIGHBOR = "lib.adversarial_neighbor._GenAdvNeighbor"
KERAS = "keras.adversarial_regularization.AdversarialRegularization"
UNIT_NORM = "lib.utils.maximize_within_unit_norm"
FGM_3 = "attacks.fast_gradient_method.fgm"
PGD_3 = "attacks.projected_gradient_descent.ProjectedGradientDescent"
LINEAR_3 = "attacks.fast_gradient_method.optimize_linear"
FGM = "attacks.fast_gradient_method.fast_gradient_method"
PGD = "attacks.projected_gradient_descent.projected_gradient_descent"
LINEAR = "utils.optimize_linear"

ANY = ...
"""Stands for every value without a meaning of its own."""


@dataclass(frozen=True)
class Origin:
    """Where a library makes a choice.

    Attributes:
        function: Dotted name of the original's function.
        note: How the library comes to its value, as the second half of a sentence.
    """

    function: str
    note: str


@dataclass(frozen=True)
class Choice:
    """One choice on which the libraries differ.

    Attributes:
        meanings: Value -> what it does, the first half of a sentence; under `ANY` that of all
            other values, with {} where the value goes.
        origins: Library -> where it is made.
        papers: Value, or `ANY`, -> the paper that it comes from.
    """

    meanings: Mapping[Any, str]
    origins: Mapping[str, Origin]
    papers: Mapping[Any, str] = field(default_factory=dict)

    def sentence(self, library: str, value: Any) -> str:
        """What a value does in a library, in one sentence; in "", a recipe, what it does at all."""
        meaning = self.meanings[value if value in self.meanings else ANY]
        shown = format(value, "g") if isinstance(value, float) else str(value)
        text = meaning.replace("{}", shown)
        origin = self.origins.get(library)
        end = f"; {origin.note}" if origin else ""
        return f"{text[:1].upper()}{text[1:]}{end}."

    def source(self, library: str, value: Any) -> str:
        """The original's function, and the paper where there is one; "" where there is neither."""
        origin = self.origins.get(library)
        paper = self.papers.get(value, self.papers.get(ANY, ""))
        return "; ".join(text for text in (origin.function if origin else "", paper) if text)


def origins(
    nsl: tuple[str, str],
    cleverhans3: tuple[str, str],
    tf2: tuple[str, str],
    torch: tuple[str, str],
) -> dict[str, Origin]:
    """Where each library makes a choice: (function, note), the function without its package."""
    given = (nsl, cleverhans3, tf2, torch)
    return {
        library: Origin(f"{package}.{function}", note)
        for (library, package), (function, note) in zip(_PACKAGES.items(), given, strict=True)
    }


_PACKAGES = {
    "nsl": "neural_structured_learning",
    "cleverhans3": "cleverhans",
    "cleverhans-tf2": "cleverhans.tf2",
    "cleverhans-torch": "cleverhans.torch",
}
