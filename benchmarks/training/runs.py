"""The same training twice: by an original, live, and by this package's step with torch.optim.

Both start from the weights of one Keras file and take the same examples in the same order.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.rows import device_name
from benchmarks.training.optimizers import Library, Optimizer
from benchmarks.training.rows import Row
from torchfgsm import Recipe, Weighting, __version__, adversarial_loss, adversarial_step, converters
from torchfgsm.converters import ConvertedModel
from torchfgsm.converters.ops.normalization import KerasBatchNorm
from torchfgsm.originals import KERAS_2, Worker

Array = npt.NDArray[Any]
Precision = Literal["float32", "float64"]
_CLASSES = 10
_HERE = Path(__file__).parent
_WORKERS = {
    "nsl": _HERE / "nsl_worker.py",
    "cleverhans3": _HERE / "cleverhans3_worker.py",
}
_NSL_NORMS = {"linf": "infinity", "l2": "l2", "l1": "l1"}
_ORDERS = {"linf": math.inf, "l2": 2, "l1": 1}
_NSL_LOSSES = ("loss", "sparse_categorical_crossentropy", "scaled_adversarial_loss")


@dataclass(frozen=True)
class Config:
    """How a model is trained.

    Attributes:
        library: Whose training it is.
        norm: "linf", "l2" or "l1".
        eps: Length of the attack's one step.
        weight: NSL's `multiplier` or CleverHans' `adv_coeff`.
        optimizer: The optimizer.
        pass_y: Whether CleverHans' attack is against the labels; NSL's always is.
    """

    library: Library
    norm: Literal["linf", "l2", "l1"]
    eps: float
    weight: float
    optimizer: Optimizer
    pass_y: bool = True

    def params(self) -> dict[str, Any]:
        """The original's own keywords."""
        if self.library == "nsl":
            return {
                "multiplier": self.weight,
                "adv_step_size": self.eps,
                "adv_grad_norm": _NSL_NORMS[self.norm],
            }
        return {
            "attack": "FastGradientMethod",
            "attack_params": {"eps": self.eps, "ord": _ORDERS[self.norm]},
            "adv_coeff": self.weight,
            "pass_y": self.pass_y,
        }

    def recipe(self) -> Recipe:
        """How the original makes its adversarial examples while it trains."""
        if self.library == "nsl":
            # Inside of fit everything runs in training mode, and BatchNorm counts each pass.
            recipe = Recipe.nsl(self.eps, _NSL_NORMS[self.norm])
            return dataclasses.replace(recipe, model_mode="keep_and_update")
        return Recipe.cleverhans3(eps=self.eps, ord=_ORDERS[self.norm])

    def weighting(self) -> Weighting:
        """How the original weighs its two losses."""
        if self.library == "nsl":
            return Weighting.from_nsl(self.weight)
        return Weighting.from_cleverhans(self.weight)

    def translated(self, optimizer: Optimizer | None = None) -> Config:
        """The other library's configuration that trains the same way.

        Args:
            optimizer: In place of the one that makes up for the other scale of the loss.
        """
        own = self.weighting()
        if self.library == "nsl":
            other, weight = Weighting.from_cleverhans(own.to_cleverhans()), own.to_cleverhans()
        else:
            other, weight = Weighting.from_nsl(own.to_nsl()), own.to_nsl()
        made = self.optimizer.for_loss_times(other.clean / own.clean)
        library: Library = "cleverhans3" if self.library == "nsl" else "nsl"
        return Config(library, self.norm, self.eps, weight, optimizer or made)


@dataclass(frozen=True)
class Examples:
    """What is trained on: images (N, 8, 8, 1) and classes (N,), in the order of training."""

    x: Array
    y: Array
    batch: int

    def one_hot(self) -> Array:
        """The classes as CleverHans takes them."""
        return np.asarray(np.eye(_CLASSES)[self.y])

    def batches(self) -> Iterator[tuple[Array, Array]]:
        """The batches, one for each step."""
        for begin in range(0, len(self.x), self.batch):
            yield self.x[begin : begin + self.batch], self.y[begin : begin + self.batch]


@dataclass(frozen=True)
class Snapshot:
    """A model on its way: weights and statistics by Keras' names, and what was reported."""

    weights: dict[str, Array]
    losses: dict[str, float]


class Trainings:
    """The originals and the models that they train; a context manager.

    Args:
        folder: Where the models' files are written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._workers: dict[str, Worker] = {}
        self._versions: dict[str, dict[str, Any]] = {}
        self._models: dict[tuple[str, int, str], ConvertedModel] = {}
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Trainings:
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.close()

    def worker(self, library: Library) -> Worker:
        """The process of an original, started on first use."""
        if library not in self._workers:
            self._workers[library] = self._open.enter_context(Worker(KERAS_2, _WORKERS[library]))
        return self._workers[library]

    def row(self, *, library: str, **fields: Any) -> Row:
        """A row with the versions and the device that ran."""
        names = [name for name in get_args(Library) if name in library]
        for name in names:
            if name not in self._versions:
                self._versions[name] = self.worker(name).call("versions").values
        versions = [self._versions[name] for name in names]
        return Row(
            library=library,
            **fields,
            library_version=" and ".join(v["library_version"] for v in versions),
            tensorflow=versions[0]["tensorflow"],
            torch=torch.__version__,
            torchfgsm=__version__,
            device=device_name(torch.device("cpu")),
        )

    def path(self, kind: str, seed: int = 0) -> str:
        """The file of an untrained model; see `nsl_worker.py` for the kinds."""
        path = self._folder / f"{kind}-{seed}.keras"
        if not path.exists():
            self.worker("nsl").call("build", kind=kind, seed=seed, path=str(path))
        return str(path)

    def model(self, kind: str, seed: int = 0, precision: Precision = "float32") -> ConvertedModel:
        """A fresh copy of an untrained model, converted, in training mode."""
        key = (kind, seed, precision)
        if key not in self._models:
            dtype = torch.float64 if precision == "float64" else None
            self._models[key] = converters.load(self.path(kind, seed), dtype=dtype, verify=False)
        return copy.deepcopy(self._models[key]).train()

    def with_weights(self, kind: str, weights: Mapping[str, Array]) -> ConvertedModel:
        """A model in float64 and eval mode with weights in Keras' layout."""
        model = self.model(kind, precision="float64").eval()
        with torch.no_grad():
            for name, weight in model.weight_names().items():
                array = np.array(weight.to_onnx(weights[weight.name]))
                getattr(model.weights, name).copy_(torch.from_numpy(array))
        return model

    def by_original(
        self,
        config: Config,
        examples: Examples,
        kind: str,
        *,
        seed: int = 0,
        precision: Precision = "float32",
        at: Sequence[int],
    ) -> dict[int, Snapshot]:
        """Trains in the original's process; the states after the steps of `at`."""
        y = examples.y
        if config.library == "cleverhans3":
            y = examples.one_hot()
        reply = self.worker(config.library).call(
            "fit",
            {"x/image": examples.x, "y": y},
            model=self.path(kind, seed),
            params=config.params(),
            optimizer=config.optimizer.of(config.library),
            dtype=precision,
            training=True,
            batch=examples.batch,
            at=list(at),
        )
        return {step: _snapshot(reply.arrays, f"{step}/") for step in at}

    def by_port(
        self,
        config: Config,
        examples: Examples,
        kind: str,
        *,
        seed: int = 0,
        precision: Precision = "float32",
        at: Sequence[int],
    ) -> dict[int, Snapshot]:
        """Trains here; the states after the steps of `at`."""
        model = self.model(kind, seed, precision)
        found = {}
        for step, losses in enumerate(train(model, config, examples), 1):
            if step in at:
                found[step] = Snapshot(_weights(model), losses)
        return found


def train(model: ConvertedModel, config: Config, examples: Examples) -> Iterator[dict[str, float]]:
    """Trains a model as the original does; after each step, what the original reports then.

    NSL's fit reports means over the batches up to there, CleverHans the batch's loss.
    """
    if config.library == "cleverhans3":
        for module in model.modules():
            if isinstance(module, KerasBatchNorm):
                module.momentum = 1.0  # nothing in cleverhans.train moves Keras' statistics
    optimizer = config.optimizer.in_torch(model, config.library)
    recipe = config.recipe()
    arguments: dict[str, Any] = {
        "recipe": recipe,
        "weighting": config.weighting(),
        "pass_y": config.pass_y,
    }
    history: list[list[float]] = []
    for images, classes in examples.batches():
        x, y = torch.from_numpy(images).to(model.dtype), torch.from_numpy(classes)
        optimizer.zero_grad()
        if recipe.through_perturbation and recipe.norm == "l2":
            losses = adversarial_loss(model, x, y, **arguments)
            torch.autograd.backward(losses.loss)
        else:
            losses = adversarial_step(model, x, y, **arguments)
        optimizer.step()
        parts = (losses.loss, losses.clean_loss, losses.adversarial_loss)
        values = [math.nan if part is None else part.detach().item() for part in parts]
        history.append([*values[:2], config.weight * values[2]])
        if config.library == "nsl":
            means = np.mean(history, axis=0)
            yield dict(zip(_NSL_LOSSES, map(float, means), strict=True))
        else:
            yield {"loss": values[0]}


def _weights(model: ConvertedModel) -> dict[str, Array]:
    return {name: np.array(array) for name, array in model.to_keras_weights().items()}


def _snapshot(arrays: Mapping[str, Array], prefix: str) -> Snapshot:
    mine = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    return Snapshot(
        {k.removeprefix("weight/"): v for k, v in mine.items() if k.startswith("weight/")},
        {k.removeprefix("loss/"): float(v) for k, v in mine.items() if k.startswith("loss/")},
    )
