"""The originals' side of a case: what they give, and the float64 gradients that judge it."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from torchfgsm import originals
from torchfgsm.core.weighting import Weighting
from torchfgsm.originals.cleverhans_torch import CleverHansTorch, cleverhans_torch
from torchfgsm.originals.process import Reply, Worker
from torchfgsm.parity import functions
from torchfgsm.parity.cases import Case, norm_of
from torchfgsm.parity.data import Array, Data
from torchfgsm.parity.float64_slopes import Slopes, gradient_of, slopes_of
from torchfgsm.parity.truth import true_adversarial

# Further from float64 than a float32 loss gets by rounding of its terms.
_TRAINING_NEAR = 1e-5


class Originals:
    """The four originals, each started when it is first needed; a context manager.

    CleverHans 4's torch part runs in this process on a copy of the converted model, the others run
    on the Keras model in processes of their own.

    Args:
        allow_unsafe: Models may run the Python code that lies in their files.
        runtime: Which TensorFlow they run on: `originals.KERAS_2`, or `originals.WITNESS`.
    """

    def __init__(self, *, allow_unsafe: bool = False, runtime: str = originals.KERAS_2) -> None:
        self._allow_unsafe, self._runtime = allow_unsafe, runtime
        self._workers: dict[str, Worker] = {}
        self._cleverhans_torch: CleverHansTorch | None = None

    def __enter__(self) -> Originals:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends all processes."""
        while self._workers:
            self._workers.popitem()[1].close()

    def worker(self, library: str) -> Worker:
        """The process of a library; "nsl" also serves the float64 judge."""
        if library not in self._workers:
            self._workers[library] = originals.start(
                library, allow_unsafe=self._allow_unsafe, runtime=self._runtime
            )
        return self._workers[library]

    @property
    def cleverhans_torch(self) -> CleverHansTorch:
        """CleverHans 4's torch functions."""
        if self._cleverhans_torch is None:
            self._cleverhans_torch = cleverhans_torch(self._runtime)
        return self._cleverhans_torch

    def versions(self, library: str) -> dict[str, Any]:
        """The versions that run behind a library's name."""
        if library == "cleverhans-torch":
            version = self.cleverhans_torch.version
            return {"library_version": version, "torch": torch.__version__}
        return self.worker(library).call("versions").values

    def run(self, case: Case, path: Path, model: nn.Module, data: Data) -> dict[str, Array]:
        """What the original gives for a case, and what judges it.

        Args:
            case: The case.
            path: The Keras model's file.
            model: The converted model, for CleverHans' torch part.
            data: The batch.

        Returns:
            The original's arrays (see the workers), and for perturbations gradient64/<input>,
            truth/<input> and, where the loss takes logits, label_slope/<input> and label_miss from
            the float64 judge; for iterated L-inf steps in float32 every iterate
            (iterate/<k>/<input>) and all of these where it was computed (gradient/<k>/<input> ...).

        Raises:
            WorkerError: The original failed.
        """
        found = self.result(case, path, model, data)
        return found | self.judges(case, path, model, data, found)

    def judges(
        self, case: Case, path: Path, model: nn.Module, data: Data, found: dict[str, Array]
    ) -> dict[str, Array]:
        """What judges a result of a case; see `run`."""
        if case.kind == "function":
            return {}
        if case.kind == "train":
            return self._training_judges(case, path, model, data, found)
        slopes = self.slopes(case, path, data, found.get("labels"))
        judges = dict(slopes({k: np.asarray(v, np.float64) for k, v in data.x.items()}, True))
        truth = true_adversarial(case, data, gradient_of(slopes))
        judges |= {f"truth/{name}": value for name, value in truth.items()}
        if iterations(case) > 1 and norm_of(case) == "linf" and case.dtype == "float32":
            judges |= self.iterates(case, path, model, data, slopes)
        return judges

    def result(self, case: Case, path: Path, model: nn.Module, data: Data) -> dict[str, Array]:
        """What the original alone gives for a case; see `run`."""
        if case.kind == "function":
            return self._function(case)
        if case.kind == "train":
            return self._train(case, path, data)
        if case.library == "cleverhans-torch":
            return _perturb_cleverhans_torch(self.cleverhans_torch, case, model, data)
        return dict(self._call("perturb", case, path, data).arrays)

    def _train(self, case: Case, path: Path, data: Data) -> dict[str, Array]:
        reply = self._call("train", case, path, data)
        _refuse_layer_losses(reply.values)
        keep = {k: v for k, v in reply.arrays.items() if k.startswith(("grad/", "after/"))}
        if case.library == "cleverhans3":
            keep = {name: value for name, value in keep.items() if "moving_" not in name}
        return {"loss": np.asarray(reply.values["loss"], case.dtype), **keep}

    def _call(self, method: str, case: Case, path: Path, data: Data) -> Reply:
        arrays = {**data.inputs(case.dtype), **data.labels(case), **data.extras(case)}
        if "w_column" in case.extras:
            arrays["w"] = arrays.pop("w")
        options: dict[str, Any] = {
            "model": str(path),
            "output": case.output,
            "dtype": case.dtype,
            "params": dict(case.params),
        }
        if case.library == "nsl":
            options["loss"] = dict(case.loss)
        if method == "train":
            options["training"] = case.training
            options["optimizer"] = dict(case.optimizer) if case.optimizer else None
        return self.worker(case.library).call(method, arrays, **options)

    def _function(self, case: Case) -> dict[str, Array]:
        arrays = functions.arrays_of(case)
        if case.library == "cleverhans-torch":
            tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
            return {"result/x": functions.call(case, self.cleverhans_torch, tensors).numpy()}
        reply = self.worker(case.library).call(
            "function", arrays, params=functions.worker_params(case)
        )
        return dict(reply.arrays)

    def slopes(self, case: Case, path: Path, data: Data, labels: Array | None) -> Slopes:
        """What the original model's float64 loss does where the attack looks; see `slopes_of`."""
        return slopes_of(self.worker("nsl"), case, path, data, labels)

    def _training_truth(self, case: Case, path: Path, data: Data) -> dict[str, Array]:
        """Loss, gradients, weights after a step in float64; CleverHans' one step by its formula."""
        if case.library == "nsl":
            reply = self._call("train", replace(case, dtype="float64"), path, data)
            found = {"loss": np.asarray(reply.values["loss"]), **reply.arrays}
            return {f"truth/{name}": value for name, value in found.items()}
        attack = dict(case.params["attack_params"])
        if iterations(replace(case, params=attack)) > 1 or "weight_decay" in case.params:
            return {}
        return self._cleverhans_training_truth(case, path, data)

    def _cleverhans_training_truth(
        self, case: Case, path: Path, data: Data, given: Array | None = None
    ) -> dict[str, Array]:
        """The formula in float64, of adversarial examples that are given or its own."""
        weighting = Weighting.from_cleverhans(case.params.get("adv_coeff", 0.5))
        arrays = {**data.inputs("float64"), "y": np.eye(data.classes)[data.y]}
        reply = self.worker("nsl").call(
            "training_truth",
            arrays if given is None else {**arrays, "given": given},
            model=str(path),
            output=case.output,
            norm=norm_of(case),
            eps=case.params["attack_params"]["eps"],
            clean=weighting.clean,
            adversarial=weighting.adversarial,
            smoothing=case.params.get("smoothing", 0.0),
            predicted=not case.params.get("pass_y", False),
            training=case.training,
            optimizer=dict(case.optimizer) if case.optimizer else None,
        )
        return {f"truth/{name}": value for name, value in reply.arrays.items()}

    def _training_judges(
        self, case: Case, path: Path, model: nn.Module, data: Data, found: dict[str, Array]
    ) -> dict[str, Array]:
        """The float64 values, or those of the original's own examples with attack/<array>.

        The latter where the loss is far from float64: signs that rounding turned move it.
        """
        truth = self._training_truth(case, path, data)
        attack = attack_in_training(case)
        if attack is None or "truth/loss" not in truth:
            return truth
        loss = float(truth["truth/loss"])
        if abs(float(found["loss"]) - loss) <= _TRAINING_NEAR * (1 + abs(loss)):
            return truth
        alone = self.run(attack, path, model, data)
        (name,) = data.x
        truth = self._cleverhans_training_truth(case, path, data, alone[f"adv/{name}"])
        return truth | {f"attack/{key}": value for key, value in alone.items()}

    def iterates(
        self, case: Case, path: Path, model: nn.Module, data: Data, slopes: Slopes
    ) -> dict[str, Array]:
        """Every iterate of a PGD case; both gradients and the slopes at the one before it."""
        found: dict[str, Array] = {}
        here = data
        for turn in range(1, iterations(case) + 1):
            # Labels predicted on the clean input stay: the gradients are taken against them.
            one_step = replace(case, params={**case.params, iterations_key(case): 1})
            at = self.result(one_step, path, model, here)
            inputs = {name: np.asarray(v, np.float64) for name, v in here.x.items()}
            for key, value in slopes(inputs, turn == 1).items():
                kind, _, name = key.partition("/")
                found[f"{kind}/{turn}/{name}".rstrip("/")] = value
            for name in data.x:
                found[f"gradient/{turn}/{name}"] = at[f"gradient/{name}"]
            adv = self.result(up_to(case, turn), path, model, data)
            for name in data.x:
                found[f"iterate/{turn}/{name}"] = adv[f"adv/{name}"]
            here = replace(data, x={n: adv[f"adv/{n}"] for n in data.x})
        return found


class NotComparableError(ValueError):
    """A case that a model does not allow, with the reason."""


def _refuse_layer_losses(values: dict[str, Any]) -> None:
    """Regularizers are part of NSL's loss and do not travel with a converted model."""
    if "labeled_loss" not in values:
        return
    rest = values["loss"] - values["labeled_loss"] - values["scaled_adversarial_loss"]
    if abs(rest) > 1e-6 * (1 + abs(values["loss"])):
        raise NotComparableError(
            f"the model's layers add a loss of {rest:.6g} (regularizers), which a converted model "
            "does not have: add it to the port's loss yourself"
        )


def _perturb_cleverhans_torch(
    original: CleverHansTorch, case: Case, model: nn.Module, data: Data
) -> dict[str, Array]:
    """CleverHans' torch part on a copy of the model, since it leaves gradients behind."""
    model = copy.deepcopy(model)
    params = dict(case.params)
    attack = getattr(original, params.pop("attack"))
    ((name, x),) = ((n, torch.from_numpy(np.asarray(v, case.dtype))) for n, v in data.x.items())
    y = {k: torch.from_numpy(v) for k, v in data.labels(case).items()}
    adversarial = attack(model, x, **params, **y).detach().numpy()
    leaf = x.clone().requires_grad_()
    logits = model(leaf)
    labels = y.get("y", logits.argmax(dim=1))
    loss = F.cross_entropy(logits, labels)
    (gradient,) = torch.autograd.grad(-loss if case.labels == "target" else loss, leaf)
    return {f"adv/{name}": adversarial, f"gradient/{name}": gradient.numpy()}


def iterations_key(case: Case) -> str:
    """The parameter that says how many steps are made."""
    return "pgd_iterations" if case.library == "nsl" else "nb_iter"


def iterations(case: Case) -> int:
    """The number of steps of a case."""
    count: int = case.params.get(iterations_key(case), 1)
    return count


def attack_in_training(case: Case) -> Case | None:
    """The one step of CleverHans' training by itself; None for others, and under L2's gradient."""
    params = case.params
    if case.library != "cleverhans3" or case.training or norm_of(case) == "l2":
        return None
    alone = {"attack": params["attack"], **params["attack_params"]}
    labels: Literal["true", "predicted"] = "true" if params.get("pass_y") else "predicted"
    attack = replace(case, kind="perturb", params=alone, labels=labels, optimizer=None)
    return attack if iterations(attack) == 1 and case.optimizer is None else None


def up_to(case: Case, turns: int) -> Case:
    """The same case, ended after some steps."""
    return replace(case, params={**case.params, iterations_key(case): turns})
