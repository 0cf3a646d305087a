"""Warns, once per model, of outputs that are not what the loss takes them for."""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from torchfgsm.losses.output_form import OutputForm, class_dim, is_binary, made_by

# Set where another report says it.
_UNSAID = ContextVar("unsaid", default=False)
# Fewer logits than these may all lie in [0, 1] by chance.
_MANY = 32
# Models and losses whose output was looked at; nothing is left on them.
_LOOKED: dict[str, weakref.WeakSet[Any]] = {
    "logits": weakref.WeakSet(),
    "probabilities": weakref.WeakSet(),
    "head": weakref.WeakSet(),
}


@contextlib.contextmanager
def unsaid() -> Iterator[None]:
    """A block in which nothing is said of outputs, and nothing counts as said."""
    token = _UNSAID.set(True)
    try:
        yield
    finally:
        _UNSAID.reset(token)


def look_at_output(
    owner: Any,
    output: Tensor,
    form: OutputForm | None,
    *,
    probabilities: bool,
    values: bool,
    dim: int | None = None,
    binary: bool | None = None,
) -> None:
    """Warns of probabilities that are taken for logits, or the reverse: once for each owner.

    Args:
        owner: The model, or the loss where no model is known.
        output: Its output.
        form: What the model states of it, which is believed without a look.
        probabilities: Whether the output is taken for probabilities.
        values: Whether its entries may be looked at.
        dim: The dimension of the classes; default the model's.
        binary: Whether each number is a yes or no of its own; default the model's.
    """
    if torch.compiler.is_compiling() or not output.is_floating_point() or output.dim() == 0:
        return
    if _UNSAID.get():
        return
    known = _LOOKED["probabilities" if probabilities else "logits"]
    if _is_in(known, owner):
        return
    binary = is_binary(output, form) if binary is None else binary
    if not binary and dim is None:
        dim = class_dim(output, form)
    what = (
        _no_probabilities(output, form, None if binary else dim, values)
        if probabilities
        else _no_logits(output, form, None if binary else dim, values)
    )
    if what is None:
        return
    _add(known, owner)
    if what:
        warnings.warn(what, UserWarning, stacklevel=5)


def warn_of_head(owner: Any, form: OutputForm) -> None:
    """Warns, once for each model, that a head that was cut off is put back and taken for logits."""
    known = _LOOKED["head"]
    if torch.compiler.is_compiling() or _UNSAID.get() or _is_in(known, owner):
        return
    _add(known, owner)
    warnings.warn(
        f"the {form.head} that was cut off this model is put back, and its output taken for "
        "logits, as CleverHans 4 takes it: a softmax is applied once more, and the gradient is not "
        "that of the model's loss. To attack the logits give model.without_head(), or a recipe "
        'with model_output="logits" (--model-output logits)',
        UserWarning,
        stacklevel=4,
    )


def _no_logits(
    output: Tensor, form: OutputForm | None, dim: int | None, values: bool
) -> str | None:
    """What to say of an output that should be logits: "" nothing; None: it is not known."""
    stated = form.values if form is not None else "unknown"
    if stated == "logits":
        return ""
    maker = made_by(output)
    rows = dim is not None and output.shape[dim] > 1
    if values and rows and dim is not None and _are_rows(output, dim):
        count, maker = output.numel() // output.shape[dim], "softmax"
        why = f"all {count} rows are non-negative and add up to 1"
    elif stated == "probabilities":
        why = "it says so in its output_form"
    elif maker is not None:
        why = f"a {maker} makes it"
    elif not values or (not rows and output.numel() < _MANY):
        return None
    elif rows or not _are_decisions(output):
        return ""
    else:
        why = f"all {output.numel()} numbers lie in [0, 1]"
    maker = maker or (form.head if form is not None else None) or "sigmoid"
    return (
        f"the model's output looks like probabilities, not logits: {why}. A {maker} is applied "
        "twice then and the gradient is not the attack's. Give the logits, or use "
        "model_output='probabilities'"
    )


def _are_rows(output: Tensor, dim: int) -> bool:
    """Whether an output's rows are non-negative and add up to 1."""
    rows = output.detach().float()
    return bool((rows >= 0).all()) and _furthest_from_one(rows, dim) < 1e-4


def _are_decisions(output: Tensor) -> bool:
    """Whether all numbers lie in [0, 1], on both sides of 1/2: a small logit may do so alone."""
    numbers = output.detach()
    if not bool(((numbers >= 0) & (numbers <= 1)).all()):
        return False
    return bool((numbers > 0.5).any()) and bool((numbers < 0.5).any())


def _no_probabilities(
    output: Tensor, form: OutputForm | None, dim: int | None, values: bool
) -> str | None:
    """The same of an output that should be probabilities."""
    stated = form.values if form is not None else "unknown"
    maker = made_by(output)
    if stated == "probabilities" or maker == ("sigmoid" if dim is None else "softmax"):
        return ""
    if not values:
        return None
    numbers = output.detach().float()
    low, high = (float(bound) for bound in torch.aminmax(numbers))
    # Rounding: of sums, and of outputs that were quantised to 8 bits.
    if not (low >= 0 and high <= 1.001):
        why = f"it runs from {low:.4g} to {high:.4g}"
    elif dim is not None and (furthest := _furthest_from_one(numbers, dim)) > 0.05:
        why = f"there are rows whose sum is {furthest:.4g} away from 1"
    else:
        return ""
    return (
        f"the model's output should be probabilities and is none: {why}. The loss clips it to "
        "[1e-7, 1 - 1e-7], and entries outside have no gradient. Give probabilities, or take the "
        "output for logits (model_output='logits'; Keras' losses: from_logits=True)"
    )


def _furthest_from_one(rows: Tensor, dim: int) -> float:
    """The largest distance of a row's sum from 1."""
    return float((rows.sum(dim=dim) - 1).abs().max()) if rows.numel() else 0.0


def _is_in(known: weakref.WeakSet[Any], owner: Any) -> bool:
    try:
        return owner in known
    except TypeError:  # no weak references or no hash: it is looked at each time
        return False


def _add(known: weakref.WeakSet[Any], owner: Any) -> None:
    try:
        known.add(owner)
    except TypeError:
        return
