"""A converted model with and without its head, and who is given which of the two."""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx2torch")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from torchfgsm import (  # noqa: E402
    Configuration,
    Recipe,
    Weighting,
    adversarial_loss,
    adversarial_step,
    attack,
    evaluate,
    explain,
)
from torchfgsm.cleverhans import tf2, v3  # noqa: E402
from torchfgsm.cleverhans import torch as cleverhans_torch  # noqa: E402
from torchfgsm.converters import ConvertedModel  # noqa: E402
from torchfgsm.converters.onnx_side.inference import infer  # noqa: E402
from torchfgsm.converters.torch_side.building import build  # noqa: E402
from torchfgsm.explanation.traps.finding import find_traps  # noqa: E402
from torchfgsm.losses.output_form import OutputForm, form_of  # noqa: E402
from torchfgsm.parity import user  # noqa: E402

WEIGHT = np.array([[1.0, -0.5, 0.2], [-0.3, 0.8, 0.4], [0.5, 0.1, -0.9]], np.float32)
L2 = Recipe.cleverhans_tf2(0.1, 2)
PUT_BACK = "ignore:the (softmax|sigmoid) that was cut off"


def classifier(*end: tuple[str, dict[str, Any]], classes: int = 3) -> ConvertedModel:
    """A matrix product and what stands behind it."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z0"], "product")]
    for i, (operation, attributes) in enumerate(end):
        given = [f"z{i}", "rows"] if operation == "Reshape" else [f"z{i}"]
        name = operation.lower()
        nodes.append(helper.make_node(operation, given, [f"z{i + 1}"], name, **attributes))
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "graph",
        [info("x", TensorProto.FLOAT, ["n", 3])],
        [info(f"z{len(end)}", TensorProto.FLOAT, ["n", classes])],
        [
            numpy_helper.from_array(np.ascontiguousarray(WEIGHT[:, :classes]), "w"),
            numpy_helper.from_array(np.array([-1, classes]), "rows"),
        ],
    )
    opsets = [helper.make_opsetid("", 13)]
    made = onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=opsets, ir_version=8)
    )
    return build(made, infer(made, "classifier"))


SOFTMAX = ("Softmax", {"axis": -1})


@pytest.fixture
def model() -> ConvertedModel:
    return classifier(SOFTMAX)


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(8, 3, generator=generator), torch.arange(8) % 3


def double_softmax(x: Tensor, y: Tensor, eps: float = 0.1) -> Tensor:
    """CleverHans 4's L2 step on a softmax's output in float64, by the chain rule."""
    weight = torch.from_numpy(WEIGHT).double()
    p = (x.double() @ weight).softmax(1)
    g = p.softmax(1) - F.one_hot(y, 3)  # by the probabilities
    g = p * (g - (p * g).sum(1, keepdim=True))  # by the logits
    g = g @ weight.T
    moved: Tensor = eps * g / g.norm(dim=1, keepdim=True)
    return moved


def test_views_share_weights_and_modes(model: ConvertedModel) -> None:
    x, _ = batch()
    whole, logits = model.with_head(), model.without_head()
    torch.testing.assert_close(whole(x), logits(x).softmax(1))
    assert torch.equal(model(x), logits(x))
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    assert torch.equal(whole.without_head()(x), model(x))
    torch.testing.assert_close(whole(x), model(x).softmax(1))
    assert form_of(whole) == OutputForm("probabilities", "softmax", -1)
    assert form_of(logits) == OutputForm("logits", "softmax", -1)
    assert form_of(model) == OutputForm("logits", "softmax", -1, cut=True)
    assert model.keep_head is False
    copied = copy.deepcopy(whole)
    assert torch.equal(copied(x), whole(x))


@pytest.mark.filterwarnings(PUT_BACK)
@pytest.mark.parametrize("wrapped", [False, True])
def test_cleverhans_4_takes_the_softmaxs_output_for_logits(
    model: ConvertedModel, wrapped: bool
) -> None:
    x, y = batch()
    given = nn.DataParallel(model) if wrapped else model
    expected = double_softmax(x, y)
    for found in (
        attack(given, x, y, recipe=L2),
        tf2.fast_gradient_method(given, x, 0.1, 2, y=y),
        cleverhans_torch.fast_gradient_method(given, x, 0.1, 2, y=y),
    ):
        torch.testing.assert_close((found - x).double(), expected, rtol=0, atol=1e-6)
    predicted = attack(given, x, recipe=L2) - x
    labels = model(x).argmax(1)
    torch.testing.assert_close(predicted.double(), double_softmax(x, labels), rtol=0, atol=1e-6)


def test_all_others_take_the_logits(model: ConvertedModel) -> None:
    x, y = batch()
    weight = torch.from_numpy(WEIGHT).double()
    g = ((x.double() @ weight).softmax(1) - F.one_hot(y, 3)) @ weight.T
    expected = 0.1 * g / g.norm(dim=1, keepdim=True)
    rows = F.one_hot(y, 3).float()
    for found in (
        attack(model, x, y, recipe=dataclasses.replace(L2, model_output="logits")),
        attack(model.without_head(), x, y, recipe=L2),
        tf2.fast_gradient_method(model.without_head(), x, 0.1, 2, y=y),
        v3.FastGradientMethod(model).generate(x, eps=0.1, ord=2, y=rows),
        attack(model, x, y, recipe=Recipe.nsl(0.1, "l2")),
    ):
        torch.testing.assert_close((found - x).double(), expected, rtol=0, atol=1e-6)


def test_putting_it_back_is_said(model: ConvertedModel) -> None:
    x, y = batch()
    with pytest.warns(UserWarning, match=r"softmax that was cut off .*without_head\(\)") as said:
        attack(model, x, y, recipe=L2)
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attack(model, x, y, recipe=L2, loss_fn=lambda z, y: F.cross_entropy(z, y))


def test_a_loss_of_the_callers_own_takes_what_the_model_gives(model: ConvertedModel) -> None:
    x, y = batch()
    seen: list[Tensor] = []

    def loss_fn(output: Tensor, y: Tensor) -> Tensor:
        seen.append(output.detach())
        return F.cross_entropy(output, y)

    attack(model, x, y, recipe=L2, loss_fn=loss_fn)
    assert torch.equal(seen[0], model(x))


@pytest.mark.filterwarnings(PUT_BACK)
def test_evaluation_scores_the_model_itself(model: ConvertedModel) -> None:
    x, y = batch()
    report = evaluate(model, [(x, y)], recipe=L2)
    moved = x + double_softmax(x, y).float()
    with torch.no_grad():
        clean, adversarial = (float(F.cross_entropy(model(z), y)) for z in (x, moved))
    assert report.clean_loss == pytest.approx(clean, rel=1e-5)
    assert report.adversarial_loss == pytest.approx(adversarial, rel=1e-5)


@pytest.mark.filterwarnings(PUT_BACK)
def test_training_takes_the_logits_and_the_attack_does_not(model: ConvertedModel) -> None:
    x, y = batch()
    moved = x + double_softmax(x, y).float()
    expected = F.cross_entropy(model(x), y) + 0.5 * F.cross_entropy(model(moved), y)
    recipe = dataclasses.replace(L2, through_perturbation=False)
    found = adversarial_loss(model, x, y, recipe=recipe, weighting=Weighting(1, 0.5))
    torch.testing.assert_close(found.loss, expected)
    step = adversarial_step(model, x, y, recipe=recipe, weighting=Weighting(1, 0.5))
    torch.testing.assert_close(step.loss, expected.detach())


@pytest.mark.filterwarnings(PUT_BACK)
def test_several_sigmoids_are_put_back_and_a_single_one_is_not() -> None:
    x, y = batch()
    several = classifier(("Sigmoid", {}))
    weight = torch.from_numpy(WEIGHT).double()
    leaf = x.double().requires_grad_()
    loss = F.cross_entropy((leaf @ weight).sigmoid(), y, reduction="sum")
    (g,) = torch.autograd.grad(loss, leaf)
    moved = tf2.fast_gradient_method(several, x, 0.1, 2, y=y) - x
    expected = 0.1 * g / g.norm(dim=1, keepdim=True)
    torch.testing.assert_close(moved.double(), expected, rtol=0, atol=1e-6)
    single = classifier(("Sigmoid", {}), classes=1)
    moved = attack(single, x, y % 2, recipe=Recipe.cleverhans_tf2(0.1, math.inf)) - x
    up = torch.where(y % 2 == 1, -1.0, 1.0)[:, None] * torch.from_numpy(WEIGHT[:, :1]).T.sign()
    torch.testing.assert_close(moved, 0.1 * up)
    given = Configuration.of("cleverhans-tf2", {"eps": 0.1, "norm": np.inf})
    names = [trap.name for trap in find_traps(single, x, y % 2, given, given)]
    assert "one class" in names
    assert "probabilities taken for logits" not in names


def sides() -> dict[str, Any]:
    options = {"eps": 0.1, "norm": 2, "labels": "given"}
    return {
        "a": Configuration.of("nsl", {"adv_step_size": 0.1, "reduction": "sum"}),
        "b": Configuration.of("cleverhans-tf2", options),
    }


@pytest.mark.parametrize("kept", [False, True])
def test_explain_gives_each_side_what_its_library_would_have_got(
    model: ConvertedModel, kept: bool
) -> None:
    x, y = batch()
    given = model.with_head() if kept else model
    found = explain(given, x, y, **sides(), epsilons=())
    expected = double_softmax(x, y).numpy()
    assert found.b.perturbations["x"] == pytest.approx(expected, abs=1e-6)
    moving = [e.name for e in found.effects if e.from_a is not None and e.from_a.examples]
    assert moving == ["model_output"]
    (effect,) = (e for e in found.effects if e.name == "model_output")
    assert effect.values == ("logits", "with_head")
    traps = {trap.name: trap for trap in found.traps}
    assert traps["probabilities taken for logits"].side == "b"
    assert traps["head cut off"].side == "both"
    assert found.facts["model_output"] == ("probabilities" if kept else "logits")
    text = " ".join(found.to_text().split())
    assert "cut Softmax (softmax)" in text
    assert "NSL's Keras loss and CleverHans 3's KerasModelWrapper find the logits" in text


def test_explain_of_a_model_without_a_head_finds_nothing_there(model: ConvertedModel) -> None:
    x, y = batch()
    found = explain(model.without_head(), x, y, **sides(), epsilons=())
    (effect,) = (e for e in found.effects if e.name == "model_output")
    assert effect.from_a is not None
    assert effect.from_a.relative_l2 == 0
    assert "probabilities taken for logits" not in {trap.name for trap in found.traps}


def test_a_head_that_keras_does_not_find() -> None:
    x, y = batch()
    hidden = classifier(SOFTMAX, ("Reshape", {}))
    assert hidden.found_heads[0].hidden_from_keras
    traps = {trap.name: trap for trap in find_traps(hidden, x, y, *sides().values())}
    assert traps["head hidden from Keras"].side == "a"
    assert "NSL's Keras loss does not find the logits behind Reshape" in repr(hidden)
    clipped = Configuration.of("nsl", {"adv_step_size": 0.1, "model_output": "probabilities"})
    names = {trap.name for trap in find_traps(hidden, x, y, clipped, clipped)}
    assert "head hidden from Keras" not in names


def test_print_says_what_was_cut_and_who_sees_what(model: ConvertedModel) -> None:
    text = repr(model)
    assert "logits: output 'z1': cut Softmax (softmax)" in text
    assert "head: NSL's Keras loss and CleverHans 3's KerasModelWrapper find the logits" in text
    assert "CleverHans 4 takes the output of the softmax for logits" in text
    assert "head:" not in repr(classifier())
    assert "head:" not in repr(model.without_head())


@pytest.mark.parametrize(
    ("end", "given"),
    [
        ((), ["logits"] * 4),
        ((SOFTMAX,), ["logits", "logits", "probabilities", "probabilities"]),
        ((SOFTMAX, ("Reshape", {})), ["probabilities"] * 4),
        ((("Sigmoid", {}),), ["probabilities"] * 4),
    ],
    ids=["none", "softmax", "hidden", "sigmoid"],
)
def test_compare_gives_each_library_its_own_output(end: Any, given: list[str]) -> None:
    x, y = batch()
    converted = classifier(*end)
    data = user.data_for(converted, {"x": x.numpy(), "y": y.numpy()})
    libraries = ["nsl", "cleverhans3", "cleverhans-tf2", "cleverhans-torch"]
    cases = user.cases(libraries, data, 0.1, converted.found_heads[0])
    outputs = {case.library: case.output for case in cases}
    assert list(outputs.values()) == given
    from_logits = {case.loss["from_logits"] for case in cases if case.library == "nsl"}
    assert from_logits == {given[0] == "logits"}
    said = list(user.what_is_compared(cases, converted.found_heads[0]))
    assert len(said) == (5 if end else 0)


class Logits(nn.Module):
    """The input, far from probabilities."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * x


def test_probabilities_are_believed_where_the_rows_are_such() -> None:
    x, y = batch()
    plain: dict[str, Any] = {
        "a": Configuration.of("nsl", {"adv_step_size": 0.1}),
        "b": sides()["b"],
    }
    truth = explain(Logits(), x, y, **plain, epsilons=())
    found = explain(Logits(), x, y, **plain, epsilons=(), model_output="probabilities")
    assert (found.clean_loss, found.a.loss) == (truth.clean_loss, truth.a.loss)
    assert found.facts["model_output"] == "logits"
    names = {trap.name: trap for trap in found.traps}
    assert "probabilities taken for logits" not in names
    assert (names["no probabilities"].count, names["no probabilities"].side) == (8, "both")
    assert set(names) - {trap.name for trap in truth.traps} == {"no probabilities"}
    right = explain(
        nn.Sequential(Logits(), nn.Softmax(1)), x, y, **plain, epsilons=(),
        model_output="probabilities",
    )  # fmt: skip
    taken = {trap.name: trap for trap in right.traps}
    assert "no probabilities" not in taken
    assert taken["probabilities taken for logits"].count == 8


def test_a_converted_model_knows_better_than_its_caller(model: ConvertedModel) -> None:
    x, y = batch()
    truth = explain(model, x, y, **sides(), epsilons=())
    found = explain(model, x, y, **sides(), epsilons=(), model_output="probabilities")
    assert found.clean_loss == truth.clean_loss
    assert np.array_equal(found.a.perturbations["x"], truth.a.perturbations["x"])
    traps = {trap.name: trap for trap in found.traps}
    assert traps["no probabilities"].count == 8
    assert traps["probabilities taken for logits"].side == "b"


@pytest.mark.filterwarnings(PUT_BACK)
def test_recipes_of_probabilities_see_the_head(model: ConvertedModel) -> None:
    x, y = batch()
    a = Recipe(labels="given", step=0.1, norm="l2", guard=1e-12)
    b = dataclasses.replace(a, model_output="probabilities")
    found = explain(model, x, y, a=a, b=b, epsilons=())
    # Nothing is clipped here: the loss is the same one.
    assert found.a.perturbations["x"] == pytest.approx(found.b.perturbations["x"], abs=1e-6)


class Dense(nn.Module):
    """Classes of three positions, last as in Keras or in dim 1 as in torch."""

    def __init__(self, *, last: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 12).double()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        self.last = last
        self.output_form = OutputForm("logits", "softmax", -1 if last else 1)

    def forward(self, x: Tensor) -> Tensor:
        rows: Tensor = self.linear(x).reshape(-1, 3, 4)
        return rows if self.last else rows.movedim(-1, 1)


def test_explain_follows_the_layout_that_a_model_states() -> None:
    x = batch()[0].double()
    y = torch.arange(24).reshape(8, 3) % 4
    options = {"adv_step_size": 0.1, "label_smoothing": 0.1}
    pair = {"a": Configuration.of("nsl", options), "b": "cleverhans3"}
    found, expected = (
        explain(Dense(last=last), x, y, epsilons=(), **pair)  # type: ignore[arg-type]
        for last in (True, False)
    )
    assert found.clean_accuracy == expected.clean_accuracy
    assert found.clean_loss == pytest.approx(expected.clean_loss)
    for side in ("a", "b"):
        mine, theirs = getattr(found, side), getattr(expected, side)
        assert mine.perturbations["x"] == pytest.approx(theirs.perturbations["x"], abs=1e-12)
    names = [[(trap.name, trap.count) for trap in one.traps] for one in (found, expected)]
    assert names[0] == names[1]
    assert found.training is not None
    assert expected.training is not None
    assert found.training.losses == pytest.approx(expected.training.losses)
