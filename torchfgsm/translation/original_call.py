"""A call of an original, and what its text is put together from."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torchfgsm.core.recipe import Recipe

_WIDTH = 88


@dataclass(frozen=True)
class Call:
    """What the text is made from.

    Attributes:
        library: Whose function is called.
        options: The library's own options that are not their defaults.
        recipe: The library's recipe with the steps outside of its configuration.
        masked: Whether the gradient is multiplied by `mask`.
        smoothing: Label smoothing of the training loss.
        attack_smoothing: Label smoothing in the attack's own labels.
        weights: Factors of the clean and the adversarial loss; None: no training loss.
    """

    library: str
    options: Mapping[str, Any]
    recipe: Recipe
    masked: bool = False
    smoothing: float = 0.0
    attack_smoothing: float = 0.0
    weights: tuple[float, float] | None = None

    @property
    def takes_batch_mean(self) -> bool:
        """Whether the attack's loss is the mean over the batch, and that has an effect."""
        return self.recipe.reduction == "mean" and self.recipe.norm == "l2"

    @property
    def takes_batches_of_one(self) -> bool:
        """Whether the attack's loss is each example's own, and that has an effect."""
        return self.recipe.reduction == "sum" and self.recipe.norm == "l2"

    @property
    def stops_gradient(self) -> bool:
        """Whether the training gradient would flow through the perturbation and must not."""
        return self.recipe.norm == "l2" and not self.recipe.through_perturbation


def value(given: Any) -> str:
    """A value as Python text."""
    if isinstance(given, float) and math.isinf(given):
        return "np.inf" if given > 0 else "-np.inf"
    return json.dumps(given) if isinstance(given, str) else repr(given)


def keywords(options: Mapping[str, Any]) -> list[str]:
    """Options as `name=value`."""
    return [f"{name}={value(given)}" for name, given in options.items()]


def called(start: str, arguments: Iterable[str], end: str = ")", indent: str = "") -> list[str]:
    """A call on one line, or on several where it is long."""
    parts = list(arguments)
    line = f"{indent}{start}{', '.join(parts)}{end}"
    if len(line) <= _WIDTH:
        return [line]
    return [f"{indent}{start}", *(f"{indent}    {part}," for part in parts), f"{indent}{end}"]


def uses_numpy(lines: Iterable[str]) -> bool:
    """Whether numpy must be imported."""
    return any("np." in line for line in lines)


def attacked_model(call: Call, framework: str) -> tuple[list[str], str]:
    """The definition of the model that is attacked, if it is not the model itself; its name."""
    if not call.masked and call.recipe.model_output != "probabilities":
        return [], "model"
    torch = framework == "torch"
    lines = ["def attacked(v):"]
    if call.masked:
        still = "v.detach()" if torch else "tf.stop_gradient(v)"
        lines.append(f"    v = {still} + mask * (v - {still})  # v itself; its gradient is masked")
    if call.recipe.model_output == "probabilities":
        clipped = (
            "torch.log(torch.clamp(model(v), 1e-7, 1 - 1e-7))"
            if torch
            else "tf.math.log(tf.clip_by_value(model(v), 1e-7, 1 - 1e-7))"
        )
        lines.append(f"    return {clipped}")
    else:
        lines.append("    return model(v)")
    return lines, "attacked"


def text(comment: str, imports: Iterable[str], body: Iterable[str]) -> list[str]:
    """Imports, a comment and the body, with empty lines around definitions."""
    lines = [f"# {comment}"]
    for line in (line for line in body if line):
        starts = line.startswith(("def ", "class "))
        ends = lines[-1].startswith(" ") and not line.startswith((" ", ")"))
        lines += [""] * 2 * (starts or ends) + [""] * line.startswith("    def ") + [line]
    return [*imports, "", *lines]
