"""Traps in the gradient: where it is lost, noise, or shorter than the norm's guard."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from torchfgsm.explanation.first_gradient import SideView
from torchfgsm.explanation.report.formatting import number
from torchfgsm.explanation.result import Trap
from torchfgsm.explanation.traps.output import has_gradient, saturated_examples

_REDUCTIONS: tuple[Literal["sum"], Literal["mean"]] = ("sum", "mean")


def no_path(view: SideView) -> Iterator[Trap]:
    """Features on which the loss does not depend."""
    pairs = zip(view.features.names, view.seen.gradients, strict=True)
    lost = [str(name) or "x" for name, gradient in pairs if gradient is None]
    if lost:
        stays = view.recipe.missing_gradient == "stay"
        yield Trap(
            "no path to the loss",
            "warning",
            len(lost),
            len(view.features.names),
            f"The loss does not depend on {', '.join(lost)}, "
            + ("which stays as it is, unclipped" if stays else "which this side refuses")
            + ". Look for a detach() or an integer conversion in the model",
        )


def nonfinite_gradient(view: SideView) -> Iterator[Trap]:
    """Gradient entries that are NaN or infinite."""
    wrong = [~torch.isfinite(g) for g in view.seen.gradients if g is not None]
    entries = sum(int(found.sum()) for found in wrong)
    if not entries:
        return
    recipe = view.recipe
    if recipe.nonfinite == "zero":
        does = "they count as 0, and the rest of the example moves"
    elif recipe.norm == "linf":
        sign = "NaN" if recipe.nonfinite == "propagate" else "0"
        does = f"the sign of a NaN is {sign}, and infinite ones move like any other"
    else:
        does = f"under {recipe.norm} the whole example can become NaN"
    count = int(torch.stack([f.reshape(f.shape[0], -1).any(1) for f in wrong]).any(0).sum())
    yield Trap(
        "non-finite gradient",
        "error" if recipe.nonfinite == "propagate" else "warning",
        count,
        view.examples,
        f"In {count} of {view.examples} examples the gradient has NaN or infinite entries "
        f"({entries} in all): {does}. Look for a square root or logarithm of 0 in the model",
    )


def zero_gradient(view: SideView) -> Iterator[Trap]:
    """Examples without a gradient for another reason than a saturated loss."""
    if all(gradient is None for gradient in view.seen.gradients):
        return
    count = int((~has_gradient(view) & ~saturated_examples(view)).sum())
    if count:
        yield Trap(
            "zero gradient",
            "warning",
            count,
            view.examples,
            f"In {count} of {view.examples} examples the gradient is exactly 0, and nothing moves. "
            "Look for dead ReLUs, rounding or clamping in the model",
        )


def guarded(view: SideView) -> Iterator[Trap]:
    """Examples whose gradient is under the L2 norm's guard, so that their step is shorter."""
    recipe = view.recipe
    if recipe.norm != "l2" or recipe.guard == 0 or not view.gradients():
        return
    summed, averaged = (int(_under_guard(view, kind).sum()) for kind in _REDUCTIONS)
    alone, batch = "each example's own loss", f"the mean of {int(view.seen.terms.max())} losses"
    if recipe.reduction == "sum":
        count, loss, rest = summed, alone, f"with {batch} it would be in {averaged}"
    else:
        count, loss, rest = averaged, batch, f"with {alone} it would be in {summed}"
    mend = "reduction='sum'" if summed < count else "guard=0 in the recipe"
    if count:
        yield Trap(
            "gradient under the guard",
            "warning",
            count,
            view.examples,
            f"In {count} of {view.examples} examples the gradient of {loss} is shorter than the "
            f"guard under the L2 norm, {number(math.sqrt(recipe.guard))}, and the step is shorter "
            f"than its length by as much; {rest}. Set {mend}",
        )


def _under_guard(view: SideView, reduction: Literal["sum", "mean"]) -> Tensor:
    """Examples of which a norm that is taken lies under the guard but is not 0, (N,)."""
    gradients = [g.double() for g in view.gradients(reduction)]
    if view.recipe.scalar_examples == "joint":
        gradients = [g[None] if g.dim() == 1 else g for g in gradients]
    squares = _per_norm(view, [g.reshape(g.shape[0], -1).square().sum(1) for g in gradients])
    under = torch.stack([(s > 0) & (s < view.recipe.guard) for s in squares]).any(0)
    return under.expand(view.examples)


def _per_norm(view: SideView, squares: Sequence[Tensor]) -> list[Tensor]:
    """Squared norms as the recipe takes them: of all features together, or of each."""
    return [torch.stack(list(squares)).sum(0)] if view.recipe.joint else list(squares)


def tied_largest(view: SideView) -> Iterator[Trap]:
    """Examples with several largest gradient entries, among which an L1 step is shared."""
    gradients = view.gradients()
    if view.recipe.norm != "l1" or not gradients:
        return
    rows = [g.abs().reshape(g.shape[0], -1) for g in gradients]
    rows = [torch.cat(rows, 1)] if view.recipe.joint else rows
    largest = [(r == r.amax(1, keepdim=True)).sum(1) * (r.amax(1) > 0) for r in rows]
    count = int(torch.stack([found > 1 for found in largest]).any(0).sum())
    if count:
        yield Trap(
            "tied largest gradient entries",
            "note",
            count,
            view.examples,
            f"In {count} of {view.examples} examples several gradient entries are the largest: the "
            "L1 step is shared among them, and float noise that breaks a tie moves all of it",
        )
