"""Directions, projections and random starts of the three norms."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from layouts import laid_out
from torch import Tensor
from toy_models import Linear, noise, score, size_of

from torchfgsm import fgsm
from torchfgsm.core import norms

NORMS = ("linf", "l2", "l1")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
GUARD = 1e-12


def t(values: object, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(values, dtype=dtype)


def one(grad: Tensor, norm: str, *, guard: float = 0.0, nan_has_sign: bool = True) -> Tensor:
    (found,) = norms.direction([grad], norm, guard=guard, nan_has_sign=nan_has_sign)
    return found


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# Directions


@pytest.mark.parametrize("eps", [0.0, 0.3, 2.0])
@pytest.mark.parametrize(("norm", "dual"), [("linf", 1.0), ("l2", 2.0), ("l1", float("inf"))])
def test_step_on_a_linear_model_reaches_the_dual_norm(norm: str, dual: float, eps: float) -> None:
    weight = noise(3, 5, dtype=torch.float64)
    model, x = Linear(weight), noise(4, 3, 5, seed=1, dtype=torch.float64)
    adversarial = fgsm(model, x, torch.zeros(4), eps=eps, norm=norm, loss_fn=score)
    gained = model(adversarial) - model(x)
    best = eps * torch.linalg.vector_norm(weight.flatten(), dual)
    torch.testing.assert_close(gained, best.expand(4), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("guard", [0.0, GUARD])
@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        ("linf", [1.0, -1.0, 1.0, 1.0]),
        ("l1", [1 / 3, -1 / 3, 0.0, 1 / 3]),
        ("l2", [3 / 28**0.5, -3 / 28**0.5, 1 / 28**0.5, 3 / 28**0.5]),
    ],
)
def test_direction_of_a_row_with_ties(norm: str, expected: list[float], guard: float) -> None:
    torch.testing.assert_close(one(t([[3.0, -3.0, 1.0, 3.0]]), norm, guard=guard), t([expected]))


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_steps_of_constant_size_carry_no_derivative(norm: str) -> None:
    assert not one(t([[1.0, -2.0]]).requires_grad_(), norm).requires_grad


def test_by_default_no_guard_and_no_sign_of_nan() -> None:
    small, broken = t([[3e-9, -4e-9]]), t([[float("nan"), 2.0]])
    torch.testing.assert_close(norms.direction([small], "l2")[0], t([[0.6, -0.8]]))
    assert norms.direction([broken], "linf")[0].tolist() == [[0.0, 1.0]]


def test_direction_is_joint_over_features() -> None:
    a, b, c = t([[1.0, 2.0]]), t([[2.0, -4.0]]), t([[4.0, 0.0]])
    l2 = norms.direction([a, b], "l2", guard=GUARD)
    torch.testing.assert_close(l2, [t([[0.2, 0.4]]), t([[0.4, -0.8]])])
    l1 = norms.direction([a, b, c], "l1")
    assert [d.tolist() for d in l1] == [[[0.0, 0.0]], [[0.0, -0.5]], [[0.5, 0.0]]]
    linf = norms.direction([a, b, c], "linf")
    assert [d.tolist() for d in linf] == [[[1.0, 1.0]], [[1.0, -1.0]], [[1.0, 0.0]]]


@pytest.mark.parametrize("norm", NORMS)
def test_direction_apart_is_that_of_each_feature_alone(norm: str) -> None:
    a, b = noise(3, 2), 9 * noise(3, 5, seed=1)
    found = norms.direction([a, b], norm, joint=False)
    assert torch.equal(found[0], one(a, norm))
    assert torch.equal(found[1], one(b, norm))
    joint = norms.direction([a, b], norm)
    assert torch.equal(joint[0], found[0]) == (norm == "linf")


@pytest.mark.parametrize("guard", [0.0, GUARD])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", NORMS)
def test_zero_gradient_gives_zero_step_and_keeps_the_dtype(
    norm: str, dtype: torch.dtype, guard: float
) -> None:
    grad = t([[0.0, 0.0, 0.0], [0.0, -2.0, 0.0]], dtype)
    found = one(grad, norm, guard=guard)
    assert found.dtype == dtype
    assert found.tolist() == [[0.0, 0.0, 0.0], [0.0, -1.0, 0.0]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("norm", NORMS)
def test_huge_and_subnormal_gradients_have_full_length(norm: str, dtype: torch.dtype) -> None:
    info = torch.finfo(dtype)
    zero, up = np.array([0, 1], str(dtype)[6:])
    subnormal = float(np.nextafter(zero, up))
    rows = t([[info.max, -info.max, 0.0], [subnormal, 0.0, 0.0], [info.tiny, 0.0, 0.0]], dtype)
    found = one(rows, norm)
    torch.testing.assert_close(size_of(found, norm), torch.ones(3, dtype=torch.float64))
    assert bool((torch.sign(found) == torch.sign(rows)).all())


def test_guard_shrinks_small_gradients_and_overflow_gives_none() -> None:
    # semantics.md section 2: ||g|| = .1635e-6, and g^2 beyond float32.
    small = t([[0.0981e-6, 0.1308e-6]])
    assert float(size_of(one(small, "l2", guard=GUARD), "l2")) == pytest.approx(0.1635, rel=1e-6)
    assert float(size_of(one(small, "l2"), "l2")) == pytest.approx(1.0, rel=1e-6)
    assert one(t([[1e20, 1e20]]), "l2", guard=GUARD).tolist() == [[0.0, 0.0]]


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("norm", "row", "nan_has_sign", "expected"),
    [
        ("linf", [NAN, 1.0, 0.0, 0.0], True, [0.0, 1.0, 0.0, 0.0]),
        ("linf", [NAN, 1.0, 0.0, 0.0], False, [NAN, 1.0, 0.0, 0.0]),
        ("linf", [-INF, 1.0, 0.0, 0.0], False, [-1.0, 1.0, 0.0, 0.0]),
        ("l2", [NAN, 1.0, 0.0, 0.0], False, [NAN] * 4),
        ("l2", [INF, 1.0, 2.0, 0.0], False, [NAN, 0.0, 0.0, 0.0]),
        ("l1", [NAN, 1.0, 0.0, 0.0], True, [NAN] * 4),
        ("l1", [-INF, 1.0, 0.0, 0.0], True, [-1.0, 0.0, 0.0, 0.0]),
    ],
)
def test_nonfinite_entries_as_in_cleverhans(
    norm: str, row: list[float], nan_has_sign: bool, expected: list[float]
) -> None:
    rows = t([row, [1.0, 0.0, 0.0, 0.0]])
    found = one(rows, norm, guard=GUARD, nan_has_sign=nan_has_sign)
    torch.testing.assert_close(found[0], t(expected), equal_nan=True)
    assert found[1].tolist() == [1.0, 0.0, 0.0, 0.0]  # other examples do not see it


@pytest.mark.parametrize("guard", [0.0, GUARD])
@pytest.mark.parametrize("elements", [1, 3, 784, 5001])
def test_l2_is_within_3_ulp_of_float64(elements: int, guard: float) -> None:
    grad = noise(8, elements, seed=elements) * t([1e-3, 1e3]).repeat(4)[:, None]
    exact = one(grad.double(), "l2").numpy()
    naive = grad.double().numpy()
    np.testing.assert_allclose(
        exact, naive / np.linalg.norm(naive, axis=1, keepdims=True), rtol=1e-14
    )
    ulps = np.abs(one(grad, "l2", guard=guard).numpy() - exact) / np.spacing(
        np.abs(exact).astype(np.float32)
    )
    assert ulps.max() <= 3


def test_scaling_by_a_power_of_two_rounds_nothing() -> None:
    grad = noise(50, 7) * 100
    assert torch.equal(one(grad, "l2", guard=0.0), one(grad, "l2", guard=GUARD))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_reduces_in_float32(dtype: torch.dtype) -> None:
    grad = (noise(4, 4096) * 8).to(dtype)  # the sum of squares is beyond float16
    found = one(grad, "l2", guard=GUARD)
    assert found.dtype == dtype
    assert torch.equal(found, one(grad.float(), "l2", guard=GUARD).to(dtype))
    assert torch.allclose(size_of(found, "l2"), torch.ones(4, dtype=torch.float64), rtol=1e-2)


# The same bits


@pytest.mark.parametrize("kind", ["channels_last", "sliced", "transposed", "batch moved"])
@pytest.mark.parametrize("guard", [0.0, GUARD])
@pytest.mark.parametrize("norm", NORMS)
def test_direction_has_the_same_bits_whatever_the_strides(
    norm: str, guard: float, kind: str
) -> None:
    grad = noise(5, 3, 7, 9)
    other = laid_out(grad, kind)
    assert not other.is_contiguous()
    assert torch.equal(one(other, norm, guard=guard), one(grad, norm, guard=guard))


@pytest.mark.parametrize("kind", ["channels_last", "sliced", "transposed", "batch moved"])
@pytest.mark.parametrize("norm", NORMS)
def test_projection_has_the_same_bits_whatever_the_strides(norm: str, kind: str) -> None:
    delta = noise(5, 3, 7, 9)
    (found,) = norms.project([laid_out(delta, kind)], [0.5], norm)
    assert torch.equal(found, norms.project([delta], [0.5], norm)[0])


@pytest.mark.parametrize("guard", [0.0, GUARD])
@pytest.mark.parametrize("norm", NORMS)
def test_columns_have_the_same_bits_as_rows(norm: str, guard: float) -> None:
    rows = noise(64, 1000)
    columns = rows.t().contiguous().t()  # the rows stay a view with a stride
    assert torch.equal(one(columns, norm, guard=guard), one(rows, norm, guard=guard))
    assert torch.equal(norms.tree_sum(columns), norms.tree_sum(rows))
    assert torch.equal(norms.tree_sum(rows[:1]), norms.tree_sum(rows)[:1])


@pytest.mark.parametrize("norm", NORMS)
def test_same_bits_whatever_the_threads_and_the_batch_split(norm: str, threads: None) -> None:
    grad = noise(6, 3, 100, 101)  # large enough for torch to use several threads
    torch.set_num_threads(2)
    two = one(grad, norm), norms.project([grad], [0.5], norm)[0]
    torch.set_num_threads(1)
    alone = one(grad, norm), norms.project([grad], [0.5], norm)[0]
    parts = [(one(g[None], norm), norms.project([g[None]], [0.5], norm)[0]) for g in grad]
    for index in (0, 1):
        assert torch.equal(two[index], alone[index])
        assert torch.equal(torch.cat([part[index] for part in parts]), alone[index])


@pytest.mark.parametrize("elements", [0, 1, 2, 3, 5, 1000, 1001])
def test_tree_sum_adds_every_element_once(elements: int) -> None:
    rows = torch.arange(2 * elements, dtype=torch.float64).reshape(2, elements)
    assert norms.tree_sum(rows).tolist() == rows.sum(1).tolist()
