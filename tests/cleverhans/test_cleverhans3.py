"""`torchfgsm.cleverhans.v3`: attacks as CleverHans 3.1.0 makes them (no TensorFlow)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_models import batch, mlp, one_hot

from torchfgsm.cleverhans import v3

ORDERS = (math.inf, 2, 1)


def fgm(model: Any, x: Tensor, **kwargs: Any) -> Tensor:
    found: Tensor = v3.FastGradientMethod(model).generate(x, **kwargs)
    return found


def slope(labels: Tensor, logits: Tensor) -> Tensor:
    """A loss whose gradient in the logits is the labels."""
    return (labels * logits).sum(1)


def follow(gradient: Any, **kwargs: Any) -> Tensor:
    """The movement of zeros under a gradient, which the wrapped identity model is given."""
    rows = torch.tensor(gradient, dtype=torch.float64)
    x = kwargs.pop("x", torch.zeros_like(rows))

    def loss_fn(labels: Tensor, logits: Tensor) -> Tensor:
        return slope(rows, logits)

    moved: Tensor = fgm(lambda z: z, x, loss_fn=loss_fn, y=torch.ones_like(rows), **kwargs) - x
    return moved


# Defaults and labels


def test_defaults_are_a_sign_step_of_0_3_against_the_prediction() -> None:
    model, (x, _) = mlp(), batch()
    leaf = x.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(model(leaf), model(x).argmax(1))
    (grad,) = torch.autograd.grad(loss, leaf)
    torch.testing.assert_close(fgm(model, x), x + 0.3 * torch.sign(grad))


def test_y_none_is_the_prediction_also_when_it_is_passed() -> None:
    model, (x, _) = mlp(), batch()
    predicted = one_hot(model(x).argmax(1))
    for attack in (v3.FastGradientMethod(model), v3.BasicIterativeMethod(model)):
        expected = attack.generate(x)
        assert torch.equal(attack.generate(x, y=None), expected)
        assert torch.equal(attack.generate(x, y=predicted), expected)


def test_ties_of_the_prediction_are_shared() -> None:
    weight = torch.tensor([[1.0, 2.0], [0.5, -1.0], [3.0, 0.5]]).double()

    def tied(x: Tensor) -> Tensor:  # logits 1, 1, 0 at the origin
        return x @ weight.T + torch.tensor([1.0, 1.0, 0.0]).double()

    x = torch.zeros(1, 2).double()
    shared = torch.tensor([[0.5, 0.5, 0.0]]).double()
    first = torch.tensor([[1.0, 0.0, 0.0]]).double()
    for order in ORDERS:
        found = fgm(tied, x, ord=order)
        assert torch.equal(found, fgm(tied, x, ord=order, y=shared))
        assert not torch.equal(found, fgm(tied, x, ord=order, y=first))


def test_label_rows_are_divided_by_their_sum() -> None:
    model, (x, _) = mlp(), batch()
    whole = torch.tensor([2.0, 1.0, 1.0]).expand(6, 3)
    for order in ORDERS:
        assert torch.equal(fgm(model, x, y=whole, ord=order), fgm(model, x, y=whole / 4, ord=order))
    assert torch.equal(fgm(model, x, y=whole.long()), fgm(model, x, y=whole))


def test_y_target_descends() -> None:
    model, (x, y) = mlp(), batch()
    for order in ORDERS:
        away = fgm(model, x, y=one_hot(y), ord=order) - x
        towards = fgm(model, x, y_target=one_hot(y), ord=order) - x
        torch.testing.assert_close(towards, -away, rtol=0, atol=1e-15)


def test_the_smallest_batch_does_not_matter_to_the_guard() -> None:
    # semantics.md section 2: ||g|| = .1635e-6 gives .1635 whatever the batch size.
    for size in (1, 8, 64):
        moved = follow([[0.0981e-6, 0.1308e-6]] * size, eps=1.0, ord=2)
        assert float(moved.norm(dim=1)[-1]) == pytest.approx(0.1635)


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("order", "row", "expected"),
    [
        (math.inf, [0.0, -2.0, 3.0, NAN], [0.0, -1.0, 1.0, NAN]),
        (math.inf, [-INF, 0.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0]),
        (2, [INF, 0.0, 1.0, 0.0], [NAN, 0.0, 0.0, 0.0]),
        (2, [NAN, 0.0, 1.0, 0.0], [NAN] * 4),
        (1, [NAN, 0.0, 1.0, 0.0], [NAN] * 4),
        (1, [0.0, -INF, 1.0, 0.0], [0.0, -1.0, 0.0, 0.0]),
        (1, [3.0, -3.0, 1.0, 3.0], [1 / 3, -1 / 3, 0.0, 1 / 3]),
        (2, [0.0] * 4, [0.0] * 4),
        (1, [0.0] * 4, [0.0] * 4),
    ],
)
def test_direction_row_by_row(order: float, row: list[float], expected: list[float]) -> None:
    moved = follow([row], eps=1.0, ord=order)
    torch.testing.assert_close(moved[0], torch.tensor(expected).double(), equal_nan=True)


def test_eps_may_be_negative_zero_or_a_tensor() -> None:
    rows = [[3.0, -4.0], [3.0, 4.0]]
    assert torch.equal(follow(rows, eps=-0.5), -follow(rows, eps=0.5))
    own = follow(rows, eps=torch.tensor([[0.5], [1.0]]), ord=2)
    torch.testing.assert_close(own, torch.tensor([[0.3, -0.4], [0.6, 0.8]]).double())
    clipped = follow(rows, eps=0.0, clip_min=0.25, clip_max=1.0, sanity_checks=False)
    assert clipped.tolist() == [[0.25, 0.25]] * 2  # the clip is still applied


# Ranges


def test_clip_grad_leaves_out_what_would_be_clipped_before_the_norm() -> None:
    x = torch.tensor([[0.0, 1.0, 0.5, 0.5]]).double()
    rows = [[-5.0, 5.0, 3.0, -4.0]]
    kwargs: dict[str, Any] = {"x": x, "eps": 0.1, "clip_min": 0.0, "clip_max": 1.0}
    plain = follow(rows, ord=2, **kwargs)
    torch.testing.assert_close(plain[0, 2:], torch.tensor([0.3, -0.4]).double() / 75**0.5)
    kept = follow(rows, ord=2, clip_grad=True, **kwargs)
    torch.testing.assert_close(kept, torch.tensor([[0.0, 0.0, 0.06, -0.08]]).double())
    assert follow(rows, ord=1, **kwargs).tolist() == [[0.0, 0.0, 0.0, 0.0]]
    torch.testing.assert_close(
        follow(rows, ord=1, clip_grad=True, **kwargs),
        torch.tensor([[0.0, 0.0, 0.0, -0.1]]).double(),
    )
    assert torch.equal(follow(rows, **kwargs), follow(rows, clip_grad=True, **kwargs))
    inward = follow([[5.0, -5.0, 3.0, -4.0]], clip_grad=True, **kwargs)
    torch.testing.assert_close(inward, torch.tensor([[0.1, -0.1, 0.1, -0.1]]).double())


def test_input_out_of_range_is_refused_unless_the_checks_are_off() -> None:
    model, (x, _) = mlp(), batch()
    range_ = {"clip_min": 0.3, "clip_max": torch.full((4,), 0.7)}
    with pytest.raises(ValueError, match="outside of"):
        fgm(model, x, **range_)
    clipped = fgm(model, x, sanity_checks=False, **range_)
    assert 0.3 <= float(clipped.min()) <= float(clipped.max()) <= float(torch.tensor(0.7))
    assert torch.equal(clipped, fgm(model, x).clamp(0.3, float(torch.tensor(0.7))))


def test_crossed_range_gives_the_minimum() -> None:
    moved = follow([[1.0, -1.0]], clip_min=1.0, clip_max=0.0, sanity_checks=False)
    assert moved.tolist() == [[1.0, 1.0]]


# Gradients


@pytest.mark.parametrize("order", ORDERS)
def test_result_is_differentiable_exactly_when_x_requires_grad(order: float) -> None:
    model, (x, _) = mlp(), batch()
    assert not fgm(model, x, ord=order).requires_grad
    leaf = x.clone().requires_grad_()
    with torch.no_grad():
        assert not fgm(model, leaf, ord=order).requires_grad
    found = fgm(model, leaf, ord=order, clip_min=0.0, clip_max=1.0)
    (jacobian,) = torch.autograd.grad(found.sum(), leaf)
    inside = ((found > 0) & (found < 1)).double()
    assert 0 < float(inside.mean()) <= 1
    # 1 where nothing clips; under L2 the direction has a derivative of its own.
    assert torch.equal(jacobian, inside) == (order != 2)


def test_l2_derivative_in_x_agrees_with_finite_differences() -> None:
    model, (x, y) = mlp(), batch(size=2)
    leaf = x.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: fgm(model, z, y=one_hot(y), eps=0.2, ord=2), (leaf,), eps=1e-6, atol=1e-6
    )


# Arrays and wrappers


def test_generate_np_casts_to_the_dtype_of_the_attack() -> None:
    model, (x, y) = mlp(torch.float32), batch()
    attack = v3.FastGradientMethod(model)
    found = attack.generate_np(x.numpy(), y=one_hot(y).numpy(), eps=np.full((6, 1), 0.1))
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.float32
    expected = attack.generate(x.float(), y=one_hot(y), eps=0.1)
    np.testing.assert_array_equal(found, expected.numpy())
    doubled = v3.FastGradientMethod(mlp(), dtypestr="float64")
    assert doubled.generate_np(x.float().numpy()).dtype == np.float64


def test_unknown_parameters_are_warned_of_and_ignored() -> None:
    model, (x, _) = mlp(), batch()
    with pytest.warns(UserWarning, match=r"unused attack parameters: \['epsilon'\]"):
        found = fgm(model, x, epsilon=0.1)
    assert torch.equal(found, fgm(model, x))


def test_wrapper_names_its_output() -> None:
    model, (x, _) = mlp(), batch()
    logits = v3.CallableModelWrapper(model, "logits")
    assert torch.equal(logits.get_logits(x), model(x))
    torch.testing.assert_close(logits.get_probs(x), model(x).softmax(1))
    assert logits.get_params() == list(model.parameters())
    probs = v3.CallableModelWrapper(lambda z: model(z).softmax(1), "probs")
    assert torch.equal(probs.get_probs(x), model(x).softmax(1))
    assert probs.get_params() == []
    assert torch.equal(fgm(logits, x), fgm(model, x))


def test_three_tied_classes_share_in_float32() -> None:
    """float32's 1/3 is more than float64's, which leaves three equal logits a gradient."""
    weight = torch.tensor([[1.0, -1.0], [2.0, 1.0], [-1.0, -3.0]]).double()
    x = torch.zeros(1, 2).double()
    assert float(np.float32(1 / 3)) > 1 / 3
    # Downwards along the sum of the weights, (2, -3).
    assert fgm(lambda x: x @ weight.T, x, eps=0.5).tolist() == [[-0.5, 0.5]]


def test_probabilities_passed_for_logits_are_warned_of() -> None:
    model, (x, _) = mlp(), batch()
    with pytest.warns(UserWarning, match="looks like probabilities"):
        fgm(lambda z: model(z).softmax(1), x)


# Helpers


def test_helpers_of_utils_tf() -> None:
    rows = torch.tensor([[3.0, -4.0]]).double()
    assert v3.optimize_linear(rows, 0.5).tolist() == [[0.5, -0.5]]
    torch.testing.assert_close(
        v3.optimize_linear(rows, 0.5, 2), torch.tensor([[0.3, -0.4]]).double()
    )
    assert v3.optimize_linear(rows, 0.5, 1).tolist() == [[0.0, -0.5]]
    for order, expected in ((math.inf, [1.0, -1.0]), (2, [0.6, -0.8]), (1, [0.0, -1.0])):
        found = v3.clip_eta(rows, order, 1.0)
        torch.testing.assert_close(found, torch.tensor([expected]).double())
        kept = v3.clip_eta(rows, order, 9.0)
        assert torch.equal(kept, rows)
        assert kept.data_ptr() != rows.data_ptr()
        at_bound = found.clone().requires_grad_()
        (derivative,) = torch.autograd.grad(v3.clip_eta(at_bound, order, 1.0)[0, 1], at_bound)
        assert float(derivative[0, 1]) == 1.0
    x = torch.tensor([[0.0, 1.0]]).double()
    assert v3.zero_out_clipped_grads(-rows, x, 0.0, 1.0).tolist() == [[0.0, 0.0]]
    assert torch.equal(v3.zero_out_clipped_grads(rows, x, 0.0, 1.0), rows)
