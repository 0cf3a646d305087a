"""Configurations drawn at random, and what the originals give for them and when translated."""

from __future__ import annotations

import copy
import importlib.machinery
import random
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from benchmarks.evidence.differential_runs import PROCESSES, Together
from torchfgsm.judging.comparison import compare
from torchfgsm.libraries.configuration import LIBRARIES, Configuration
from torchfgsm.originals.process import Worker
from torchfgsm.parity import port
from torchfgsm.parity.cases import NSL_WORDS, NUMPY_ORDERS, Case
from torchfgsm.parity.data import Array, Data
from torchfgsm.parity.exact_port import ExactPort
from torchfgsm.parity.judge import judge
from torchfgsm.parity.originals_side import Originals
from torchfgsm.parity.verdict import Verdict
from torchfgsm.translation import Translation, translate

WORKER = Path(__file__).parent / "translation_worker.py"
_LENGTHS = {"linf": 0.1, "l2": 0.5, "l1": 1.0}


@dataclass(frozen=True)
class Drawn:
    """A configuration and the library that it is translated to.

    Attributes:
        library: The library of the options.
        options: Its options, and fields of its recipe.
        to: The other library.
        mask: Name of the array of `Data.extras` that NSL gets for a mask, or "".
    """

    library: str
    options: Mapping[str, Any]
    to: str
    mask: str = ""

    def translation(self) -> Translation:
        """The translation."""
        given = {**self.options, **({"feature_mask": [self.mask]} if self.mask else {})}
        return translate(given, to=self.to, source=self.library)

    def up_to(self, turns: int) -> Drawn:
        """The same, ended after some steps."""
        key = "pgd_iterations" if self.library == "nsl" else "nb_iter"
        return replace(self, options={**self.options, key: turns})


def drawn(rng: random.Random) -> Drawn:
    """Any configuration of any library, many of which have no translation."""
    library = rng.choice(LIBRARIES)
    to = rng.choice([other for other in LIBRARIES if other != library])
    norm = rng.choice(["linf", "linf", "l2", "l2", "l1"])
    length = _LENGTHS[norm] * rng.choice([0.2, 0.5, 1.0])
    return (
        _nsl(rng, norm, length, to)
        if library == "nsl"
        else _cleverhans(rng, library, norm, length, to)
    )


def _nsl(rng: random.Random, norm: str, length: float, to: str) -> Drawn:
    options: dict[str, Any] = {
        "adv_grad_norm": NSL_WORDS[norm],
        "adv_step_size": length * rng.choice([1, 1, 1, -1]),
        "reduction": rng.choice(["mean", "sum"]),
    }
    if rng.random() < 0.5:
        options["pgd_iterations"] = rng.choice([1, 2, 3])
        options["pgd_epsilon"] = rng.choice([None, length, 1.5 * length, 3 * length, 0.7 * length])
        options["random_init"] = rng.random() < 0.15
    low, high = rng.choice([(None, None), (0.0, 1.0), (0.0, None), (None, 1.0)])
    options |= {"clip_value_min": low, "clip_value_max": high}
    mask = rng.choice(["", "", "", "feature_mask", "fractional_mask"])
    return Drawn("nsl", options, to, mask)


def _cleverhans(rng: random.Random, library: str, norm: str, length: float, to: str) -> Drawn:
    options: dict[str, Any] = {"ord" if library == "cleverhans3" else "norm": NUMPY_ORDERS[norm]}
    sign = 1 if library == "cleverhans-torch" else rng.choice([1, 1, 1, -1])
    if norm != "l1" and rng.random() < 0.5:
        options |= {"eps": length * rng.choice([1, 1.5, 3]), "eps_iter": length * sign}
        options |= {"nb_iter": rng.choice([1, 2, 3]), "rand_init": rng.random() < 0.15}
    else:
        options["eps"] = length * sign
    clip = rng.choice([None, (0.0, 1.0)])
    if clip:
        options |= {"clip_min": clip[0], "clip_max": clip[1]}
        if library == "cleverhans3":
            options["clip_grad"] = rng.random() < 0.3
    labels = rng.choice(["given", "predicted", "targets"])
    options["labels"] = "predicted" if labels == "predicted" else "given"
    options["targeted"] = labels == "targets"
    return Drawn(library, options, to)


def case_of(drawn: Drawn) -> Case:
    """The same configuration as a case of the main table."""
    recipe = Configuration.of(drawn.library, drawn.options).recipe
    options = {k: v for k, v in drawn.options.items() if k not in ("labels", "reduction")}
    name = f"{drawn.library} {dict(drawn.options)} {drawn.mask} to {drawn.to}"
    if drawn.library == "nsl":
        bounds = ("clip_value_min", "clip_value_max")
        extras = [bound for bound in bounds if options.pop(bound) is not None]
        extras += [drawn.mask] if drawn.mask else []
        options = {k: v for k, v in options.items() if v is not None}
        loss = {"class": "SparseCategoricalCrossentropy", "from_logits": True}
        if recipe.reduction == "sum":
            loss["reduction"] = "sum"
        return Case(name=name, library="nsl", params=options, loss=loss, extras=tuple(extras))
    labels = "target" if recipe.targeted else "true" if recipe.labels == "given" else "predicted"
    if drawn.library == "cleverhans3":
        attack = "ProjectedGradientDescent" if "nb_iter" in options else "FastGradientMethod"
        del options["targeted"]
    else:
        attack = "projected_gradient_descent" if "nb_iter" in options else "fast_gradient_method"
    params = {"attack": attack, **options}
    return Case(name=name, library=drawn.library, params=params, labels=labels)  # type: ignore[arg-type]


class _Rounded(Data):
    """The batch in float64, with the masks and bounds that float32 has."""

    def extras(self, case: Case) -> dict[str, Array]:
        found = super().extras(replace(case, dtype="float32"))
        return {name: np.asarray(array, case.dtype) for name, array in found.items()}


@dataclass
class Side:
    """Where originals run, on one model and batch.

    Attributes:
        workers: The processes by environment.
        originals: The originals of the main table, in the same processes.
        path: The Keras model.
        model: The converted model.
        data: The batch.
        output: What the models give, "logits" or "probabilities".
    """

    workers: Mapping[int, Worker]
    originals: Originals
    path: Path
    model: nn.Module
    data: Data
    output: Literal["logits", "probabilities"] = "logits"

    @classmethod
    def of(cls, workers: Mapping[int, Worker], path: Path, model: nn.Module, data: Data) -> Side:
        """With the model's weights in a Keras model."""
        weights = model.keras_arrays(dict(model.named_parameters()))  # type: ignore[operator]
        hidden = path.with_name(f"{path.stem}-reshaped.keras")
        workers[2].call("save", weights, path=str(path), reshaped=str(hidden))
        return cls(workers, Together(workers), path, model, data)

    @property
    def of_probabilities(self) -> Side:
        """The same with the softmax, which Keras does not find behind a reshape."""
        path = self.path.with_name(f"{self.path.stem}-reshaped.keras")
        model = nn.Sequential(self.model, nn.Softmax(dim=1))
        return replace(self, path=path, model=model, output="probabilities")

    def run(self, translation: Translation, y: Array, mask: Array | None) -> dict[str, Array]:
        """What the text of a translation leaves, run in the library that it calls."""
        (x,) = self.data.x.values()
        arrays = {"x": x, "y": y} | ({} if mask is None else {"mask": mask})
        library = translation.target.library
        if library == "cleverhans-torch":
            return self._run_torch(translation.code, arrays)
        worker = self.workers[PROCESSES[library]]
        options = {"model": str(self.path), "output": self.output}
        reply = worker.call("run", arrays, library=library, code=translation.code, **options)
        return dict(reply.arrays)

    def _run_torch(self, code: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
        model = copy.deepcopy(self.model).train()
        names: dict[str, Any] = {n: torch.from_numpy(a) for n, a in arrays.items()}
        names["model"] = model
        with _importable(self.originals):
            exec(code, names)
        found = {"adv": names["x_adv"].detach().numpy()}
        if "training_loss" in names:
            names["training_loss"].backward()
            found["loss"] = names["training_loss"].detach().numpy()
            gradients = {name: p.grad for name, p in model.named_parameters()}
            by_name = model.keras_arrays(gradients)  # type: ignore[operator]
            found |= {f"grad/{name}": array for name, array in by_name.items()}
        return found

    def perturbed(self, drawn: Drawn, translation: Translation) -> dict[str, Array]:
        """The adversarial examples by a translation of what is drawn."""
        case, mask = case_of(drawn), None
        if drawn.mask:
            (mask,) = self.data.extras(replace(case, extras=(drawn.mask,))).values()
        (name,) = self.data.x
        found = self.run(translation, self.data.class_numbers(case), mask)
        return {f"adv/{name}": found["adv"]}

    def judged(self, drawn: Drawn, translation: Translation) -> Verdict:
        """The verdict on a translation of what is drawn, which does not start at random."""
        case = case_of(drawn)
        actual = self.perturbed(drawn, translation)
        on = self.path, self.model, self.data
        expected = self.originals.result(case, *on)
        theirs = {name: expected[name] for name in actual}
        if all(np.array_equal(theirs[name], actual[name]) for name in actual):
            return Verdict(case, compare(theirs, actual, title=case.name), "the same bits")

        def iterate(turns: int) -> dict[str, Array]:
            ended = drawn.up_to(turns).translation()
            if translation.target.library == drawn.library:
                ended = translate(ended.target, to=drawn.library)
            return self.perturbed(drawn, ended)

        def in_float64() -> dict[str, Array]:
            data = _Rounded(self.data.x, self.data.y, self.data.classes)
            return port.run_port(replace(case, dtype="float64"), self.model, data)

        expected |= self.originals.judges(case, *on, expected)
        exact = ExactPort(case, self.model, self.data)
        return judge(case, self.data, expected, actual, iterate, in_float64, exact)


@contextmanager
def _importable(originals: Originals) -> Iterator[None]:
    """CleverHans' torch functions under the names that a caller imports them by."""
    names = ["cleverhans", "cleverhans.torch", "cleverhans.torch.attacks"]
    kept = {name: module for name, module in sys.modules.items() if name.startswith("cleverhans")}
    for function in ("fast_gradient_method", "projected_gradient_descent"):
        module = types.ModuleType(f"cleverhans.torch.attacks.{function}")
        setattr(module, function, getattr(originals.cleverhans_torch, function))
        sys.modules[module.__name__] = module
    for name in names:
        package = types.ModuleType(name)
        package.__path__ = []
        package.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        sys.modules[name] = package
    try:
        yield
    finally:
        for name in [n for n in sys.modules if n.startswith("cleverhans")]:
            del sys.modules[name]
        sys.modules.update(kept)
