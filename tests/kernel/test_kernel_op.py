"""The op `torchfgsm::perturb`: registered for every transform, and what runs without kernels."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from kernel_cases import difference, drawn
from torch import Tensor
from toy_models import TwoInputs, batch, mlp, noise

from torchfgsm import Recipe, attack, fgsm, perturb, pgd
from torchfgsm.core import engine
from torchfgsm.core import step as one_turn
from torchfgsm.kernel import KernelUnavailable, cubins, driver, op, why_not
from torchfgsm.kernel.arguments import Numbers, Rules
from torchfgsm.kernel.launching import unsupported
from torchfgsm.kernel.plan import Device

PERTURB = torch.ops.torchfgsm.perturb.default
INF = math.inf
RECIPES = {
    "linf": Recipe(step=0.1),
    "l2": Recipe(step=0.1, norm="l2", clip_min=0.25, clip_max=0.7),
    "nsl": Recipe.nsl(0.1, "l2", clip_value_max=0.7, pgd_iterations=3, pgd_epsilon=0.15),
    "cleverhans3": Recipe.cleverhans3(0.1, 0.05, 3, clip_min=0.3, clip_max=0.6, rand_init=False),
    "cleverhans-torch": Recipe.cleverhans_torch(0.1, 2, 0.05, 3, rand_init=False),
}


@pytest.fixture
def through_op(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Attacks on the CPU go through the op, as on CUDA; gives the norms that it was called with."""
    monkeypatch.setitem(engine.BY_DEVICE, "cpu", op.turn)
    seen: list[str] = []
    turn = one_turn.turn

    def counted(*args: Any) -> list[Tensor]:
        seen.append(args[3].norm)
        return turn(*args)

    monkeypatch.setattr(one_turn, "turn", counted)
    return seen


def test_opcheck() -> None:
    checked = 0
    for case in drawn(40, seed=3):
        if any(bool(found.isnan().any()) for found in PERTURB(*case.arguments)):
            continue  # opcheck takes NaN for a difference
        torch.library.opcheck(
            PERTURB,
            case.arguments,
            test_utils=(
                "test_schema",
                "test_autograd_registration",
                "test_faketensor",
                "test_aot_dispatch_static",
            ),
        )
        checked += 1
    assert checked >= 20


@pytest.mark.parametrize("name", RECIPES)
def test_attacks_through_the_op_are_the_same(name: str, through_op: list[str]) -> None:
    model, (x, y) = mlp(), batch()
    found = attack(model, x, y, recipe=RECIPES[name])
    assert through_op == [RECIPES[name].norm] * RECIPES[name].iterations
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(engine.BY_DEVICE, "cpu")
        assert torch.equal(found, attack(model, x, y, recipe=RECIPES[name]))


def test_every_operand_reaches_the_op(through_op: list[str]) -> None:
    x, grad = torch.rand(3, 4), noise(3, 4)
    given: dict[str, Any] = {
        "eps": torch.tensor([0.1, 0.2, 0.3]),
        "clip_min": torch.full((4,), 0.2),
        "clip_max": 0.9,
        "mask": torch.tensor([1.0, 0.0, 0.5, 1.0]),
        "clip_grad": True,
        "norm": "l2",
        "guard": 1e-12,
    }
    found = perturb(x, grad, **given)
    assert through_op
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(engine.BY_DEVICE, "cpu")
        assert torch.equal(found, perturb(x, grad, **given))
        assert not torch.equal(found, perturb(x, grad, **{**given, "mask": None}))


def test_features_and_scalar_examples_go_through_the_op(through_op: list[str]) -> None:
    x, y = batch()
    inputs = {"a": x[:, :2], "b": x[:, 2:], "kind": torch.arange(6)}
    found = attack(TwoInputs(), inputs, y, recipe=RECIPES["nsl"])
    assert through_op
    flat = Recipe.cleverhans_torch(0.1, 2)
    one = attack(lambda t: torch.stack([t, -t], 1), x[:, 0], y % 2, recipe=flat)
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(engine.BY_DEVICE, "cpu")
        again = attack(TwoInputs(), inputs, y, recipe=RECIPES["nsl"])
        assert all(torch.equal(found[name], again[name]) for name in inputs)
        plain = attack(lambda t: torch.stack([t, -t], 1), x[:, 0], y % 2, recipe=flat)
        assert torch.equal(one, plain)


def test_a_differentiable_turn_is_the_references(through_op: list[str]) -> None:
    x = torch.rand(3, 4, requires_grad=True)
    recipe = replace(RECIPES["l2"], through_perturbation=True)
    call = op._together([0.1, INF, -INF, INF, 1.0], [None] * 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(op, "PERTURB", None, raising=False)
        (moved,) = op.turn([x], [x], [x * 2], recipe, call)
    assert moved.requires_grad


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", RECIPES)
def test_compiled_attacks_hold_the_op(name: str, backend: str, through_op: list[str]) -> None:
    if torch.__version__ < "2.9":
        pytest.skip("torch before 2.9 breaks the graph of an attack")
    model, (x, y) = mlp().eval(), batch()
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda a, b: attack(model, a, b, recipe=RECIPES[name]), backend=backend, fullgraph=True
    )
    assert torch.equal(compiled(x, y), attack(model, x, y, recipe=RECIPES[name]))


@pytest.mark.parametrize("in_dims", [(0, 0), (1, None), (None, 2)])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_vmap_equals_the_loop(norm: str, in_dims: Any) -> None:
    rules = (norm, "zero", False, 0.0, True, "project_clip", "max")
    numbers = [0.1, INF, 0.0, 1.0, 1.0]
    x = noise(*((5, 2, 3) if in_dims[0] is None else (5, 4, 2, 3))).abs()
    grad = noise(
        *((5, 2, 3) if in_dims[1] is None else (5, 2, 4, 3) if in_dims[1] else (4, 5, 2, 3))
    )
    x = x.movedim(1, 0).contiguous() if in_dims[0] == 0 else x
    step, mask = torch.rand(4, 5, 1, 1), torch.rand(2, 1)

    def once(a: Tensor, g: Tensor, s: Tensor) -> Tensor:
        found: Tensor = PERTURB([a], [g], [a], numbers, [s, None, None, None, mask], *rules)[0]
        return found

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = torch.func.vmap(once, in_dims=(*in_dims, 0))(x, grad, step)
    for i in range(4):
        a = x if in_dims[0] is None else x.select(in_dims[0], i)
        g = grad if in_dims[1] is None else grad.select(in_dims[1], i)
        assert torch.equal(found[i], once(a, g, step[i]))


def test_output_strides_are_those_of_x() -> None:
    for case in drawn(30, seed=4):
        for given, found in zip(case.x, PERTURB(*case.arguments), strict=True):
            assert found.stride() == torch.empty_like(given).stride()
            assert found.untyped_storage().data_ptr() != given.untyped_storage().data_ptr()


def test_what_no_kernel_serves_has_a_reason() -> None:
    x = torch.rand(2, 3)
    plain = Rules("l2", "zero", False, 0.0, True, "project_clip", "max")
    free, ball = Numbers(0.1, INF, -INF, INF, 1.0), Numbers(0.1, 0.2, -INF, INF, 1.0)
    none: list[Tensor | None] = [None] * 5
    assert unsupported([x], [ball], [none], plain) is None
    l1 = replace(plain, norm="l1")
    assert unsupported([x], [free], [none], l1) is None
    assert "L1 ball" in str(unsupported([x], [ball], [none], l1))
    assert "kernels for" in str(unsupported([x.to(torch.float8_e4m3fn)], [free], [none], plain))
    assert "several dtypes" in str(unsupported([x, x.double()], [free] * 2, [none] * 2, plain))
    assert "empty" in str(unsupported([x[:0]], [free], [none], plain))
    by_element: list[Tensor | None] = [None, torch.rand(2, 3), None, None, None]
    assert "one radius" in str(unsupported([x], [free], [by_element], plain))
    by_example: list[Tensor | None] = [None, torch.rand(2, 1), None, None, None]
    assert unsupported([x], [free], [by_example], plain) is None


def test_without_a_kernel_the_reference_runs_and_one_warning_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(op, "_failures", {})

    class Anywhere:  # in place of the device guard of CUDA
        def __init__(self, device: torch.device) -> None:
            pass

        def __enter__(self) -> None: ...

        def __exit__(self, *error: object) -> None: ...

    def refuse(index: int) -> None:
        raise KernelUnavailable("NVRTC was not found")

    monkeypatch.setattr(torch.cuda, "device", Anywhere)
    monkeypatch.setattr(driver, "gpu", refuse)
    (case,) = drawn(1, seed=5)
    expected = PERTURB(*case.arguments)
    with pytest.warns(UserWarning, match=r"NVRTC was not found.*torchfgsm env"):
        found = op._on_cuda(*case.arguments)
    assert difference(case, found, expected) is None
    again = op._on_cuda(*case.arguments)  # a warning would be an error now
    assert difference(case, again, expected) is None


def test_why_not_without_cuda() -> None:
    if not torch.cuda.is_available():
        assert "CUDA" in str(why_not())


def test_why_not_tries_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[int] = []

    def get(name: str, architecture: int) -> tuple[bytes, str]:
        compiled.append(architecture)
        if architecture < 75:
            raise KernelUnavailable("NVRTC could not compile the kernels: invalid architecture")
        return b"", name

    architecture = 90
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(driver, "load", lambda: None)
    monkeypatch.setattr(
        driver, "gpu", lambda index: SimpleNamespace(device=Device(132, architecture))
    )
    monkeypatch.setattr(cubins, "get", get)
    monkeypatch.setattr(op, "_failures", {1: "it broke"})
    assert why_not() is None
    architecture = 60
    assert why_not() == "NVRTC could not compile the kernels: invalid architecture"
    assert compiled == [90, 60]
    assert why_not(torch.device("cuda", 1)) == "it broke"


def test_attacks_on_the_cpu_do_not_go_through_the_op(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile can fuse plain operations, and not an op that it does not see into."""
    monkeypatch.setattr(op, "_apart", lambda call: pytest.fail("the op was called"))
    model, (x, y) = mlp(), batch()
    fgsm(model, x, y, eps=0.1)
    pgd(model, x, y, eps=0.1, norm="l1", iterations=2)
