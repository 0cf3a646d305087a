"""Converted models of integers: pixels that the model casts are attacked, indices refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from onnx_models import FLOAT, graph_of, module_of

import torchfgsm
from torchfgsm.converters import ConvertedModel

WEIGHT = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def pixels() -> ConvertedModel:
    """uint8 pixels, cast and divided by 255 inside of the model."""
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["f", "scale"], ["d"]),
        helper.make_node("MatMul", ["d", "weight"], ["z"]),
    ]
    constants = {"scale": np.float32(255), "weight": WEIGHT}
    return module_of(
        graph_of(nodes, constants, [("x", TensorProto.UINT8, [4])], [("z", FLOAT, [3])])
    )


def indices() -> ConvertedModel:
    """Rows of a table by their numbers, which are cast as well."""
    nodes = [
        helper.make_node("Gather", ["weight", "x"], ["g"]),
        helper.make_node("ReduceMean", ["g"], ["m"], axes=[1], keepdims=0),
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f"], ["n"], axes=[1], keepdims=1),
        helper.make_node("Add", ["m", "n"], ["z"]),
    ]
    inputs = [("x", TensorProto.INT32, [5])]
    return module_of(graph_of(nodes, {"weight": WEIGHT}, inputs, [("z", FLOAT, [3])]))


def test_pixels_that_the_model_casts_may_be_floats_and_are_attacked() -> None:
    model, y = pixels(), torch.tensor([0, 2])
    whole = torch.tensor([[0, 20, 200, 255], [7, 8, 9, 10]], dtype=torch.uint8)
    assert model.cast_inputs == {"x"}
    assert torch.equal(model(whole), model(whole.float()))
    found = torchfgsm.fgsm(model, whole.float(), y, eps=2.0)
    by_hand = torchfgsm.fgsm(
        lambda x: (x / 255) @ torch.from_numpy(WEIGHT), whole.float(), y, eps=2.0
    )
    assert torch.equal(found, by_hand)
    assert (found - whole).abs().max() == 2.0
    with pytest.raises(TypeError, match=r"casts its inputs \['x'\] itself: give x.float\(\), not"):
        torchfgsm.fgsm(model, whole, y, eps=2.0)
    with pytest.raises(ValueError, match=r"expected \(N, 4\) uint8, got \(2, 3\) float32"):
        model(torch.rand(2, 3))


def test_in_float64_their_gradients_are_those_of_float64() -> None:
    model = pixels().double()
    x = torch.full((1, 4), 3.0, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(model(x)[0, 0], x)
    np.testing.assert_allclose(slope[0], WEIGHT[:, 0].astype(float) / 255, rtol=1e-15)


def test_indices_are_refused_with_what_to_attack_instead() -> None:
    model, y = indices(), torch.tensor([0])
    numbers = torch.tensor([[0, 1, 2, 3, 0]], dtype=torch.int32)
    assert model.cast_inputs == frozenset()
    with pytest.raises(TypeError, match="as integers, so that no gradient leads to them"):
        torchfgsm.fgsm(model, numbers, y, eps=0.1)
    with pytest.raises(ValueError, match=r"expected .* int32, got .* float32; the model computes"):
        torchfgsm.fgsm(model, numbers.float(), y, eps=0.1)


def test_a_model_of_the_users_own_gets_both_ways_out() -> None:
    with pytest.raises(TypeError, match=r"scales pixels itself, x.float\(\) / 255 where"):
        torchfgsm.fgsm(torch.nn.Linear(4, 3), torch.ones(2, 4, dtype=torch.uint8), eps=0.1)
