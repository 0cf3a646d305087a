"""The outcome of one case."""

from __future__ import annotations

from dataclasses import dataclass

from torchfgsm.judging.comparison import Comparison
from torchfgsm.parity.cases import Case


@dataclass(frozen=True)
class Verdict:
    """The outcome of one case.

    Attributes:
        case: The case.
        comparison: Every array compared; true when all agree.
        rule: By which rule they were compared.
        explained: Signs that differ and that float noise explains.
        elements: Elements compared.
        lucky: Examples in which the original was nearer to float64 than float32 is, by luck, or
            whose label's slope was rounded.
        examples: Examples compared.
        saturated: Examples whose label's float32 softmax rounds to exactly 1.
    """

    case: Case
    comparison: Comparison
    rule: str
    explained: int = 0
    elements: int = 0
    lucky: int = 0
    examples: int = 0
    saturated: int = 0

    @property
    def passed(self) -> bool:
        """Whether the port equals the original within the rule."""
        return self.comparison.passed

    @property
    def max_abs(self) -> float:
        """The largest absolute difference between port and original."""
        return max((row.max_abs for row in self.comparison.rows), default=float("nan"))

    @property
    def word(self) -> str:
        """One word for the table."""
        if not self.passed:
            return "DIFFERENT"
        if self.explained:
            return f"equal, {self.explained} of {self.elements} signs within noise"
        if self.lucky:
            return f"equal, {self.lucky} of {self.examples} examples by float64"
        return "bit-equal" if self.max_abs == 0 else "equal"
