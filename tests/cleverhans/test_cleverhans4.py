"""`torchfgsm.cleverhans.tf2` and `.torch`: attacks as CleverHans 4.0.0's two ports make them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy_models import Counting, batch, mlp, one_hot

from torchfgsm.cleverhans import tf2
from torchfgsm.cleverhans import torch as cht

PORTS = pytest.mark.parametrize("port", [tf2, cht], ids=["tf2", "torch"])
ORDERS = (math.inf, 2, 1)


def gradient(x: Tensor, loss: Any) -> Tensor:
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(loss(leaf), leaf)
    return grad


class Slope(nn.Module):
    """Two logits whose cross-entropy against class 1 has the given gradient at 0, per example."""

    def __init__(self, rows: Any) -> None:
        super().__init__()
        self.rows = torch.tensor(rows, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        score = (x * self.rows).reshape(len(x), -1).sum(1)
        return torch.stack([2 * score, torch.zeros_like(score)], dim=1)


def follow(port: Any, rows: Any, eps: Any, norm: float, **kwargs: Any) -> Tensor:
    """The movement of zeros under rows of gradients (of which the mean loss divides by N)."""
    model = Slope(rows)
    zeros = torch.zeros_like(model.rows)
    ones = torch.ones(len(zeros)).long()
    moved: Tensor = port.fast_gradient_method(model, zeros, eps, norm, y=ones, **kwargs)
    return moved


# Both ports


@PORTS
@pytest.mark.parametrize("norm", ORDERS)
def test_step_follows_the_cross_entropy_of_the_prediction(port: Any, norm: float) -> None:
    model, (x, _) = mlp(), batch()
    predicted = model(x).argmax(1)
    grad = gradient(x, lambda z: nn.functional.cross_entropy(model(z), predicted))
    found = port.fast_gradient_method(model, x, 0.1, norm)
    torch.testing.assert_close(found, x + port.optimize_linear(grad, 0.1, norm))
    assert torch.equal(found, port.fast_gradient_method(model, x, 0.1, norm, y=predicted))
    towards = port.fast_gradient_method(model, x, 0.1, norm, y=predicted, targeted=True)
    torch.testing.assert_close(towards - x, x - found, rtol=0, atol=1e-15)


@PORTS
def test_prediction_with_ties_is_the_first_class(port: Any) -> None:
    def tied(x: Tensor) -> Tensor:
        return torch.stack([x[:, 0], x[:, 1]], dim=1)

    moved = port.fast_gradient_method(tied, torch.zeros(1, 2), 0.5, math.inf)
    assert moved.tolist() == [[-0.5, 0.5]]  # away from class 0


@PORTS
def test_integers_count_as_float32_and_float64_stays(port: Any) -> None:
    model, (x, y) = mlp(torch.float32), batch()
    counts = (10 * x).int()
    found = port.fast_gradient_method(model, counts, 0.5, math.inf, y=y)
    assert found.dtype == torch.float32
    torch.testing.assert_close((found - counts).abs(), torch.full((6, 4), 0.5))
    assert port.fast_gradient_method(mlp(), x, 0.5, 2).dtype == torch.float64


@PORTS
def test_works_where_grad_is_off(port: Any) -> None:
    model, (x, y) = mlp(), batch()
    expected = port.fast_gradient_method(model, x, 0.1, 2, y=y)
    with torch.no_grad():
        assert torch.equal(port.fast_gradient_method(model, x, 0.1, 2, y=y), expected)
    with torch.inference_mode():
        found = port.fast_gradient_method(model, x * 1, 0.1, 2, y=y * 1)
        port.projected_gradient_descent(model, x * 1, 0.2, 0.1, 2, 2)
    assert torch.equal(found, expected)


@PORTS
@pytest.mark.parametrize("norm", [math.inf, 2])
def test_pgd_is_the_loop_of_clip_project_clip(port: Any, norm: float) -> None:
    model, (x, y) = mlp(), batch()
    found = port.projected_gradient_descent(
        model,
        x,
        0.3,
        0.1,
        5,
        norm,
        clip_min=0.3,
        clip_max=0.7,
        y=y,
        rand_init=False,
        sanity_checks=False,
    )
    expected = x.clamp(0.3, 0.7)
    assert not torch.equal(expected, x)  # the start is clipped too
    for _ in range(5):
        grad = gradient(expected, lambda z: nn.functional.cross_entropy(model(z), y))
        stepped = (expected + port.optimize_linear(grad, 0.1, norm)).clamp(0.3, 0.7)
        expected = (x + port.clip_eta(stepped - x, norm, 0.3)).clamp(0.3, 0.7)
    torch.testing.assert_close(found, expected)


@PORTS
def test_pgd_labels_stay_those_of_the_clean_input(port: Any) -> None:
    model, (x, _) = mlp(), batch()
    args = (0.9, 0.3, 6, math.inf)
    fixed = port.projected_gradient_descent(model, x, *args, y=model(x).argmax(1), rand_init=False)
    found = port.projected_gradient_descent(model, x, *args, rand_init=False)
    assert torch.equal(found, fixed)
    assert not torch.equal(model(found).argmax(1), model(x).argmax(1))  # or it would not show


@PORTS
def test_random_starts(port: Any) -> None:
    model, (x, y) = mlp(), batch(size=200)

    def start(norm: float, **kwargs: Any) -> Tensor:
        found: Tensor = port.projected_gradient_descent(
            model, x, 0.3, 0.0001, 1, norm, y=y, sanity_checks=False, **kwargs
        )
        return found - x

    at_random = bool((start(math.inf).abs() > 0.1).any())
    assert at_random == (port is cht)  # tf2 starts at x unless asked, the torch port elsewhere
    within = start(math.inf, rand_init=True).abs()
    assert 0.28 < float(within.max()) <= 0.3
    assert float(start(math.inf, rand_init=True, rand_minmax=0.01).abs().max()) < 0.0102
    assert float(start(math.inf, rand_init=False).abs().max()) < 0.0002
    lengths = start(2, rand_init=True).norm(dim=1)
    assert float(lengths.max()) <= 0.3 + 1e-12
    # The torch port draws in the cube and projects: most starts lie on the sphere.
    on_sphere = float((lengths > 0.2995).double().mean())
    assert (on_sphere > 0.3) == (port is cht)


@PORTS
def test_probabilities_are_warned_of_and_the_value_is_the_originals(port: Any) -> None:
    model, (x, y) = nn.Sequential(mlp(), nn.Softmax(dim=1)), batch()
    with pytest.warns(UserWarning, match="looks like probabilities"):
        found = port.fast_gradient_method(model, x, 0.1, 2, y=y)
    grad = gradient(x, lambda z: nn.functional.cross_entropy(model(z), y))
    torch.testing.assert_close(found, x + port.optimize_linear(grad, 0.1, 2))


@PORTS
def test_helpers(port: Any) -> None:
    rows = torch.tensor([[3.0, -4.0]]).double()
    assert port.optimize_linear(rows, 0.5).tolist() == [[0.5, -0.5]]
    torch.testing.assert_close(
        port.optimize_linear(rows, 0.5, 2), torch.tensor([[0.3, -0.4]]).double()
    )
    ties = torch.ones(1, 11)  # the original torch port refuses: eleven times 1/11 is not 1
    torch.testing.assert_close(port.optimize_linear(ties, 1.0, 1), ties / 11)
    for norm in ORDERS:
        assert port.optimize_linear(0 * rows, 1.0, norm).tolist() == [[0.0, 0.0]]
    before = rows.clone()
    for norm, expected in ((math.inf, [1.0, -1.0]), (2, [0.6, -0.8])):
        found = port.clip_eta(rows, norm, 1.0)
        torch.testing.assert_close(found, torch.tensor([expected]).double())
        assert port.clip_eta(rows, norm, 9.0).data_ptr() != rows.data_ptr()
        at_bound = found.clone().requires_grad_()
        (derivative,) = torch.autograd.grad(port.clip_eta(at_bound, norm, 1.0)[0, 1], at_bound)
        assert float(derivative[0, 1]) == 1.0
    assert torch.equal(rows, before)


# Where they differ


@pytest.mark.parametrize(("size", "length"), [(1, 0.1635), (8, 0.0204), (64, 0.00256)])
def test_guard_sees_the_batch_in_the_mean_loss_of_torch_alone(size: int, length: float) -> None:
    rows = [[0.0981e-6, 0.1308e-6]] * size
    assert float(follow(tf2, rows, 1.0, 2).norm(dim=1)[0]) == pytest.approx(0.1635)
    assert float(follow(cht, rows, 1.0, 2).norm(dim=1)[0]) == pytest.approx(length, rel=3e-3)


def test_inputs_of_rank_1() -> None:
    rows = [3.0, -4.0]
    assert follow(tf2, rows, 1.0, 2).tolist() == [1.0, -1.0]
    torch.testing.assert_close(follow(cht, rows, 1.0, 2), torch.tensor([0.6, -0.8]).double())
    assert follow(cht, rows, 1.0, 1).tolist() == [0.0, -1.0]
    assert follow(tf2, rows, 1.0, 1).tolist() == [1.0, -1.0]


def test_nan_entries() -> None:
    rows = torch.tensor([[math.nan, 2.0]])
    assert cht.optimize_linear(rows, 1.0).tolist() == [[0.0, 1.0]]
    assert tf2.optimize_linear(rows, 1.0)[0, 0].isnan()
    for norm in (1, 2):
        assert tf2.optimize_linear(rows, 1.0, norm).isnan().all()


def test_tf2_takes_negative_and_tensor_eps_and_bounds() -> None:
    rows = [[3.0, -4.0], [3.0, 4.0]]
    assert torch.equal(follow(tf2, rows, -0.5, math.inf), -follow(tf2, rows, 0.5, math.inf))
    own = follow(tf2, rows, torch.tensor([[0.5], [1.0]]), 2)
    torch.testing.assert_close(own, torch.tensor([[0.3, -0.4], [0.6, 0.8]]).double())
    low, high = torch.tensor([-0.25, -1.0]), torch.tensor([[0.1], [0.2]])
    clipped = follow(tf2, rows, 0.5, math.inf, clip_min=low, clip_max=high)
    torch.testing.assert_close(clipped, torch.tensor([[0.1, -0.5], [0.2, 0.2]]).double())
    crossed = follow(tf2, rows, 0.5, math.inf, clip_min=1.0, clip_max=0.0)
    assert crossed.tolist() == [[1.0, 1.0]] * 2
    assert follow(tf2, rows, 0.0, 2, clip_min=0.25, clip_max=1.0).tolist() == [[0.25, 0.25]] * 2


def test_tf2_loss_fn_gets_labels_and_logits_by_keyword() -> None:
    model, (x, y) = mlp(), batch()

    def loss_fn(*, labels: Tensor, logits: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits, labels, reduction="none")

    expected = tf2.fast_gradient_method(model, x, 0.1, math.inf, y=y)
    found = tf2.fast_gradient_method(model, x, 0.1, math.inf, loss_fn, y=one_hot(y))
    assert torch.equal(found, expected)
    with pytest.raises(ValueError, match=r"expected integer labels \(N,\)"):
        tf2.fast_gradient_method(model, x, 0.1, math.inf, y=one_hot(y))
    iterated = tf2.projected_gradient_descent(model, x, 0.2, 0.1, 2, math.inf, loss_fn, y=y)
    assert torch.equal(
        iterated, tf2.projected_gradient_descent(model, x, 0.2, 0.1, 2, math.inf, y=y)
    )


@pytest.mark.parametrize("norm", ORDERS)
def test_tf2_is_differentiable_exactly_when_x_requires_grad(norm: float) -> None:
    model, (x, y) = mlp(), batch()
    assert not tf2.fast_gradient_method(model, x, 0.1, norm, y=y).requires_grad
    leaf = x.clone().requires_grad_()
    found = tf2.fast_gradient_method(model, leaf, 0.1, norm, y=y)
    (slope,) = torch.autograd.grad(found.sum(), leaf)
    assert torch.equal(slope, torch.ones_like(x)) == (norm != 2)
    assert not cht.fast_gradient_method(model, leaf, 0.1, norm, y=y).requires_grad


def test_torch_takes_int32_labels_and_rows_of_probabilities() -> None:
    model, (x, y) = mlp(), batch()
    expected = cht.fast_gradient_method(model, x, 0.1, math.inf, y=y)
    for labels in (y.int(), one_hot(y)):
        assert torch.equal(cht.fast_gradient_method(model, x, 0.1, math.inf, y=labels), expected)
    lengths = (torch.tensor(0.1), torch.tensor(0.05))
    zero_d = cht.fast_gradient_method(model, x, lengths[0], math.inf, y=y)  # type: ignore[arg-type]
    torch.testing.assert_close(zero_d, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("norm", ORDERS)
def test_torch_eps_0_is_a_copy_clipped_before_any_other_check(norm: float) -> None:
    model, (x, _) = Counting(mlp()), batch()
    found = cht.fast_gradient_method(model, x, 0, norm)
    assert torch.equal(found, x)
    assert found.data_ptr() != x.data_ptr()
    clipped = cht.fast_gradient_method(
        model, x, 0.0, norm, clip_min=0.3, clip_max=0.7, sanity_checks=True
    )
    assert torch.equal(clipped, x.clamp(0.3, 0.7))
    for eps, eps_iter in ((0, 0.1), (0.3, 0), (0, 0)):
        if norm != 1:
            still = cht.projected_gradient_descent(
                model, x, eps, eps_iter, 3, norm, clip_min=0.3, clip_max=0.7, rand_init=True
            )
            assert torch.equal(still, x.clamp(0.3, 0.7))
    assert model.calls == []


def test_torch_keeps_the_models_own_mode_and_tf2_evaluates() -> None:
    model, (x, y) = Counting(mlp()), batch()
    for training in (True, False):
        model.train(training)
        model.calls.clear()
        cht.fast_gradient_method(model, x, 0.1, 2, y=y)
        tf2.fast_gradient_method(model, x, 0.1, 2, y=y)
        assert model.calls == [training, False]


def test_zero_out_clipped_grads_of_torch() -> None:
    x = torch.tensor([[0.0, 1.0, 0.5]])
    grad = torch.tensor([[-1.0, 1.0, 1.0]])
    assert cht.zero_out_clipped_grads(grad, x, 0.0, 1.0).tolist() == [[0.0, 0.0, 1.0]]
    assert torch.equal(cht.zero_out_clipped_grads(-grad, x, 0.0, 1.0), -grad)
