"""The port's side of a case: the same call through this package's dialects."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchfgsm import losses, nsl
from torchfgsm.cleverhans import tf2, v3
from torchfgsm.cleverhans import torch as cleverhans_torch
from torchfgsm.parity.cases import Case
from torchfgsm.parity.data import Array, Data
from torchfgsm.system.arithmetic import exact_arithmetic


def run_port(
    case: Case, model: nn.Module, data: Data, *, given: Array | None = None
) -> dict[str, Array]:
    """What the port gives for a case, on the model's device.

    Args:
        case: The case.
        model: A converted model; with the head that the case's `output` needs. Not changed.
        data: The batch.
        given: Adversarial examples in place of those that CleverHans' training makes.

    Returns:
        Arrays by the workers' names: adv/<input>, or loss and grad/<weight> and after/<weight>.
    """
    model = _in_dtype(model, case.dtype)
    exact = contextlib.nullcontext() if device_of(model).type == "cpu" else exact_arithmetic()
    with warnings.catch_warnings(), exact:
        if case.output == "probabilities":
            warnings.filterwarnings("ignore", message=".*looks like probabilities")
        if case.kind == "train":
            return _train(case, model, data, given)
        return perturb(case, model, data)


def device_of(model: nn.Module) -> torch.device:
    """Where a model's first parameter is; the CPU without any."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _in_dtype(model: nn.Module, dtype: str) -> nn.Module:
    return copy.deepcopy(model).double() if dtype == "float64" else model


def perturb(case: Case, model: nn.Module, data: Data) -> dict[str, Array]:
    """Adversarial examples of a case, by input."""
    if case.library == "nsl":
        found = _perturb_nsl(case, model, data)
    else:
        (name,) = data.x
        found = {name: _PERTURB[case.library](case, model, data)}
    return {f"adv/{name}": tensor.detach().cpu().numpy() for name, tensor in found.items()}


def _tensors(arrays: Mapping[str, Array], device: torch.device) -> dict[str, Tensor]:
    return {
        name: torch.from_numpy(np.ascontiguousarray(array)).to(device)
        for name, array in arrays.items()
    }


def _one_input(case: Case, model: nn.Module, data: Data) -> Tensor:
    (x,) = _tensors(data.inputs(case.dtype), device_of(model)).values()
    return x


def _wrapper(case: Case, model: nn.Module, data: Data) -> nsl.AdversarialRegularization:
    params = dict(case.params)
    for key, value in _tensors(data.extras(case), device_of(model)).items():
        option, _, feature = key.partition("/")
        if feature:
            params.setdefault(option, {})[feature] = value
    return nsl.AdversarialRegularization(
        model,
        label_keys=("label",),
        sample_weight_key="sample_weight",
        adv_config=nsl.make_adv_reg_config(**params),
        loss=keras_loss(case.loss),
    )


def keras_loss(spec: Mapping[str, Any]) -> Any:
    """The loss that a case's specification names."""
    options = {name: value for name, value in spec.items() if name != "class"}
    return getattr(losses, spec["class"])(**options)


def _nsl_batch(case: Case, model: nn.Module, data: Data) -> dict[str, Tensor]:
    arrays = {name: np.asarray(x, case.dtype) for name, x in data.x.items()}
    arrays["label"] = data.labels(case)["y"]
    extras = data.extras(case)
    if "w" in extras:
        arrays["sample_weight"] = extras["w"]
    return _tensors(arrays, device_of(model))


def _perturb_nsl(case: Case, model: nn.Module, data: Data) -> dict[str, Tensor]:
    wrapper = _wrapper(case, model, data)
    perturbed = wrapper.perturb_on_batch(_nsl_batch(case, model, data))
    return {name: perturbed[name] for name in data.x}


def _perturb_cleverhans3(case: Case, model: nn.Module, data: Data) -> Tensor:
    params = dict(case.params)
    attack = getattr(v3, params.pop("attack"))(model)
    given = _tensors({**data.labels(case), **data.extras(case)}, device_of(model))
    result: Tensor = attack.generate(_one_input(case, model, data), **params, **given)
    return result


def _perturb_cleverhans4(dialect: Any) -> Any:
    def run(case: Case, model: nn.Module, data: Data) -> Tensor:
        params = dict(case.params)
        attack = getattr(dialect, params.pop("attack"))
        given = _tensors({**data.labels(case), **data.extras(case)}, device_of(model))
        result: Tensor = attack(model, _one_input(case, model, data), **params, **given)
        return result

    return run


_PERTURB: dict[str, Any] = {
    "cleverhans3": _perturb_cleverhans3,
    "cleverhans-tf2": _perturb_cleverhans4(tf2),
    "cleverhans-torch": _perturb_cleverhans4(cleverhans_torch),
}


class _Given:
    """An attack that gives what it was given."""

    def __init__(self, examples: Tensor) -> None:
        self._examples = examples

    def generate(self, x: Tensor, **params: Any) -> Tensor:
        """The adversarial examples."""
        return self._examples


def _train(
    case: Case, model: nn.Module, data: Data, given: Array | None = None
) -> dict[str, Array]:
    """The training loss, its parameter gradients and, with an optimizer, the weights after it."""
    model = copy.deepcopy(model).train(case.training)
    if case.library == "nsl":
        batch = _nsl_batch(case, model, data)
        loss = _wrapper(case, model, data)(batch).loss
    else:
        y = torch.from_numpy(data.one_hot(case)).to(device_of(model))
        examples = None if given is None else torch.from_numpy(given).to(device_of(model))
        loss = _cross_entropy(case, model, examples).fprop(_one_input(case, model, data), y)
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(loss, list(trainable.values()))
    by_name = dict(zip(trainable, grads, strict=True))
    results: dict[str, Array] = {"loss": loss.detach().cpu().numpy()}
    results |= _named("grad", model, by_name)
    if case.optimizer is not None:
        optimizer = torch.optim.SGD(list(trainable.values()), lr=case.optimizer["sgd"])
        for parameter, grad in zip(trainable.values(), grads, strict=True):
            parameter.grad = grad
        optimizer.step()
        results |= _named("after", model, model.state_dict())
    return results


def _cross_entropy(
    case: Case, model: nn.Module, given: Tensor | None
) -> v3.CrossEntropy | v3.WeightedSum:
    params = dict(case.params)
    kind = params.pop("attack")
    attack = getattr(v3, kind)(model) if given is None else _Given(given)
    decay = params.pop("weight_decay", None)
    loss = v3.CrossEntropy(model, attack=attack, **params)
    if decay is None:
        return loss
    return v3.WeightedSum(model, [(1.0, loss), (decay, v3.WeightDecay(model))])


def _named(prefix: str, model: Any, tensors: Mapping[str, Tensor]) -> dict[str, Array]:
    arrays = model.keras_arrays({name: t.detach() for name, t in tensors.items()})
    return {f"{prefix}/{name}": array for name, array in arrays.items()}
