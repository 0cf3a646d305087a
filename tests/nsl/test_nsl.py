"""`torchfgsm.nsl`: adversarial neighbors as NSL 1.4.0 makes them (semantics by number, no TF)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from toy_models import batch, mlp

from torchfgsm import nsl

WORDS = ("infinity", "l2", "l1")


def t(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def neighbor(x: Any, slopes: Any, *, scale: float = 1.0, **config: Any) -> Any:
    """The neighbor of features whose loss is the sum of their products with the slopes."""
    leaves = (
        {k: v.clone().requires_grad_() if v.is_floating_point() else v for k, v in x.items()}
        if isinstance(x, dict)
        else x.clone().requires_grad_()
    )
    if isinstance(leaves, dict):
        loss = sum((leaves[k] * slope).sum() for k, slope in slopes.items())
    else:
        loss = (leaves * slopes).sum()
    found, weight = nsl.gen_adv_neighbor(leaves, scale * loss, nsl.AdvNeighborConfig(**config))
    assert weight.dtype == torch.float32
    assert bool((weight == 1).all())
    return {k: v.detach() for k, v in found.items()} if isinstance(found, dict) else found.detach()


def delta(slopes: Any, **config: Any) -> list[list[float]]:
    """The movement of zeros under a gradient."""
    slopes = t(slopes)
    found: list[list[float]] = neighbor(torch.zeros_like(slopes), slopes, **config).tolist()
    return found


def approx(rows: Any, tolerance: float = 1e-9) -> Any:
    return pytest.approx(rows, abs=tolerance)


# Direction


def test_defaults_are_a_step_of_a_thousandth_in_l2() -> None:
    assert delta([[3.0, 4.0]]) == [[pytest.approx(0.0006), pytest.approx(0.0008)]]
    assert nsl.AdvRegConfig().multiplier == 0.2
    assert nsl.make_adv_reg_config() == nsl.AdvRegConfig()


@pytest.mark.parametrize(("size", "length"), [(1, 0.1635), (8, 0.0204), (64, 0.00256)])
def test_guard_shrinks_with_the_batch_under_a_mean_loss(size: int, length: float) -> None:
    slopes = t([[0.0981e-6, 0.1308e-6]]).expand(size, 2)
    zeros = torch.zeros_like(slopes)
    mean = neighbor(zeros, slopes, scale=1 / size, adv_step_size=1.0)
    assert float(mean.norm(dim=1)[0]) == pytest.approx(length, rel=3e-3)
    total = neighbor(zeros, slopes, adv_step_size=1.0)
    assert float(total.norm(dim=1)[-1]) == pytest.approx(0.1635)


def test_ties_zeros_and_nonfinite_entries() -> None:
    row = [[3.0, -3.0, 1.0, 3.0], [0.0, 0.0, 0.0, 0.0]]
    third = 1 / 3
    assert delta(row, adv_step_size=1.0, adv_grad_norm="l1") == [
        approx([third, -third, 0.0, third]),
        [0.0] * 4,
    ]
    inf, nan = float("inf"), float("nan")
    assert delta([[inf, 4.0, nan, 3.0]], adv_step_size=1.0) == [approx([0.0, 0.8, 0.0, 0.6], 1e-9)]
    assert delta([[nan, -4.0]], adv_step_size=1.0, adv_grad_norm="infinity") == [[0.0, -1.0]]


def test_norm_is_joint_over_the_features() -> None:
    x = {"a": torch.zeros(1, 2).double(), "b": torch.zeros(1, 2).double()}
    slopes = {"a": t([[1.0, 2.0]]), "b": t([[2.0, -4.0]])}
    found = neighbor(x, slopes, adv_step_size=1.0)
    assert found["a"].tolist() == [approx([0.2, 0.4])]
    assert found["b"].tolist() == [approx([0.4, -0.8])]
    x["c"], slopes["c"] = torch.zeros(1, 2).double(), t([[4.0, 0.0]])
    l1 = neighbor(x, slopes, adv_step_size=1.0, adv_grad_norm="l1")
    assert [l1[k].tolist() for k in "abc"] == [[[0.0, 0.0]], [[0.0, -0.5]], [[0.5, 0.0]]]


def test_features_of_rank_1_are_one_number_each() -> None:
    slopes = t([3.0, -4.0])
    assert neighbor(torch.zeros(2).double(), slopes, adv_step_size=1.0).tolist() == [1.0, -1.0]


def test_step_may_be_negative_or_a_tensor() -> None:
    slopes = [[3.0, 4.0], [3.0, -4.0]]
    forward = delta(slopes, adv_step_size=0.1)
    assert delta(slopes, adv_step_size=-0.1) == [[-v for v in row] for row in forward]
    own = delta(slopes, adv_step_size=t([[0.1], [1.0]]))
    assert own == [approx([0.06, 0.08]), approx([0.6, -0.8])]


# Masks and bounds


@pytest.mark.parametrize("word", WORDS)
def test_a_uniform_mask_has_no_effect_and_0_stops(word: str) -> None:
    slopes = [[3.0, -4.0, 1.0]]
    plain = delta(slopes, adv_step_size=1.0, adv_grad_norm=word)
    for mask in (0.5, torch.full((3,), 0.5), torch.full((1, 3), 0.5)):
        masked = delta(slopes, adv_step_size=1.0, adv_grad_norm=word, feature_mask=mask)
        assert masked == [approx(plain[0])]
    assert delta(slopes, adv_grad_norm=word, feature_mask=0.0) == [[0.0, 0.0, 0.0]]


def test_mask_comes_before_the_direction() -> None:
    slopes = [[3.0, -4.0, 1.0]]
    mask = torch.tensor([1.0, 0.5, 0.0])
    kwargs: dict[str, Any] = {"adv_step_size": 1.0, "feature_mask": mask}
    assert delta(slopes, adv_grad_norm="infinity", **kwargs) == [[1.0, -1.0, 0.0]]
    root = 13**0.5
    assert delta(slopes, adv_grad_norm="l2", **kwargs) == [approx([3 / root, -2 / root, 0.0])]
    assert delta(slopes, adv_grad_norm="l1", **kwargs) == [[1.0, 0.0, 0.0]]  # another maximum
    # A list is a structure: its entries are the masks of the features of a list.
    with pytest.warns(UserWarning, match="feature_mask applies to no feature"):
        assert delta(slopes, feature_mask=[0.0, 0.0, 0.0]) != [[0.0, 0.0, 0.0]]


def test_masks_and_bounds_by_feature() -> None:
    x = {"a": torch.zeros(2, 1).double(), "b": torch.zeros(2, 1).double()}
    slopes = {"a": t([[1.0], [1.0]]), "b": t([[-1.0], [1.0]])}
    found = neighbor(
        x,
        slopes,
        adv_step_size=1.0,
        adv_grad_norm="infinity",
        feature_mask={"b": t([[1.0], [0.0]])},
        clip_value_min={"b": -0.5},
        clip_value_max={"a": t([0.25])},
    )
    assert found["a"].tolist() == [[0.25], [0.25]]
    assert found["b"].tolist() == [[-0.5], [0.0]]
    # A lone number belongs to no feature of a dict: the original ignores it, here with a warning.
    with pytest.warns(UserWarning, match="clip_value_max applies to no feature"):
        free = neighbor(x, slopes, adv_step_size=1.0, clip_value_max=0.1)
    assert float(free["a"].max()) > 0.5


def test_clip_comes_after_the_step_and_may_have_one_side() -> None:
    slopes = [[1.0, -1.0, 1.0]]
    kwargs: dict[str, Any] = {"adv_step_size": 1.0, "adv_grad_norm": "infinity"}
    assert delta(slopes, clip_value_max=0.5, **kwargs) == [[0.5, -1.0, 0.5]]
    assert delta(slopes, clip_value_min=-0.5, **kwargs) == [[1.0, -0.5, 1.0]]
    assert delta(slopes, clip_value_min=1.0, clip_value_max=0.0, **kwargs) == [[0.0, 0.0, 0.0]]
    # An input out of range is clipped, at step 0 too.
    assert delta(slopes, clip_value_max=-0.5, adv_step_size=0.0) == [[-0.5, -0.5, -0.5]]


# Features without a gradient


def test_features_without_gradient_stay_and_are_not_clipped() -> None:
    a = t([[1.0], [1.0]]).requires_grad_()
    features = {
        "still": t([[5.0], [5.0]]),  # does not require grad
        "apart": t([[6.0], [6.0]]).requires_grad_(),  # no path to the loss
        "a": a,
        "words": ["x", "y"],
        "count": torch.tensor([1, 2]),
    }
    bounds = dict.fromkeys(features, 1.5)
    config = nsl.AdvNeighborConfig(adv_step_size=1.0, clip_value_max=bounds)
    found, weight = nsl.gen_adv_neighbor(features, a.sum(), config)
    assert list(found) == list(features)
    assert found["a"].tolist() == [[1.5], [1.5]]
    assert found["still"].tolist() == [[5.0], [5.0]]
    assert found["apart"].tolist() == [[6.0], [6.0]]
    assert found["words"] == ["x", "y"]
    assert found["count"].tolist() == [1, 2]
    assert weight.shape == (2, 1)
    with pytest.raises(ValueError, match=r"\['words', 'count'\]"):
        nsl.gen_adv_neighbor(features, a.sum(), config, raise_invalid_gradient=True)
    only = {name: features[name] for name in ("still", "a")}
    with pytest.raises(ValueError, match=r"Cannot perturb 1 of 2 features, \['still'\]"):
        nsl.gen_adv_neighbor(only, a.sum(), config, raise_invalid_gradient=True)


def test_a_loss_without_a_path_gives_x_back() -> None:
    x = t([[1.0, 2.0]]).requires_grad_()
    config = nsl.AdvNeighborConfig(adv_step_size=1.0, clip_value_max=0.0)
    with pytest.warns(UserWarning, match="Cannot perturb features .*'input'"):
        found, _ = nsl.gen_adv_neighbor(x, torch.tensor(3.0), config)
    assert found.tolist() == x.tolist()
    assert found is not x


def test_structures_a_tuple_becomes_a_list() -> None:
    x = t([[1.0, 2.0]]).requires_grad_()
    config = nsl.AdvNeighborConfig()
    for structure in ((x, x), [x, x]):
        found, _ = nsl.gen_adv_neighbor(structure, x.sum(), config)
        assert type(found) is list
        assert len(found) == 2


# The graph


@pytest.mark.parametrize("word", WORDS)
def test_neighbor_is_differentiable_in_the_features_with_a_constant_perturbation(
    word: str,
) -> None:
    model, (x, y) = mlp(), batch()
    x.requires_grad_()
    loss = torch.nn.functional.cross_entropy(model(x), y)
    config = nsl.AdvNeighborConfig(adv_step_size=0.1, adv_grad_norm=word, clip_value_max=0.7)
    found, _ = nsl.gen_adv_neighbor(x, loss, config)
    (slope,) = torch.autograd.grad(found.sum(), x)
    # 1 where nothing is clipped: the perturbation counts as constant.
    assert torch.equal(slope, (found < 0.7).double())
    loss.backward()  # type: ignore[no-untyped-call]  # the graph of the loss was kept
    assert model[0].weight.grad is not None
