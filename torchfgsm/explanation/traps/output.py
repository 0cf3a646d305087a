"""Traps in the model's output: what it is, where it saturates, and what it predicts."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from torchfgsm.evaluation.scores import predictions, true_classes
from torchfgsm.explanation.first_gradient import SideView
from torchfgsm.explanation.result import Trap
from torchfgsm.explanation.traps.output_kind import rows_of_probabilities
from torchfgsm.judging.label_slope import saturation_sentence
from torchfgsm.losses import formulas
from torchfgsm.losses.output_form import (
    class_dim,
    form_of,
    is_binary,
    is_single_logit,
    puts_head_back,
)

_PAPER = "Kurakin et al. 2017, https://arxiv.org/abs/1611.01236"


def nonfinite_output(view: SideView) -> Iterator[Trap]:
    """Examples whose output has a NaN or infinite entry."""
    output = view.seen.output
    if output is None:
        return
    count = int((~torch.isfinite(_rows(output)).all(1)).sum())
    if count:
        yield Trap(
            "non-finite output",
            "error",
            count,
            view.examples,
            f"In {count} of {view.examples} examples the model's output is NaN or infinite: their "
            "gradient means nothing. Look for overflow, or a logarithm or division of 0, in the "
            "model",
        )


def kind_of_output(view: SideView) -> Iterator[Trap]:
    """Probabilities that are taken for logits, or the reverse."""
    output, attacks, of = view.seen.output, view.attacks, view.examples
    if output is None or attacks.loss_fn is not None:
        return
    if attacks.refuted:
        yield Trap(
            "no probabilities",
            "error",
            attacks.refuted,
            of,
            f"The model is said to give probabilities, but in {attacks.refuted} of {of} examples "
            "they do not lie in [0, 1] or do not add up to 1"
            + (
                ": it is taken to give logits. Leave model_output out"
                if attacks.model_output == "logits"
                else ", and the loss clips them. Say model_output='logits' if they are logits"
            ),
        )
    if view.recipe.model_output != "probabilities":
        yield from _taken_for_logits(view, output)
    elif attacks.model_output != "probabilities":
        yield Trap(
            "logits where probabilities are expected",
            "warning",
            of,
            of,
            "The model gives logits and this side's loss takes probabilities: it is run here with "
            "a softmax behind the model. Without one Keras clips the logits to [1e-7, 1 - 1e-7] "
            "and those outside have no gradient. Set model_output='logits' (Keras: "
            "from_logits=True)",
        )


def _taken_for_logits(view: SideView, output: Tensor) -> Iterator[Trap]:
    attacks, of = view.attacks, view.examples
    model = attacks.view(view.recipe)
    head, form = puts_head_back(model, view.recipe.model_output), form_of(model)
    one = is_single_logit(output)
    if head is not None and not one:
        yield Trap(
            "probabilities taken for logits",
            "error",
            of,
            of,
            f"The original model ends in a {head.head}, and this side takes its output for logits, "
            "as its library does: a softmax is applied once more, and gradient and loss are not "
            "the model's. Give the library a model without it (model_output='logits' here)",
        )
        return
    stated = form is not None and form.values == "logits"
    declared = attacks.model_output == "probabilities" and not stated
    count = int(rows_of_probabilities(output, view.seen.form).sum())
    if declared or (count == of and not stated):
        count = of if one else count
        yield Trap(
            "probabilities taken for logits",
            "error",
            count,
            of,
            "The model gives probabilities and this side's loss takes logits: a softmax is "
            "applied twice, and gradient and loss are not the model's. Take the softmax off "
            "the model, or set model_output='probabilities' (Keras: from_logits=False)",
        )


def one_class(view: SideView) -> Iterator[Trap]:
    """A model of one number under a library whose loss is a softmax over the classes."""
    output, library = view.seen.output, view.configuration.library
    if output is None or view.attacks.loss_fn is not None or not is_single_logit(output):
        return
    if library.startswith("cleverhans"):
        yield Trap(
            "one class",
            "warning",
            view.examples,
            view.examples,
            "The model gives one number for each example, and CleverHans' own loss is a softmax "
            "over the classes, which is constant over one: the original moves nothing, and refuses "
            "labels of 1. Here the loss of a sigmoid is taken. Give the library two logits "
            "(0 and the number), or a loss_fn",
        )


def saturated(view: SideView) -> Iterator[Trap]:
    """Examples so sure that the loss's gradient is lost."""
    if view.seen.output is None or view.attacks.loss_fn is not None:
        return
    if view.recipe.model_output == "probabilities":
        lost = saturated_examples(view)
        if count := int(lost.sum()):
            still = int((lost & ~has_gradient(view)).sum())
            yield Trap(
                "saturated probabilities",
                "warning",
                count,
                view.examples,
                f"In {count} of {view.examples} examples the label's probability lies outside of "
                f"[1e-7, 1 - 1e-7], where the clipped loss has no slope: in {still} no gradient is "
                "left at all, and nothing moves. Attack the logits (Keras: from_logits=True)",
            )
    elif count := int(saturated_examples(view).sum()):
        yield Trap(
            "saturated softmax",
            "warning",
            count,
            view.examples,
            saturation_sentence(count, view.examples, cure=view.seen.output.dtype != torch.float64),
        )


def saturated_examples(view: SideView) -> Tensor:
    """The examples of which every label is saturated under this side's loss, (N,)."""
    output = view.seen.output
    none = torch.zeros(view.examples, dtype=torch.bool, device=view.seen.terms.device)
    if output is None or view.attacks.loss_fn is not None:
        return none
    form, logits = view.seen.form, view.recipe.model_output != "probabilities"
    if is_binary(output, form):
        # The formula of binary logits keeps the gradient where the sigmoid rounds to 1.
        return none if logits else _rows(formulas.clipped(output) != output).all(1)
    labels, dim = true_classes(view.seen.labels, output, form), class_dim(output, form)
    if logits:
        return _rows(_miss(output, labels, dim) <= torch.finfo(output.dtype).eps / 2).all(1)
    rows = output
    if view.seen.labels.is_floating_point():
        rows = rows / rows.sum(dim, keepdim=True)  # as Keras does with rows for labels
    chosen = rows.gather(dim, labels.unsqueeze(dim))
    return _rows(formulas.clipped(chosen) != chosen).all(1)


def _miss(logits: Tensor, labels: Tensor, dim: int) -> Tensor:
    """1 - p of the labels, without the rounding of p; `torchfgsm compare` counts by it too.

    Up to half a unit p rounds to 1 in whatever order a library sums, above that in some.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    others = logits.scatter(dim, labels.unsqueeze(dim), -torch.inf)
    return (others.logsumexp(dim) - logits.logsumexp(dim)).exp()


def has_gradient(view: SideView) -> Tensor:
    """The examples whose gradient has an entry that is not 0, (N,)."""
    found = [_rows(g != 0).any(1) for g in view.seen.gradients if g is not None]
    if not found:
        return torch.zeros(view.examples, dtype=torch.bool, device=view.seen.terms.device)
    return torch.stack(found).any(0)


def wrong_predictions(view: SideView) -> Iterator[Trap]:
    """Predictions that are not the labels, where the attack takes the predictions for labels."""
    output, recipe = view.seen.output, view.recipe
    if output is None or recipe.targeted or recipe.labels == "given":
        return
    probabilities, form = recipe.model_output == "probabilities", view.seen.form
    found = predictions(output, probabilities=probabilities, form=form)
    try:
        true = true_classes(view.attacks.y, output, form)
    except (TypeError, ValueError):  # a loss of the caller's own takes other labels
        return
    if count := int((found != true).sum()):
        yield Trap(
            "prediction is not the label",
            "warning",
            count,
            found.numel(),
            f"{count} of {found.numel()} predictions are not the true label: this side moves them "
            "away from the wrong class, maybe to the right one. Predicted labels are against label "
            f"leaking in training ({_PAPER}); to attack the true ones give y (labels='given')",
        )


def tied_predictions(view: SideView) -> Iterator[Trap]:
    """Predictions with several equal maxima, where the attack takes them for labels."""
    output, recipe = view.seen.output, view.recipe
    predicts = recipe.labels == "predicted" and not recipe.targeted
    if output is None or not predicts or is_binary(output, view.seen.form):
        return
    shared, dim = recipe.ties == "shared", class_dim(output, view.seen.form)
    rows = output.softmax(dim) if shared else output
    tied = (rows == rows.amax(dim, keepdim=True)).sum(dim) > 1
    if count := int(tied.sum()):
        does = (
            "shares the label evenly among them, as CleverHans 3 does; CleverHans 4 takes the first"
            if shared
            else "takes the first, as CleverHans 4 does; CleverHans 3 shares the label among them"
        )
        yield Trap(
            "tied predictions",
            "note",
            count,
            tied.numel(),
            f"{count} of {tied.numel()} predictions have several equal largest classes: this side "
            f"{does}. Give y to settle it",
        )


def _rows(tensor: Tensor) -> Tensor:
    """Each example as one row."""
    return tensor.reshape(tensor.shape[0], -1)
