"""The form of an output: layouts, heads and labels under the default loss, by closed forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchfgsm
from torchfgsm import OutputForm, Recipe, Weighting, evaluate, fgsm
from torchfgsm.losses.output_form import form_of, made_by

FGSM = Recipe(step=0.1)
HALVES = Weighting(1.0, 1.0)
LAST = OutputForm("logits", "softmax", -1)
SIGMOID = OutputForm("logits", "sigmoid", -1)


class Positions(nn.Module):
    """A linear model of each position of (N, H, W, 3): logits (N, H, W, classes), classes last."""

    def __init__(self, classes: int, form: OutputForm | None = None) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.layer = nn.Linear(3, classes).double()
        if form is not None:
            self.output_form = form

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x)
        return found


def pictures(classes: int, size: tuple[int, int] = (4, 5)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(3, *size, 3, generator=generator, dtype=torch.float64)
    return x, torch.randint(classes, (3, *size), generator=generator)


def signs(loss: Tensor, x: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss, x)
    return gradient.sign()


# As many classes as rows and columns: the shapes alone would let dim 1 pass for them.
@pytest.mark.parametrize(("classes", "size"), [(5, (4, 5)), (4, (4, 4))])
@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("form", [LAST, OutputForm(class_dim=-1), OutputForm(class_dim=3)])
def test_stated_classes_are_where_the_model_says(
    classes: int, size: tuple[int, int], rows: bool, form: OutputForm
) -> None:
    model = Positions(classes, form)
    x, labels = pictures(classes, size)
    y = F.one_hot(labels, classes).double() if rows else labels
    z = x.clone().requires_grad_()
    loss = F.cross_entropy(model(z).movedim(-1, 1), labels)
    expected = x + 0.1 * signs(loss, z)
    torch.testing.assert_close(fgsm(model, x, y, eps=0.1), expected, rtol=0, atol=1e-12)
    step = torchfgsm.adversarial_step(model, x, y, recipe=FGSM, weighting=HALVES)
    torch.testing.assert_close(step.clean_loss, loss.detach())
    report = evaluate(model, [(x, y)], recipe=FGSM)
    right = model(x).argmax(-1) == labels
    assert report.labels == labels.numel()
    assert report.clean_accuracy == float(right.double().mean())
    assert report.clean_loss == pytest.approx(loss.item(), rel=1e-12)
    attacked = model(expected)
    assert report.adversarial_accuracy == float((attacked.argmax(-1) == labels).double().mean())


def test_predicted_labels_are_those_of_the_stated_classes() -> None:
    model, (x, _) = Positions(4, LAST), pictures(4, (4, 4))
    own = model(x).argmax(-1)
    assert torch.equal(fgsm(model, x, eps=0.1), fgsm(model, x, own, eps=0.1))
    shared = Recipe(step=0.1, ties="shared")
    assert torch.equal(torchfgsm.attack(model, x, recipe=shared), fgsm(model, x, own, eps=0.1))


@pytest.mark.parametrize(("classes", "form"), [(1, SIGMOID), (1, OutputForm(class_dim=-1)),
                                               (2, SIGMOID)])  # fmt: skip
def test_each_number_behind_a_sigmoid_is_a_yes_or_no_of_its_own(
    classes: int, form: OutputForm
) -> None:
    model, (x, _) = Positions(classes, form), pictures(2)
    y = (torch.rand(3, 4, 5, classes, generator=torch.Generator().manual_seed(4)) > 0.5).double()
    z = x.clone().requires_grad_()
    loss = F.binary_cross_entropy_with_logits(model(z), y)
    expected = x + 0.1 * signs(loss, z)
    for labels in (y, y.long(), *([y[..., 0].long()] if classes == 1 else [])):
        found = fgsm(model, x, labels, eps=0.1)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        step = torchfgsm.adversarial_step(model, x, labels, recipe=FGSM, weighting=HALVES)
        torch.testing.assert_close(step.clean_loss, loss.detach())
        report = evaluate(model, [(x, labels)], recipe=FGSM)
        assert report.labels == y.numel()
        assert report.clean_accuracy == float(((model(x) > 0) == y).double().mean())
    own = (model(x) > 0).double()
    assert torch.equal(fgsm(model, x, eps=0.1), fgsm(model, x, own, eps=0.1))


def test_one_class_for_each_example_does_not_fit_labels_of_their_own() -> None:
    class Labels(nn.Linear):
        output_form = SIGMOID

    x = torch.rand(6, 3)
    with pytest.raises(ValueError, match=r"0/1 labels of shape \(6, 4\), since each number"):
        fgsm(Labels(3, 4), x, torch.tensor([0, 1, 2, 3, 0, 1]), eps=0.1)


def test_every_other_output_has_its_classes_in_dim_1_and_the_message_says_so() -> None:
    x, labels = pictures(5)
    with pytest.raises(ValueError, match=r"dim 1, as in torch.*OutputForm\(class_dim=-1\)"):
        fgsm(Positions(5), x, labels, eps=0.1)
    inner = Positions(5)
    found = fgsm(lambda z: inner(z).movedim(-1, 1), x, labels, eps=0.1)
    assert torch.equal(found, fgsm(Positions(5, LAST), x, labels, eps=0.1))
    with pytest.raises(ValueError, match="classes in dim 7"):
        fgsm(Positions(5, OutputForm(class_dim=7)), x, labels, eps=0.1)


def test_a_wrapper_has_the_form_of_its_model_and_a_part_does_not_speak_for_the_whole() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = Positions(5, LAST)

    assert form_of(nn.DataParallel(Positions(5, LAST))) == LAST
    assert form_of(torch.compile(Positions(5, LAST))) == LAST
    assert form_of(Whole()) is None
    assert form_of(lambda x: x) is None


def test_what_made_an_output_is_seen_through_its_shape_alone() -> None:
    x = torch.randn(4, 3, requires_grad=True)
    assert made_by(x.sigmoid()) == made_by(x.sigmoid().squeeze(0).T[None].double()) == "sigmoid"
    assert made_by(x.softmax(1).reshape(2, 6)) == "softmax"
    for other in (x, x.detach().sigmoid(), 2 * x.sigmoid(), x.log_softmax(1), x.sigmoid() + x):
        assert made_by(other) is None


# Labels that are no classes


@pytest.mark.parametrize(
    ("outputs", "y"),
    [
        (1, torch.full((8, 1), 250.0)),
        (1, torch.full((8,), -0.5)),
        (4, torch.rand(8, 4) * 10),
        (4, (torch.arange(32).reshape(8, 4) % 3 == 0).float() + 0.0),
    ],
    ids=["regression", "negative", "several numbers", "several labels"],
)
def test_labels_that_are_no_classes_are_refused_by_the_default_loss_and_have_no_accuracy(
    outputs: int, y: Tensor
) -> None:
    model, x = nn.Linear(6, outputs), torch.rand(8, 6)
    say = "no classes|for a regression give a loss_fn"
    with pytest.raises(ValueError, match=say):
        fgsm(model, x, y, eps=0.1)
    with pytest.raises(ValueError, match=say):
        evaluate(model, [(x, y)], recipe=FGSM)
    with pytest.raises(ValueError, match=say):
        torchfgsm.adversarial_loss(model, x, y, recipe=FGSM, weighting=HALVES)

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(output, target.reshape(output.shape), reduction="none")

    # The first batch alone could pass for classes.
    first = F.one_hot(torch.tensor([0, 0]), 4).float() if outputs == 4 else torch.ones_like(y[:2])
    report = evaluate(model, [(x[:2], first), (x, y)], recipe=FGSM, loss_fn=loss, epsilons=[0.2])
    assert report.clean_accuracy is report.adversarial_accuracy is report.curve[0].accuracy is None
    assert (report.labels, report.classes, report.examples) == (0, (), 10)
    both = torch.cat([loss(model(x[:2]), first), loss(model(x), y)])
    assert report.clean_loss == pytest.approx(both.mean().item(), rel=1e-5)
    assert report.to_dict()["clean_accuracy"] is None
    text = report.to_text()
    assert f"no accuracy: {report.no_accuracy}" in text
    assert [line.split()[1] for line in text.splitlines() if line.startswith("clean")] == ["-"]


def test_an_output_of_one_class_in_dim_1_predicts_nothing() -> None:
    model, x = nn.Conv2d(2, 1, 1), torch.rand(3, 2, 4, 4)
    y = (torch.rand(3, 1, 4, 4) > 0.5).float()
    report = evaluate(model, [(x, y)], recipe=FGSM, loss_fn=F.binary_cross_entropy_with_logits)
    assert report.clean_accuracy is None
    assert "one class in dim 1" in str(report.no_accuracy)


# Ignored positions


def dense() -> tuple[nn.Module, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Conv2d(2, 3, 1).double()
    x = torch.rand(4, 2, 5, 5, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (4, 5, 5), generator=generator)
    y[0, :4], y[1] = 255, 255
    return model, x, y


def per_position(output: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(output, y, ignore_index=255, reduction="none")


def mean(output: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(output, y, ignore_index=255)


@pytest.mark.parametrize("loss_fn", [None, per_position, mean])
@pytest.mark.parametrize("step", [torchfgsm.adversarial_step, torchfgsm.adversarial_loss])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_training_loss_is_the_mean_over_the_positions_that_count(
    loss_fn: Any, step: Any, reduction: Any
) -> None:
    model, x, y = dense()
    recipe = Recipe(step=0.1, reduction=reduction, norm="l2", iterations=2)
    found = step(model, x, y, recipe=recipe, weighting=HALVES, loss_fn=loss_fn, ignore_index=255)
    if found.loss.requires_grad:
        found.loss.backward()
    expected = mean(model(x), y)
    torch.testing.assert_close(found.clean_loss.detach(), expected.detach())
    moved = torchfgsm.attack(
        model, x, y, recipe=Recipe(step=0.1, norm="l2", iterations=2), loss_fn=per_position
    )
    torch.testing.assert_close(found.adversarial, moved)
    total = expected + mean(model(moved), y)
    for parameter, gradient in zip(
        model.parameters(), torch.autograd.grad(total, list(model.parameters())), strict=True
    ):
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("loss_fn", [None, per_position, mean])
def test_the_evaluated_loss_is_the_mean_over_the_positions_that_count(loss_fn: Any) -> None:
    model, x, y = dense()
    batches = [(x[i : i + 1], y[i : i + 1]) for i in range(4)]  # one of them has none that counts
    report = evaluate(model, batches, recipe=FGSM, loss_fn=loss_fn, ignore_index=255)
    assert report.clean_loss == pytest.approx(mean(model(x), y).item(), rel=1e-12)
    moved = fgsm(model, x, y, eps=0.1, loss_fn=per_position)
    assert report.adversarial_loss == pytest.approx(mean(model(moved), y).item(), rel=1e-12)


def test_ignored_positions_of_classes_last_and_of_rows() -> None:
    model, (x, labels) = Positions(4, LAST), pictures(4)
    labels[0] = 3
    rows = F.one_hot(labels, 4).double()
    expected = F.cross_entropy(model(x).movedim(-1, 1), labels, ignore_index=3).item()
    for y in (labels, rows):
        report = evaluate(model, [(x, y)], recipe=FGSM, ignore_index=3)
        assert report.clean_loss == pytest.approx(expected, rel=1e-12)
        assert report.labels == int((labels != 3).sum())


def test_an_ignored_label_of_a_binary_model() -> None:
    model, x = nn.Linear(3, 1).double(), torch.rand(5, 3, dtype=torch.float64)
    y = torch.tensor([0, 1, -1, 1, -1])
    kept = y >= 0
    report = evaluate(model, [(x, y)], recipe=FGSM, ignore_index=-1)
    expected = F.binary_cross_entropy_with_logits(model(x)[kept, 0], y[kept].double())
    assert report.clean_loss == pytest.approx(expected.item(), rel=1e-12)
    assert report.labels == 3
