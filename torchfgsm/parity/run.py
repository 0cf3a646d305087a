"""Runs cases: the originals live or as they were recorded, the port, and the verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn

from torchfgsm.judging.comparison import Comparison
from torchfgsm.parity import functions, port
from torchfgsm.parity.cases import Case
from torchfgsm.parity.data import Array, Data
from torchfgsm.parity.exact_port import ExactPort
from torchfgsm.parity.judge import judge
from torchfgsm.parity.originals_side import Originals, attack_in_training, up_to
from torchfgsm.parity.verdict import Verdict

if TYPE_CHECKING:
    from torchfgsm.converters import ConvertedModel

Expected = Callable[[Case], Mapping[str, Array]]


class Models(Protocol):
    """Where cases find what they run on."""

    def data(self, name: str) -> Data:
        """The batch of a model."""

    def converted(self, case: Case) -> nn.Module:
        """The converted model of a case, with the head that its output needs."""


class Converted:
    """Converted models by name, loaded when first needed.

    Args:
        paths: Model name -> file: a Keras model, or ONNX as exported by this package.
        data: Model name -> its batch.
        load: `load(path)` -> a converted model.
    """

    def __init__(
        self,
        paths: Mapping[str, Path],
        data: Mapping[str, Data],
        load: Callable[[Path], ConvertedModel],
    ) -> None:
        self.paths = paths
        self._data = data
        self._load = load
        self._models: dict[str, ConvertedModel] = {}

    def data(self, name: str) -> Data:
        """The batch of a model."""
        return self._data[name]

    def converted(self, case: Case) -> ConvertedModel:
        """The converted model of a case, with the head that its output needs."""
        if case.model not in self._models:
            self._models[case.model] = self._load(self.paths[case.model])
        model = self._models[case.model]
        return model.with_head() if case.output == "probabilities" else model.without_head()


def live(originals: Originals, models: Converted) -> Expected:
    """The originals, run now."""

    def expected(case: Case) -> Mapping[str, Array]:
        model, data = models.converted(case), models.data(case.model)
        return originals.run(case, models.paths[case.model], model, data)

    return expected


def verdicts(cases: Iterable[Case], models: Models, expected: Expected) -> Iterator[Verdict]:
    """Runs both sides of each case and judges it.

    Args:
        cases: The cases.
        models: Their models and data.
        expected: What the original gives for a case; see `live`.

    Yields:
        One verdict per case, as soon as it is known.
    """
    for case in cases:
        yield verdict(case, models, expected(case))


def verdict(
    case: Case,
    models: Models,
    expected: Mapping[str, Array],
    device: torch.device | str = "cpu",
) -> Verdict:
    """Runs the port's side of a case and judges it.

    Args:
        case: The case.
        models: Its model and data.
        expected: What the original gives for it.
        device: Where functions without a model are computed; models run where they are.
    """
    data = models.data(case.model)
    if case.kind == "function":
        return judge(case, data, expected, functions.run_port(case, device), lambda turns: {}, dict)
    model = models.converted(case)
    if any(name.startswith("attack/") for name in expected):
        return verdict_apart(case, data, model, expected)
    return _verdict(case, data, model, expected)


def _verdict(case: Case, data: Data, model: nn.Module, expected: Mapping[str, Array]) -> Verdict:
    actual = port.run_port(case, model, data)

    def iterate(turns: int) -> Mapping[str, Array]:
        return port.run_port(up_to(case, turns), model, data)

    def in_float64() -> Mapping[str, Array]:
        return port.run_port(replace(case, dtype="float64"), model, data)

    exact = ExactPort(case, model, data)
    return judge(case, data, expected, actual, iterate, in_float64, exact)


def verdict_apart(
    case: Case, data: Data, model: nn.Module, expected: Mapping[str, Array]
) -> Verdict:
    """Judges a training case in two parts: its attack, and the loss of the original's examples.

    A sign that rounding turned moves the loss, and by no measure of the loss alone.

    Args:
        case: A case with an `attack_in_training`.
        data: The batch.
        model: The converted model.
        expected: What the original gives, with that of the attack as attack/<array>.
    """
    alone = attack_in_training(case)
    if alone is None:
        raise ValueError(f"{case.name}: has no attack that can be judged by itself")
    prefix = "attack/"
    attack = {k.removeprefix(prefix): a for k, a in expected.items() if k.startswith(prefix)}
    first = _verdict(alone, data, model, attack)
    (name,) = data.x
    actual = port.run_port(case, model, data, given=attack[f"adv/{name}"])
    second = judge(case, data, expected, actual, lambda turns: {}, dict)
    parts = [
        Comparison("attack", first.comparison.rows),
        Comparison("the original's examples", second.comparison.rows),
    ]
    return replace(
        first,
        case=case,
        comparison=Comparison.join(case.name, parts),
        rule=f"attack: {first.rule}; then {second.rule}",
    )
