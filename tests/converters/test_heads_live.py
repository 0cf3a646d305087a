"""A Keras model that ends in a softmax: the originals on it, the port on it converted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from torchfgsm import Configuration, Recipe, attack, cli, converters, explain, nsl
from torchfgsm.cleverhans import tf2
from torchfgsm.cleverhans import torch as cleverhans_torch
from torchfgsm.converters import ConvertedModel
from torchfgsm.explanation.result import Explanation
from torchfgsm.losses import SparseCategoricalCrossentropy
from torchfgsm.parity import digits
from torchfgsm.parity.cases import NUMPY_ORDERS, Case
from torchfgsm.parity.data import Array, Data
from torchfgsm.parity.judge import judge
from torchfgsm.parity.originals_side import Originals

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("one_thread")]

EPS = 0.1
PROBABILITIES: Mapping[str, Any] = {
    "class": "SparseCategoricalCrossentropy", "from_logits": False
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """A Keras model with a softmax head, converted, and its batch."""

    path: Path
    model: ConvertedModel
    data: Data
    originals: Originals

    @property
    def x(self) -> torch.Tensor:
        return torch.from_numpy(self.data.x["image"])

    @property
    def y(self) -> torch.Tensor:
        return torch.from_numpy(self.data.y)

    def original(self, case: Case) -> Mapping[str, Array]:
        """What the original gives for the Keras model as it is; CleverHans' torch for its twin."""
        return self.originals.run(case, self.path, self.model.with_head(), self.data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("heads")
    digits.train_models(folder, epochs=3, seed=5)
    return folder


@pytest.fixture(scope="module")
def setting(folder: Path, one_thread: None) -> Iterator[Setting]:
    path = folder / "digits.keras"
    with Originals() as originals:
        yield Setting(path, converters.load(path), digits.batch("digits", 256), originals)


def case_of(library: str, norm: str) -> Case:
    """One step at the true labels, on the model's own output, softmax and all."""
    params: dict[str, Any] = {"adv_grad_norm": "infinity" if norm == "linf" else norm}
    params["adv_step_size"] = EPS
    if library != "nsl":
        params = {"attack": "fast_gradient_method", "norm": NUMPY_ORDERS[norm], "eps": EPS}
    return Case(
        name=f"{library} / {norm}",
        library=library,
        params=params,
        output="probabilities",
        loss=PROBABILITIES,
    )


def recipe_of(library: str, norm: str) -> Recipe:
    if library == "nsl":
        return Recipe.nsl(EPS, "infinity" if norm == "linf" else norm)
    preset = {"cleverhans-tf2": Recipe.cleverhans_tf2, "cleverhans-torch": Recipe.cleverhans_torch}
    return preset[library](EPS, NUMPY_ORDERS[norm])


def by_dialect(setting: Setting, library: str, norm: str, dtype: torch.dtype) -> Array:
    """What the port of a library gives for the converted model, its head cut off."""
    model, x = setting.model.to(dtype), setting.x.to(dtype)
    try:
        if library == "nsl":
            word = "infinity" if norm == "linf" else norm
            wrapper = nsl.AdversarialRegularization(
                model,
                adv_config=nsl.make_adv_reg_config(adv_step_size=EPS, adv_grad_norm=word),
                loss=SparseCategoricalCrossentropy(from_logits=True),
            )
            batch = {"image": x, "label": setting.y}
            found: torch.Tensor = wrapper.perturb_on_batch(batch)["image"]
        else:
            dialect = tf2 if library == "cleverhans-tf2" else cleverhans_torch
            found = dialect.fast_gradient_method(model, x, EPS, NUMPY_ORDERS[norm], y=setting.y)
        own = attack(model, x, setting.y, recipe=recipe_of(library, norm))
        # The dialects have the originals' roundings of a loss, which moves a hair's breadth.
        torch.testing.assert_close(own, found, rtol=0, atol=1e-3 * EPS)
    finally:
        model.float()
    return found.numpy()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("library", ["nsl", "cleverhans-tf2", "cleverhans-torch"])
@pytest.mark.filterwarnings("ignore:the softmax that was cut off")
def test_an_attack_is_the_originals_on_the_model_as_it_was(
    setting: Setting, library: str, norm: str
) -> None:
    case = case_of(library, norm)
    expected = setting.original(case)

    def port(dtype: torch.dtype) -> dict[str, Array]:
        return {"adv/image": by_dialect(setting, library, norm, dtype)}

    found = judge(
        case, setting.data, expected, port(torch.float32), lambda turns: {},
        lambda: port(torch.float64),
    )  # fmt: skip
    assert found.passed, found.comparison.to_text()


def relative_l2(new: Array, old: Array) -> float:
    return float(np.linalg.norm(new.astype(float) - old) / np.linalg.norm(old))


def explained(setting: Setting, norm: str) -> Explanation:
    word = "infinity" if norm == "linf" else norm
    sides = (
        Configuration.of("nsl", {"adv_step_size": EPS, "adv_grad_norm": word, "reduction": "sum"}),
        Configuration.of(
            "cleverhans-tf2", {"eps": EPS, "norm": NUMPY_ORDERS[norm], "labels": "given"}
        ),
    )
    return explain(setting.model, setting.x, setting.y, a=sides[0], b=sides[1], epsilons=())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_explain_finds_what_is_between_the_originals(setting: Setting, norm: str) -> None:
    x = setting.data.x["image"]
    found = explained(setting, norm)
    nsl, theirs = (
        setting.original(case_of(library, norm))["adv/image"] - x
        for library in ("nsl", "cleverhans-tf2")
    )
    between = relative_l2(theirs, nsl)
    assert between > 1e-3
    assert found.total.relative_l2 == pytest.approx(between, rel=0.05, abs=1e-4)
    moving = [effect.name for effect in found.effects if effect.from_a and effect.from_a.examples]
    assert moving == ["model_output"]
    traps = {trap.name: trap for trap in found.traps}
    assert traps["probabilities taken for logits"].side == "b"
    assert traps["head cut off"].side == "both"
    assert "model_output (logits against with_head)" in found.to_text()


def test_the_command_finds_it(folder: Path, setting: Setting, capsys: Any) -> None:
    data = folder / "data.npz"
    np.savez(data, x=setting.data.x["image"], y=setting.data.y)
    given = ["explain", str(setting.path), "--data", str(data), "--a", "nsl", "--b",
             "cleverhans-tf2", "--set-b", f"eps={EPS}", "norm=inf", "--json"]  # fmt: skip
    assert cli.main(given) == 0
    found = json.loads(capsys.readouterr().out)
    effects = {effect["name"]: effect for effect in found["effects"]}
    assert effects["model_output"]["values"] == ["logits", "with_head"]
    assert effects["model_output"]["from_a"]["relative_l2"] > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "digits-reshaped"])
def test_compare_gives_each_library_what_it_would_have_got(
    folder: Path, setting: Setting, capsys: Any, name: str
) -> None:
    data = folder / "few.npz"
    np.savez(data, x=setting.data.x["image"][:24], y=setting.data.y[:24])
    given = ["compare", str(folder / f"{name}.keras"), "--data", str(data), "--against",
             "nsl,cleverhans3,cleverhans-tf2,cleverhans-torch"]  # fmt: skip
    code = cli.main(given)
    out, said = capsys.readouterr()
    assert code == 0, out
    assert "cut Softmax" in said
    assert "cleverhans-tf2 is given the output of its softmax and takes it for logits" in said
    logits = "nsl is given the model's logits, which it finds behind the softmax"
    clipped = "nsl is given the probabilities of its softmax, behind which Keras' loss finds no"
    assert (logits in said, clipped in said) == (name == "digits", name != "digits")
