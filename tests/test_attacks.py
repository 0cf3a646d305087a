"""The native attacks: properties that hold for every model, and what they accept."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from toy_models import CLASSES, Counting, Linear, TwoInputs, batch, mlp, noisy, one_hot, score

from torchfgsm import Recipe, attack, fgsm, perturb, pgd

NORMS = ("linf", "l2", "l1")
ORDERS = {"linf": math.inf, "l2": 2.0, "l1": 1.0}


def size_of(delta: Tensor, norm: str) -> Tensor:
    found: Tensor = torch.linalg.vector_norm(delta.flatten(1).double(), ORDERS[norm], dim=1)
    return found


# Property pairs


@pytest.mark.parametrize("norm", NORMS)
def test_fgsm_climbs_the_loss_by_a_step_of_length_eps(norm: str) -> None:
    model, (x, y) = mlp(), batch()
    adversarial = fgsm(model, x, y, eps=0.01, norm=norm)
    torch.testing.assert_close(size_of(adversarial - x, norm), torch.full((6,), 0.01).double())
    loss = nn.CrossEntropyLoss(reduction="none")
    assert bool((loss(model(adversarial), y) > loss(model(x), y)).all())


@pytest.mark.parametrize("norm", NORMS)
def test_eps_0_is_the_identity_without_aliasing(norm: str) -> None:
    model, (x, y) = mlp(), batch()
    for adversarial in (
        fgsm(model, x, y, eps=0, norm=norm),
        pgd(model, x, y, eps=0.0, norm=norm),
        perturb(x, torch.ones_like(x), eps=0, norm=norm),
    ):
        assert torch.equal(adversarial, x)
        assert adversarial.data_ptr() != x.data_ptr()


@pytest.mark.parametrize("norm", NORMS)
def test_row_of_a_batch_is_the_batch_of_one(norm: str) -> None:
    model, (x, y) = mlp(), batch()
    whole = pgd(model, x, y, eps=0.3, iterations=3, norm=norm, random_start=False)
    for i in range(len(x)):
        alone = pgd(
            model, x[i : i + 1], y[i : i + 1], eps=0.3, iterations=3, norm=norm, random_start=False
        )
        torch.testing.assert_close(alone[0], whole[i], rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_targeted_step_is_the_opposite_of_the_untargeted(norm: str) -> None:
    model, (x, y) = mlp(), batch()
    away = fgsm(model, x, y, eps=0.1, norm=norm) - x
    towards = fgsm(model, x, y, eps=0.1, norm=norm, targeted=True) - x
    torch.testing.assert_close(towards, -away, rtol=0, atol=1e-15)


@pytest.mark.parametrize("norm", NORMS)
def test_permuted_batch_gives_the_permuted_result(norm: str) -> None:
    model, (x, y) = mlp(), batch()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    permuted = fgsm(model, x[order], y[order], eps=0.1, norm=norm)
    expected = fgsm(model, x, y, eps=0.1, norm=norm)[order]
    torch.testing.assert_close(permuted, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("norm", NORMS)
def test_one_feature_dict_and_list_equal_the_tensor(norm: str) -> None:
    model, (x, y) = mlp(), batch()
    expected = fgsm(model, x, y, eps=0.1, norm=norm, clip_max=0.7)
    in_list = fgsm(model, [x], y, eps=0.1, norm=norm, clip_max=0.7)
    in_dict = fgsm(lambda d: model(d["only"]), {"only": x}, y, eps=0.1, norm=norm, clip_max=0.7)
    assert torch.equal(in_list[0], expected)
    assert torch.equal(in_dict["only"], expected)


@pytest.mark.parametrize("norm", NORMS)
def test_fgsm_is_pgd_with_one_step(norm: str) -> None:
    model, (x, y) = mlp(), batch()
    kwargs: dict[str, Any] = {"norm": norm, "clip_min": 0.25, "clip_max": 0.7}
    once = pgd(model, x, y, eps=9, step_size=0.1, iterations=1, random_start=False, **kwargs)
    assert torch.equal(once, fgsm(model, x, y, eps=0.1, **kwargs))


def test_perturb_is_fgsm_given_the_gradient() -> None:
    model, (x, y) = mlp(), batch()
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(nn.functional.cross_entropy(model(leaf), y) * len(x), leaf)
    for norm in NORMS:
        expected = fgsm(model, x, y, eps=0.1, norm=norm, clip_min=0.3)
        found = perturb(x, grad, eps=0.1, norm=norm, clip_min=0.3)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_perturb_has_the_rules_of_the_gradient() -> None:
    x = torch.tensor([[0.0, 1.0, 0.5, 0.5]])
    grad = torch.tensor([[-3.0, 4.0, 4.0, math.nan]])
    row = {"eps": 0.5, "norm": "l2"}
    torch.testing.assert_close(
        perturb(x, grad, **row, clip_min=0.0, clip_max=1.0, clip_grad=True),
        torch.tensor([[0.0, 1.0, 1.0, 0.5]]),
    )
    assert perturb(x, grad, **row, nonfinite="propagate").isnan().all()
    assert perturb(x, grad, eps=0.5, nonfinite="ignore").tolist() == [[-0.5, 1.5, 1.0, 0.5]]
    tiny = torch.tensor([[0.0, 0.0, 1e-9, 0.0]])
    assert perturb(x, tiny, **row, guard=1e-12)[0, 2] == pytest.approx(0.5 + 0.5e-3)
    assert perturb(x, tiny, **row)[0, 2] == 1.0


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

    x, y = batch()
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


# PGD


@pytest.mark.parametrize("norm", NORMS)
def test_pgd_stays_in_ball_and_range_and_is_stronger(norm: str) -> None:
    model, (x, y) = mlp(), batch()
    eps = {"linf": 0.05, "l2": 0.1, "l1": 0.2}[norm]
    loss = nn.CrossEntropyLoss(reduction="none")
    found = pgd(model, x, y, eps=eps, norm=norm, iterations=20, random_start=False)
    assert bool((size_of(found - x, norm) <= eps * (1 + 1e-12)).all())
    single = fgsm(model, x, y, eps=eps, norm=norm)
    assert bool((loss(model(found), y) >= loss(model(single), y) - 1e-4).all())
    tight = pgd(model, x, y, eps=0.5, norm=norm, clip_min=0.3, clip_max=0.7)
    assert 0.3 <= float(tight.min()) <= float(tight.max()) <= 0.7


@pytest.mark.parametrize("norm", NORMS)
def test_pgd_random_start_is_drawn_from_the_generator(norm: str) -> None:
    model, (x, y) = mlp(), batch()

    def run(seed: int | None) -> Tensor:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        found: Tensor = pgd(
            model, x, y, eps=0.5, step_size=1e-9, iterations=1, norm=norm, generator=generator
        )
        return found

    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))
    assert bool((size_of(run(0) - x, norm) <= 0.5 + 1e-8).all())
    assert float(size_of(run(0) - x, norm).max()) > 0.1
    torch.manual_seed(7)
    first = run(None)
    assert not torch.equal(first, run(None))
    torch.manual_seed(7)
    assert torch.equal(first, run(None))


def test_pgd_default_step_crosses_the_ball() -> None:
    linear, (x, _) = Linear(torch.ones(4).double()), batch()
    for iterations in (1, 3, 10):
        found = pgd(linear, x, 0, eps=0.2, iterations=iterations, loss_fn=score)
        torch.testing.assert_close(found - x, torch.full((6, 4), 0.2).double())


def test_a_new_start_every_time_although_dropout_is_put_back() -> None:
    model, (x, y) = noisy(), batch(torch.float32)
    recipe = Recipe.cleverhans_torch(0.5, math.inf, 1e-6, 1)
    assert not torch.equal(
        attack(model, x, y, recipe=recipe), attack(model, x, y, recipe=recipe)
    )


# What is kept


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("norm", NORMS)
def test_dtype_is_kept(norm: str, dtype: torch.dtype) -> None:
    model, (x, y) = mlp(dtype), batch(dtype)
    bounds = {"clip_min": 0.0, "clip_max": torch.ones(4)}
    assert fgsm(model, x, y, eps=0.1, norm=norm, **bounds).dtype == dtype
    assert pgd(model, x, y, eps=torch.full((6,), 0.1), norm=norm, **bounds).dtype == dtype
    assert perturb(x, x, eps=0.1, norm=norm, mask=torch.ones(4).double()).dtype == dtype


@pytest.mark.parametrize("norm", NORMS)
def test_memory_format_is_kept_and_changes_no_bit(norm: str) -> None:
    torch.manual_seed(0)
    x, grad = torch.rand(3, 4, 5, 6), torch.randn(3, 4, 5, 6)
    last = x.contiguous(memory_format=torch.channels_last)
    for bounds in ({}, {"clip_min": 0.2, "clip_max": torch.full((6,), 0.9)}):
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


def test_forward_passes_are_as_few_as_can_be() -> None:
    model, (x, y) = Counting(mlp()), batch()

    def count(**kwargs: Any) -> int:
        model.calls.clear()
        attack(model, x, kwargs.pop("y", None), recipe=Recipe(step=0.1, **kwargs))
        return len(model.calls)

    assert count(y=y) == 1
    assert count() == 1  # the predicted labels come from the same forward pass
    assert count(iterations=5, epsilon=0.2) == 5
    assert count(iterations=5, epsilon=0.2, random_start="uniform", y=y) == 5
    assert count(iterations=5, epsilon=0.2, random_start="uniform") == 6  # labels of the clean x
    assert count(iterations=0) == 0


def test_weight_gradients_are_never_computed() -> None:
    class Spy(torch.autograd.Function):
        needed: list[bool] = []  # noqa: RUF012 - the test looks at it

        @staticmethod
        def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
            ctx.save_for_backward(weight)
            return x * weight

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
            (weight,) = ctx.saved_tensors
            return grads[0] * weight, grads[0]

    weight = nn.Parameter(torch.tensor([1.0, 2.0, 3.0, 4.0]).double())

    def touched(grad: Tensor) -> None:
        Spy.needed.append(True)

    weight.register_hook(touched)
    model, (x, y) = mlp(), batch()
    for parameter in model.parameters():
        parameter.register_hook(touched)

    def spied(z: Tensor) -> Tensor:
        output: Tensor = model(Spy.apply(z, weight))  # type: ignore[no-untyped-call]
        return output

    fgsm(spied, x, y, eps=0.1)
    pgd(spied, x, y, eps=0.1)
    assert Spy.needed == []
    spied(x).sum().backward()
    assert len(Spy.needed) == 5  # the spy sees what it should


# Any shape


@settings(max_examples=25, deadline=None)
@given(
    norm=st.sampled_from(NORMS),
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    eps=st.floats(0, 10, allow_subnormal=False),
    iterations=st.integers(1, 3),
    clipped=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_shape_stays_in_ball_and_range(
    norm: str, shape: list[int], eps: float, iterations: int, clipped: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator, dtype=torch.float64)
    weight = torch.randn(shape[1:], generator=generator, dtype=torch.float64)
    bounds = {"clip_min": 0.0, "clip_max": 1.0} if clipped else {}
    found = pgd(
        lambda z: (z * weight).reshape(shape[0], -1).sum(1).sin(),
        x,
        0,
        eps=eps,
        iterations=iterations,
        norm=norm,
        loss_fn=score,
        generator=generator,
        **bounds,
    )
    assert found.shape == x.shape
    rows = (found - x).reshape(shape[0], -1)
    assert bool((size_of(rows, norm) <= eps * (1 + 1e-9) + 1e-12).all())
    if clipped:
        assert bool(((found >= 0) & (found <= 1)).all())


@settings(max_examples=25, deadline=None)
@given(
    norm=st.sampled_from(NORMS),
    entries=st.lists(
        st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=3, max_size=3), min_size=1, max_size=4
    ),
    eps=st.floats(0, 4, width=32),
)
def test_any_gradient_gives_the_step_of_steepest_ascent(
    norm: str, entries: list[list[float]], eps: float
) -> None:
    grad = torch.tensor(entries)
    x = torch.zeros_like(grad)
    delta = perturb(x, grad, eps=eps, norm=norm)
    nonzero = (grad != 0).any(1)
    assert bool((size_of(delta, norm)[~nonzero] == 0).all())
    torch.testing.assert_close(
        size_of(delta, norm)[nonzero],
        torch.full((int(nonzero.sum()),), eps, dtype=torch.float64),
        rtol=1e-6,
        atol=1e-30,
    )
    # No point of the ball has a larger inner product than eps times the dual norm.
    dual = {"linf": 1.0, "l2": 2.0, "l1": math.inf}[norm]
    best = eps * torch.linalg.vector_norm(grad.double(), dual, dim=1)
    gained = (delta.double() * grad.double()).sum(1)
    torch.testing.assert_close(gained, best, rtol=1e-6, atol=1e-30)
