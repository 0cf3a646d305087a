"""What the native attacks accept, and what of it they keep."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy_models import CLASSES, Linear, TwoInputs, batch, mlp, one_hot, score, size_of

from torchfgsm import Recipe, attack, fgsm, perturb, pgd

NORMS = ("linf", "l2", "l1")


# What is accepted


def test_tensor_eps_gives_each_example_its_own() -> None:
    model, (x, y) = mlp(), batch()
    eps = torch.linspace(0, 0.5, 6, dtype=torch.float64)
    for norm in NORMS:
        delta = fgsm(model, x, y, eps=eps, norm=norm) - x
        torch.testing.assert_close(size_of(delta, norm), eps)
        for i in (1, 4):
            alone = fgsm(model, x, y, eps=float(eps[i]), norm=norm)
            torch.testing.assert_close(alone[i] - x[i], delta[i], rtol=0, atol=1e-15)
        ball = pgd(model, x, y, eps=eps, norm=norm, iterations=4)
        assert bool((size_of(ball - x, norm) <= eps + 1e-12).all())


def test_tensor_eps_per_element_scales_the_linf_step() -> None:
    model, (x, y) = mlp(), batch()
    eps = torch.tensor([0.0, 0.1, 0.2, 0.3], dtype=torch.float64)
    delta = fgsm(model, x, y, eps=eps.expand(6, 4)) - x
    torch.testing.assert_close(delta.abs(), eps.expand(6, 4))


def test_bounds_may_be_one_sided_tensors_or_by_feature() -> None:
    model, (x, y) = mlp(), batch()
    plain = fgsm(model, x, y, eps=0.3)
    assert torch.equal(fgsm(model, x, y, eps=0.3, clip_min=0.3), plain.clamp(min=0.3))
    low = torch.tensor([0.0, 0.1, 0.5, 0.3])
    found = fgsm(model, x, y, eps=0.3, clip_min=low, clip_max=0.9)
    assert found.dtype == x.dtype
    assert torch.equal(found, plain.clamp(max=0.9).maximum(low.double()))
    by_feature = fgsm(lambda a, b: model(a) + model(b), [x, x], y, eps=0.3, clip_max={1: 0.5})
    assert float(by_feature[0].max()) > 0.9
    assert float(by_feature[1].max()) == 0.5


def test_mask_chooses_elements_and_scales_nothing() -> None:
    model, (x, y) = mlp(), batch()
    mask = torch.tensor([1.0, 0.0, 1.0, 0.0])
    for norm in NORMS:
        delta = fgsm(model, x, y, eps=0.1, norm=norm, mask=mask) - x
        assert float(delta[:, 1::2].abs().max()) == 0
        torch.testing.assert_close(size_of(delta, norm), torch.full((6,), 0.1).double())
        half = fgsm(model, x, y, eps=0.1, norm=norm, mask=0.5)
        torch.testing.assert_close(half, fgsm(model, x, y, eps=0.1, norm=norm), rtol=0, atol=1e-15)
    ramp = torch.tensor([1.0, 0.5, 0.25, 0.125])
    weighted = fgsm(model, x, y, eps=0.1, norm="l2", mask=ramp) - x
    plain = fgsm(model, x, y, eps=0.1, norm="l2") - x
    # The mask multiplies the gradient before its direction is taken.
    torch.testing.assert_close(weighted[:, 1] / weighted[:, 0], plain[:, 1] / plain[:, 0] / 2)


def test_dict_with_integer_features_is_perturbed_jointly() -> None:
    model, (x, y) = TwoInputs(), batch()
    kind = torch.arange(6)
    features = {"kind": kind, "b": x[:, 2:], "a": x[:, :2]}
    found = fgsm(model, features, y, eps=0.1, norm="l2")
    assert list(found) == ["kind", "b", "a"]
    assert torch.equal(found["kind"], kind)
    whole = torch.cat([found["a"], found["b"]], dim=1) - x
    assert torch.equal(size_of(whole, "l2") > 0.0999999, torch.ones(6, dtype=torch.bool))
    # The same model on the joined features.
    joined = fgsm(lambda z: model.inner(z) + 0.1 * kind[:, None], x, y, eps=0.1, norm="l2")
    torch.testing.assert_close(whole + x, joined, rtol=0, atol=1e-12)


def test_converted_model_gets_features_in_its_own_order() -> None:
    class Named(nn.Module):
        input_names = ("b", "a")

        def forward(self, b: Tensor, a: Tensor) -> Tensor:
            return torch.stack([(2 * b - a).sum(1), a.sum(1)], dim=1)

    x, _ = batch()
    found = fgsm(Named(), {"a": x[:, :1], "b": x[:, 1:]}, torch.zeros(6).long(), eps=0.1)
    # d(loss)/d(logit 0) < 0: b goes down, a up (its slopes are -1 and +1 in favour of class 1).
    torch.testing.assert_close(found["b"] - x[:, 1:], torch.full((6, 3), -0.1).double())
    torch.testing.assert_close(found["a"] - x[:, :1], torch.full((6, 1), 0.1).double())


def test_dense_labels_are_summed_per_example() -> None:
    torch.manual_seed(0)
    model = nn.Conv2d(2, CLASSES, 3, padding=1).double()
    x, y = torch.rand(4, 2, 5, 5).double(), torch.randint(CLASSES, (4, 5, 5))
    leaf = x.clone().requires_grad_()
    loss = nn.functional.cross_entropy(model(leaf), y, reduction="sum")
    (grad,) = torch.autograd.grad(loss, leaf)
    assert torch.equal(fgsm(model, x, y, eps=0.1), perturb(x, grad, eps=0.1))


def test_one_hot_and_soft_labels() -> None:
    model, (x, y) = mlp(), batch()
    assert torch.equal(fgsm(model, x, one_hot(y), eps=0.1), fgsm(model, x, y, eps=0.1))
    soft = torch.full((6, CLASSES), 1 / 3).double()
    assert not torch.equal(fgsm(model, x, soft, eps=0.1), fgsm(model, x, y, eps=0.1))


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_single_logit_binary_model(shape: tuple[int, ...]) -> None:
    weight = torch.tensor([1.0, -2.0, 0.5, 3.0]).double()

    def model(x: Tensor) -> Tensor:
        return (x @ weight).reshape(shape)

    x, _ = batch()
    y = torch.tensor([0, 1, 0, 1, 1, 0])
    expected = 0.1 * torch.sign(weight) * (1 - 2 * y)[:, None]
    torch.testing.assert_close(fgsm(model, x, y, eps=0.1) - x, expected)
    torch.testing.assert_close(fgsm(model, x, y[:, None].double(), eps=0.1) - x, expected)
    predicted = (x @ weight > 0).long()
    assert torch.equal(fgsm(model, x, eps=0.1), fgsm(model, x, predicted, eps=0.1))


def test_loss_fn_scalar_or_per_example_and_any_target() -> None:
    model, (x, y) = mlp(), batch()
    expected = fgsm(model, x, y, eps=0.1, norm="l1")
    for loss_fn in (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(reduction="none")):
        assert torch.equal(fgsm(model, x, y, eps=0.1, norm="l1", loss_fn=loss_fn), expected)
    linear = Linear(torch.tensor([1.0, -2.0, 3.0, 4.0]).double())
    found = fgsm(linear, x, "anything", eps=0.1, loss_fn=score)
    torch.testing.assert_close(found - x, 0.1 * torch.sign(linear.weight.detach()).expand(6, 4))


def test_labels_default_to_the_prediction() -> None:
    model, (x, _) = mlp(), batch()
    predicted = model(x).argmax(1)
    assert torch.equal(fgsm(model, x, eps=0.1), fgsm(model, x, predicted, eps=0.1))
    # In PGD they stay those of the clean input, also from a random start.
    runs = [
        pgd(model, x, y, eps=1.0, iterations=4, generator=torch.Generator().manual_seed(0))
        for y in (None, predicted)
    ]
    assert torch.equal(runs[0], runs[1])
    recipe = Recipe(step=0.1, ties="shared")
    tied = attack(lambda z: z[:, :2] * 0 + z.sum(1, keepdim=True), x, recipe=recipe)
    assert torch.equal(tied, x)  # both classes equally likely and equally labelled: no gradient


def test_probabilities_are_warned_of_with_the_evidence() -> None:
    model, (x, y) = nn.Sequential(mlp(), nn.Softmax(dim=1)), batch()
    with pytest.warns(UserWarning, match="all 6 rows are non-negative and add up to 1"):
        fgsm(model, x, y, eps=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recipe = Recipe(step=0.1, model_output="probabilities")
        clipped = attack(model, x, y, recipe=recipe)
        torch.testing.assert_close(clipped, fgsm(model[0], x, y, eps=0.1))
        fgsm(model, x, y, eps=0.1, loss_fn=lambda p, t: -p[range(6), t].log())


def test_recipe_choices_reach_the_engine() -> None:
    model, (x, y) = mlp(), batch()
    mean = attack(model, x, y, recipe=Recipe(norm="l2", step=1.0, guard=1e4, reduction="mean"))
    total = attack(model, x, y, recipe=Recipe(norm="l2", step=1.0, guard=1e4))
    torch.testing.assert_close((total - x) / 6, mean - x)  # the guard alone divides both
    with pytest.raises(ValueError, match=r"1 of 2 examples have an all-zero gradient.*index 1"):
        attack(
            lambda z: z * torch.tensor([[1.0, 2.0], [0.0, 0.0]]),
            torch.ones(2, 2),
            torch.zeros(2).long(),
            recipe=Recipe(step=0.1, zero_gradient="refuse"),
        )
    with pytest.raises(ValueError, match="no path leads from x to the loss"):
        fgsm(lambda z: z.detach() * 2, x, y, eps=0.1, loss_fn=score)
    stay = attack(lambda z: z.detach(), x, y, recipe=Recipe(step=0.1, missing_gradient="stay"))
    assert torch.equal(stay, x)


# What is kept


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("norm", NORMS)
def test_dtype_is_kept(norm: str, dtype: torch.dtype) -> None:
    model, (x, y) = mlp(dtype), batch(dtype)
    bounds: dict[str, Any] = {"clip_min": 0.0, "clip_max": torch.ones(4)}
    assert fgsm(model, x, y, eps=0.1, norm=norm, **bounds).dtype == dtype
    assert pgd(model, x, y, eps=torch.full((6,), 0.1), norm=norm, **bounds).dtype == dtype
    assert perturb(x, x, eps=0.1, norm=norm, mask=torch.ones(4).double()).dtype == dtype


@pytest.mark.parametrize("norm", NORMS)
def test_memory_format_is_kept_and_changes_no_bit(norm: str) -> None:
    torch.manual_seed(0)
    x, grad = torch.rand(3, 4, 5, 6), torch.randn(3, 4, 5, 6)
    last = x.contiguous(memory_format=torch.channels_last)
    ranges: list[dict[str, Any]] = [{}, {"clip_min": 0.2, "clip_max": torch.full((6,), 0.9)}]
    for bounds in ranges:
        found = perturb(last, grad, eps=0.3, norm=norm, **bounds)
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(found, perturb(x, grad, eps=0.3, norm=norm, **bounds))
    model = nn.Sequential(nn.Conv2d(4, 2, 3), nn.Flatten(), nn.Linear(24, 3))
    y = torch.tensor([0, 1, 2])
    for random_start in (False, True):
        adversarial = pgd(model, last, y, eps=0.1, norm=norm, random_start=random_start)
        assert adversarial.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("y_given", [True, False])
def test_works_where_grad_is_off(y_given: bool) -> None:
    model, (x, y) = mlp(), batch()
    labels = y if y_given else None
    expected = fgsm(model, x, labels, eps=0.1)
    with torch.no_grad():
        assert torch.equal(fgsm(model, x, labels, eps=0.1), expected)
    with torch.inference_mode():
        made_inside = x * 1, (y * 1 if y_given else None)
        found = fgsm(model, *made_inside, eps=0.1, mask=torch.ones(4), clip_min=torch.zeros(4))
        iterated = pgd(model, *made_inside, eps=torch.full((6,), 0.1), norm="l2")
        assert made_inside[0].is_inference()
        assert not found.is_inference()
        assert not iterated.is_inference()
    assert torch.equal(found, expected)
    found.requires_grad_()  # an ordinary tensor


def test_binary_probabilities_below_one_half_are_predicted_as_0() -> None:
    x = torch.tensor([[-1.0], [1.0]])
    recipe = Recipe(step=0.1, model_output="probabilities")
    # Away from the prediction: the low probability rises, the high one falls.
    moved = attack(torch.sigmoid, x, recipe=recipe) - x
    torch.testing.assert_close(moved, torch.tensor([[0.1], [-0.1]]))
