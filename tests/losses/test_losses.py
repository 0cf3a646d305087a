"""Keras' losses against values and gradients recorded from Keras, and the per-example losses."""

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from torchfgsm import losses
from torchfgsm.losses import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    MeanSquaredError,
    SparseCategoricalCrossentropy,
    cross_entropy,
    probability_cross_entropy,
    softmax_cross_entropy,
    sparse_softmax_cross_entropy,
)

RECORDED = Path(__file__).parents[1] / "golden" / "losses.npz"
TOLERANCE = {"float32": 1e-6, "float64": 1e-14}
ARRAYS = dict(np.load(RECORDED, allow_pickle=False))
CASES = json.loads(str(ARRAYS["header"]))["cases"]


def case_name(index: int) -> str:
    case = CASES[index]
    keywords = ",".join(f"{key}={value}" for key, value in case["keywords"].items())
    return f"{index}-{case['loss']}({keywords})-{case['dtype']}"


def run(index: int) -> tuple[Tensor, Tensor]:
    case = CASES[index]
    y_pred = torch.tensor(ARRAYS[f"{index}/y_pred"], requires_grad=True)
    loss = getattr(losses, case["loss"])(**case["keywords"])
    value = loss(torch.tensor(ARRAYS[f"{index}/y_true"]), y_pred, ARRAYS.get(f"{index}/weight"))
    (gradient,) = torch.autograd.grad(value.sum(), y_pred)
    return value.detach(), gradient


@pytest.mark.filterwarnings("ignore:the model's output should be probabilities")
@pytest.mark.parametrize("index", range(len(CASES)), ids=case_name)
def test_equals_keras(index: int) -> None:
    if CASES[index]["error"]:
        with pytest.raises(ValueError, match=r"expected .*got"):
            run(index)
        return
    for name, actual in zip(("value", "gradient"), run(index), strict=True):
        expected = ARRAYS[f"{index}/{name}"]
        assert actual.numpy().dtype == expected.dtype
        assert actual.shape == expected.shape
        scale = np.abs(expected).max()
        atol = TOLERANCE[CASES[index]["dtype"]] * scale
        np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=atol, err_msg=name)


def test_the_recording_covers_every_loss_and_reduction() -> None:
    covered = {(c["loss"], c["keywords"].get("reduction"), c["dtype"]) for c in CASES}
    for name in ("Sparse", "Categorical", "Binary", "MeanSquared"):
        for reduction in ("sum_over_batch_size", "sum", "none"):
            for dtype in TOLERANCE:
                assert any(c[0].startswith(name) and c[1:] == (reduction, dtype) for c in covered)
    assert sum(c["error"] is not None for c in CASES) == 14


@pytest.mark.parametrize(
    ("loss", "names"),
    [
        (SparseCategoricalCrossentropy, "from_logits ignore_class reduction name"),
        (CategoricalCrossentropy, "from_logits label_smoothing axis reduction name"),
        (BinaryCrossentropy, "from_logits label_smoothing axis reduction name"),
        (MeanSquaredError, "reduction name"),
    ],
)
def test_parameters_are_those_of_keras(loss: type, names: str) -> None:
    assert list(inspect.signature(loss).parameters) == names.split()


def test_squared_errors_are_averaged_over_the_last_dimension() -> None:
    y_true, y_pred = torch.zeros(1, 2, 3), torch.tensor([[[1.0, 2.0, 3.0], [0.0, 0.0, 6.0]]])
    found = MeanSquaredError(reduction="none")(y_true, y_pred)
    torch.testing.assert_close(found, torch.tensor([[14 / 3, 12.0]]))


# torch 2.6's compiler does what its own autograd warns of.
@pytest.mark.filterwarnings("ignore:.* should not be instantiated:DeprecationWarning")
def test_labels_are_not_looked_at_while_compiling() -> None:
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 2])
    loss = SparseCategoricalCrossentropy(from_logits=True)
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(labels, logits), loss(labels, logits))


def test_weighted_mean_divides_by_the_number_of_elements() -> None:
    loss = MeanSquaredError()(torch.zeros(2, 1), torch.tensor([[1.0], [2.0]]), [3, -1])
    assert loss == (3 * 1 - 1 * 4) / 2


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 1, 1), (4, 3, 4), (4, 3, 4, 1)])
def test_weights_are_per_example_also_where_the_width_equals_the_batch(
    shape: tuple[int, ...],
) -> None:
    logits, labels = torch.randn(4, 3, 4, 5), torch.ones(4, 3, 4)
    weight = torch.arange(4.0).reshape(4, *[1] * (len(shape) - 1)).expand(shape)
    loss = SparseCategoricalCrossentropy(True, reduction="none")
    expected = loss(labels, logits) * torch.arange(4.0)[:, None, None]
    assert torch.equal(loss(labels, logits, weight), expected)


def test_labels_and_weights_may_be_lists_and_arrays_of_any_dtype() -> None:
    y_true, y_pred = torch.rand(4, 2), torch.rand(4, 2)
    weight = torch.tensor([1.0, 2.0, 0.0, 1.0])
    loss = MeanSquaredError(reduction="none")
    expected = loss(y_true, y_pred, weight)
    for labels in (y_true.tolist(), y_true.numpy()):
        for weights in (weight.tolist(), weight.numpy(), weight.double(), weight.int()):
            found = loss(labels, y_pred, weights)
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, expected)


def test_ignoring_every_element_gives_zero() -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    loss = SparseCategoricalCrossentropy(True, ignore_class=-1)(torch.tensor([-1, -1]), logits)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss == 0
    assert torch.equal(logits.grad, torch.zeros(2, 3))  # type: ignore[arg-type]


def test_the_mean_is_over_the_elements_that_count() -> None:
    logits = torch.randn(2, 3)
    loss = SparseCategoricalCrossentropy(True, ignore_class=-1)(torch.tensor([-1, 2]), logits)
    torch.testing.assert_close(loss, F.cross_entropy(logits[1:], torch.tensor([2])))


def test_saturated_right_answer_keeps_a_gradient() -> None:
    logit = torch.tensor([[20.0]], requires_grad=True)
    loss = BinaryCrossentropy(from_logits=True)(torch.ones(1, 1), logit)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logit.grad is not None
    np.testing.assert_allclose(logit.grad.item(), -2.0611537e-09, rtol=1e-6)


B, C = (4, 1), (4, 3)
LOGITS = torch.zeros(C)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: MeanSquaredError(reduction="mean"), ValueError, "'mean'"),
        (lambda: MeanSquaredError()(torch.ones(4), torch.ones(B)), ValueError, r"\(4,\).*\(4, 1\)"),
        (lambda: MeanSquaredError()([[1]], torch.ones(1, 1).int()), TypeError, "int32"),
        (lambda: MeanSquaredError()([[1]], [[1.0]]), TypeError, "list"),  # type: ignore[arg-type]
        (
            lambda: BinaryCrossentropy()(torch.ones(4), torch.full(B, 0.5)),
            ValueError,
            r"y_true \(4,\) and y_pred \(4, 1\)",
        ),
        (
            lambda: CategoricalCrossentropy()(torch.ones(B), LOGITS),
            ValueError,
            r"y_true \(4, 1\) and y_pred \(4, 3\)",
        ),
        (
            lambda: SparseCategoricalCrossentropy()(torch.ones(C), LOGITS),
            ValueError,
            "CategoricalCrossentropy",
        ),
        (
            lambda: CategoricalCrossentropy(True)(torch.ones(C), LOGITS, torch.ones(1, 4)),
            ValueError,
            r"\(1, 4\) for losses \(4,\)",
        ),
        (lambda: cross_entropy(LOGITS, torch.full((4,), 3)), ValueError, "from 0 to 2.*3 to 3"),
        (lambda: cross_entropy(LOGITS, torch.full((4,), -1)), ValueError, "-1 to -1"),
        (
            lambda: probability_cross_entropy(LOGITS.softmax(1), torch.full((4,), 3)),
            ValueError,
            "from 0 to 2.*3 to 3",
        ),
        (lambda: cross_entropy(LOGITS, torch.ones(4)), ValueError, r"\(4,\) of torch.float32"),
        (lambda: cross_entropy(LOGITS, torch.ones(B).long()), ValueError, r"\(4, 1\).*\(4, 3\)"),
        (lambda: cross_entropy(LOGITS, torch.ones(3).long()), ValueError, r"\(3,\)"),
        (lambda: cross_entropy(LOGITS, torch.ones(C).long()), ValueError, "float rows"),
        (lambda: cross_entropy(torch.ones(B), torch.full((4,), 2)), ValueError, "0 to 1"),
        (
            lambda: cross_entropy(torch.ones(B), torch.ones(3)),
            ValueError,
            r"0/1 labels of shape \(4,\) or \(4, 1\).*\(3,\)",
        ),
        (lambda: cross_entropy(torch.ones(4, 1, 5), torch.ones(4, 5).int()), ValueError, "classes"),
        (lambda: cross_entropy(LOGITS.int(), torch.ones(4).int()), TypeError, "int32"),
        (lambda: cross_entropy(LOGITS, [1] * 4), TypeError, "list"),  # type: ignore[arg-type]
        (lambda: softmax_cross_entropy(torch.ones(4).int(), LOGITS), ValueError, r"\(4,\)"),
        (lambda: sparse_softmax_cross_entropy(torch.ones(4), LOGITS), ValueError, "float32"),
        (lambda: sparse_softmax_cross_entropy(torch.ones(C).int(), LOGITS), ValueError, "(4, 3)"),
    ],
)
def test_refusals(call: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()


def test_one_class_is_worth_a_warning() -> None:
    with pytest.warns(UserWarning, match="one class") as caught:
        CategoricalCrossentropy(True)(torch.ones(2, 1), torch.ones(2, 1))
    assert caught[0].filename == __file__


def test_labels_of_every_kind_give_the_same_loss_per_example() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 2, 0])
    rows = F.one_hot(labels, 3).float()
    expected = F.cross_entropy(logits, labels, reduction="none")
    for target in (labels, labels.int(), labels.to(torch.uint8), rows, rows.double()):
        torch.testing.assert_close(cross_entropy(logits, target), expected)
        actual = probability_cross_entropy(logits.softmax(1), target)
        torch.testing.assert_close(actual, expected)
    for soft in (rows, rows.double(), rows.int()):
        torch.testing.assert_close(softmax_cross_entropy(labels=soft, logits=logits), expected)
    for integers in (labels, labels.int(), labels.to(torch.uint8)):
        actual = sparse_softmax_cross_entropy(labels=integers, logits=logits)
        torch.testing.assert_close(actual, expected)


def test_soft_rows_are_not_normalised() -> None:
    logits, rows = torch.randn(5, 3), torch.rand(5, 3)
    torch.testing.assert_close(cross_entropy(logits, 2 * rows), 2 * cross_entropy(logits, rows))


@pytest.mark.parametrize("positions", [(6,), (4, 5)])
def test_dense_labels_are_summed_over_positions(positions: tuple[int, ...]) -> None:
    logits, labels = torch.randn(2, 3, *positions), torch.randint(0, 3, (2, *positions))
    elements = F.cross_entropy(logits, labels, reduction="none")
    rows = F.one_hot(labels, 3).movedim(-1, 1).float()
    probabilities = logits.softmax(1)
    for target in (labels, rows):
        actual = cross_entropy(logits, target)
        torch.testing.assert_close(actual, elements.flatten(1).sum(1))
        torch.testing.assert_close(probability_cross_entropy(probabilities, target), actual)


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
@pytest.mark.parametrize("target_shape", [(4,), (4, 1)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32])
def test_binary_models(
    shape: tuple[int, ...], target_shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    logits = torch.tensor([-2.0, 3.0, 20.0, -20.0])
    bits = torch.tensor([0.0, 1.0, 1.0, 1.0])
    expected = F.binary_cross_entropy_with_logits(logits, bits, reduction="none")
    target = bits.reshape(target_shape).to(dtype)
    torch.testing.assert_close(cross_entropy(logits.reshape(shape), target), expected)
    shape, target_shape = (2, *shape[1:]), (2, *target_shape[1:])
    probabilities, target = logits[:2].sigmoid().reshape(shape), target[:2].reshape(target_shape)
    actual = probability_cross_entropy(probabilities, target)
    torch.testing.assert_close(actual, expected[:2], rtol=1e-5, atol=1e-6)


def test_range_is_not_looked_at_on_request() -> None:
    probabilities = torch.full((1, 1), 0.5)
    assert cross_entropy(probabilities, torch.tensor([7]), validate=False).shape == (1,)


def test_unnormalised_labels_have_tensorflows_gradient() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64, requires_grad=True)
    rows = torch.tensor([[2.0, 1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    softmax_cross_entropy(rows, logits).sum().backward()  # type: ignore[no-untyped-call]
    assert rows.grad is None
    torch.testing.assert_close(logits.grad, logits.detach().softmax(1) - rows.detach())


def test_saturated_float32_gradients_stay_close_to_float64() -> None:
    rng = np.random.default_rng(0)
    labels = torch.tensor(rng.integers(0, 10, 2000))
    logits = torch.tensor(rng.normal(size=(2000, 10)), dtype=torch.float32)
    logits[torch.arange(2000), labels] += torch.linspace(0, 16, 2000)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        z = logits.to(dtype).requires_grad_()
        loss = sparse_softmax_cross_entropy(labels, z).sum()
        gradients.append(torch.autograd.grad(loss, z)[0].double())
    # Rounding the sum and the quotient costs 3/4 of a unit in the last place of 1; torch.softmax 3.
    assert (gradients[0] - gradients[1]).abs().max() < 0.8 * 2**-23


def test_second_derivative() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 3])
    assert torch.autograd.gradcheck(lambda z: sparse_softmax_cross_entropy(labels, z), (logits,))
    assert torch.autograd.gradgradcheck(
        lambda z: sparse_softmax_cross_entropy(labels, z), (logits,)
    )


def test_masked_logits_have_finite_loss_and_gradient() -> None:
    logits = torch.tensor([[1.0, -torch.inf, 0.0]], requires_grad=True)
    loss = sparse_softmax_cross_entropy(torch.tensor([0]), logits)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss).all()
    assert torch.isfinite(logits.grad).all()  # type: ignore[arg-type]


def test_a_dense_output_of_one_class_is_refused() -> None:
    labels = torch.zeros(3, 2, 2, dtype=torch.long)
    with pytest.raises(ValueError, match="at least two classes"):
        losses.cross_entropy(torch.zeros(3, 1, 2, 2), labels)
