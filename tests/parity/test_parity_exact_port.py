"""What float32 may do to a correct program: another side of a ReLU, the rounding of a softmax."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchfgsm.parity import port
from torchfgsm.parity.cases import Case, all_cases
from torchfgsm.parity.data import Array, Data
from torchfgsm.parity.exact_port import ExactPort
from torchfgsm.parity.judge import judge
from torchfgsm.parity.originals_side import iterations, up_to
from torchfgsm.parity.verdict import Verdict

CASES = {case.name: case for case in all_cases()}
COUNT, KINK = 1500, 7
ADDED = torch.tensor([3.0, 3, -3]), torch.tensor([-1.0, -1, 1.5])


class Sum(nn.Module):
    """relu(a + b - c) and a plane, as two logits; the sum in one order or the other."""

    input_names = ("x",)

    def __init__(self, left_first: bool) -> None:
        super().__init__()
        self.left_first = left_first
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = x.unbind(1)
        total = a + b - c if self.left_first else a + (b - c)
        first = self.weight * 3 * F.relu(total) + x @ ADDED[1].to(x)
        return torch.stack([first, torch.zeros_like(first)], dim=1)


def batch() -> Data:
    """Examples far from the kink, and one whose sum is 0 in one order, a rounding in the other."""
    random = np.random.default_rng(3)
    x = random.uniform(0.2, 0.4, (COUNT, 3)).astype(np.float32)
    x[:, 2] = random.choice([0.1, 0.9], COUNT)
    while not (0 < float(x[KINK, 0]) + float(x[KINK, 1]) - float(x[KINK, 2]) < 1e-7):
        x[KINK, :2] = random.uniform(0.2, 0.4, 2)
        x[KINK, 2] = x[KINK, 0] + x[KINK, 1]
    return Data({"x": x}, np.ones(COUNT, int), 2)


def gradient(case: Case, model: nn.Module, data: Data, dtype: torch.dtype) -> Array:
    x = torch.from_numpy(data.x["x"]).to(dtype).requires_grad_()
    labels = torch.from_numpy(data.class_numbers(case))
    loss = F.cross_entropy(model.to(dtype)(x), labels, reduction="mean")
    loss = -loss if case.labels == "target" else loss
    found: Array = torch.autograd.grad(loss, x)[0].numpy()
    return found


def judged(
    case: Case, actual: Array, exact: ExactPort | None, model: nn.Module | None = None
) -> Verdict:
    data, original = batch(), Sum(left_first=False)
    turns = iterations(case)
    x, expected = data.x["x"], {}
    for turn in range(1, turns + 1):
        place, here = f"{turn}/" * (turns > 1), dataclasses.replace(data, x={"x": x})
        for word, dtype in (("gradient", torch.float32), ("gradient64", torch.float64)):
            expected[f"{word}/{place}x"] = gradient(case, Sum(left_first=False), here, dtype)
        ended = up_to(case, turn) if turns > 1 else case
        x = expected[f"iterate/{turn}/x"] = port.run_port(ended, original, data)["adv/x"]

    def iterate(turns: int) -> dict[str, Array]:
        return port.run_port(up_to(case, turns), model or original, data)

    expected["gradient/x"] = gradient(case, Sum(left_first=False), data, torch.float32)
    return judge(case, data, expected | {"adv/x": x}, {"adv/x": actual}, iterate, dict, exact)


@pytest.mark.parametrize(
    "name",
    [
        "nsl / linf",
        "cleverhans3 / linf, true labels",
        "cleverhans-tf2 / linf, true labels",
        "cleverhans-tf2 / linf, target",
        "cleverhans-torch / l1, true labels",
        "nsl / linf, PGD-10",
    ],
)
def test_a_kink_explains_either_side_of_it(name: str) -> None:
    case, data, model = CASES[name], batch(), Sum(left_first=True)
    actual = port.run_port(case, model, data)["adv/x"]
    assert not judged(case, actual, None, model).passed
    found = judged(case, actual, ExactPort(case, model, data), model)
    assert found.passed, found.comparison.to_text()
    assert 0 < found.explained <= 3


def test_a_kink_explains_no_sign_that_neither_side_has() -> None:
    case, data, model = CASES["cleverhans-tf2 / linf, true labels"], batch(), Sum(left_first=True)
    actual = port.run_port(case, model, data)["adv/x"]
    side = np.sign(actual[KINK, 0] - data.x["x"][KINK, 0])
    actual[KINK, 0] = data.x["x"][KINK, 0] - side * np.float32(case.params["eps"])
    found = judged(case, actual, ExactPort(case, model, data))
    assert not found.passed
    assert found.comparison.failures[0].first_bad == (KINK, 1)


def test_away_from_a_kink_nothing_is_explained() -> None:
    case, data, model = CASES["cleverhans-tf2 / linf, true labels"], batch(), Sum(left_first=False)
    actual = port.run_port(case, model, data)["adv/x"]
    actual[KINK + 1] = 2 * data.x["x"][KINK + 1] - actual[KINK + 1]
    assert not judged(case, actual, ExactPort(case, model, data)).passed


def test_gradients_of_another_model_explain_nothing() -> None:
    case, data, model = CASES["cleverhans-tf2 / linf, true labels"], batch(), Sum(left_first=True)
    actual = port.run_port(case, model, data)["adv/x"]
    other = Sum(left_first=True)
    other.weight.data.fill_(2)
    assert not judged(case, actual, ExactPort(case, other, data)).passed


class Headed(nn.Module):
    """Two planes and a softmax, which leaves the batch sure of the first class by various leads."""

    input_names = ("x",)

    def __init__(self, *, head: bool = True) -> None:
        super().__init__()
        self.head = head
        self.weight = nn.Parameter(torch.tensor([[9.0, -1.0], [2.0, 3.0], [1.0, -2.0]]))

    def forward(self, x: Tensor) -> Tensor:
        logits = x @ self.weight.to(x)
        return logits.softmax(dim=1) if self.head else logits

    def without_head(self) -> Headed:
        return Headed(head=False)


@pytest.mark.parametrize(("share", "equal"), [(0.9, True), (3.0, False)])
def test_the_rounding_of_the_models_own_softmax_is_one_number_an_example(
    share: float, equal: bool
) -> None:
    """The port's gradient is off by a multiple of the derivative of the surest class' logit."""
    plain = CASES["cleverhans-tf2 / l2, true labels"]
    case, model = dataclasses.replace(plain, output="probabilities"), Headed()
    x = np.random.default_rng(0).uniform(0.5, 1.0, (40, 3)).astype(np.float32)
    data, eps = Data({"x": x}, np.zeros(40, int), 2), case.params["eps"]
    true = gradient(case, model, data, torch.float64)
    exact = ExactPort(case, Headed(), data)
    head = exact.head(data.x, {"x": true})["x"]
    assert (head.slope == np.asarray([9.0, 2.0, 1.0])).all()
    off = np.where(np.arange(40) == 3, share * head.rounding, 0.0)[:, None] * head.slope
    assert np.linalg.norm(off[3]) > 1e-3 * np.linalg.norm(true[3])

    def adv(g: Array) -> Array:
        moved: Array = x + eps * g / np.linalg.norm(g, axis=1, keepdims=True)
        return moved

    theirs = adv(true).astype(np.float32)
    expected = {"adv/x": theirs, "gradient64/x": true, "truth/x": adv(true)}
    actual = {"adv/x": adv(true + off).astype(np.float32)}

    def found(exact: ExactPort | None) -> Verdict:
        return judge(case, data, expected, actual, lambda turns: {}, lambda: actual, exact)

    assert not found(None).passed
    assert found(exact).passed == equal, found(exact).comparison.to_text()


def test_a_model_without_a_head_of_its_own_has_no_such_rounding() -> None:
    case, data = CASES["cleverhans-tf2 / l2, true labels"], batch()
    model = Sum(left_first=True)
    assert ExactPort(case, model, data).head(data.x, {"x": data.x["x"]}) == {}
