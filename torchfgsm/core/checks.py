"""Refusals of bad input to the native attacks, before any model call."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from torchfgsm.core.call_checks import refuse_arrays
from torchfgsm.core.presets import Norm, known_norm
from torchfgsm.models.features import Features, items
from torchfgsm.models.keras_mode import is_keras


def norm_named(word: object) -> Norm:
    """This package's name of a norm, from any library's word for it.

    Raises:
        ValueError: No norm's name.
    """
    norm = known_norm(word)
    if norm is None:
        raise ValueError(f"norm must be 'linf', 'l2' or 'l1', got {word!r}")
    return norm


def check_target(targeted: bool, y: Any) -> None:
    """Refuses a targeted attack without targets.

    Raises:
        ValueError: `y` is None.
    """
    if targeted and y is None:
        raise ValueError("targeted=True moves towards y: give the target labels as y")


def looks_at_values(x: Any, validate: bool | None) -> bool:
    """Whether values are checked: on the CPU or when asked for, never while compiling."""
    if torch.compiler.is_compiling():
        return False
    if validate is not None:
        return validate
    return all(v.device.type == "cpu" for v in items(x).values() if isinstance(v, Tensor))


def check_input(model: Any, x: Any, *, values: bool) -> Features:
    """The features of a native attack's input.

    Args:
        model: The model; a module's floating-point dtype must be the input's.
        x: A tensor, or a dict or list of features.
        values: Whether entries are looked at.

    Raises:
        TypeError: No floating-point tensor among the features.
        ValueError: An empty batch, batches of different sizes, NaN or infinite entries, a dtype
            or device that is not the model's, missing or unknown feature names.
    """
    refuse_arrays(x=x)
    expected = getattr(model, "input_names", None)
    given = items(x)
    if expected is not None and isinstance(x, dict) and set(expected) != set(given):
        raise ValueError(
            f"the model's inputs are named {list(expected)}, got features {list(given)}"
        )
    features = Features.take_apart(x)
    if not features.tensors:
        kinds = {
            name: str(v.dtype) if isinstance(v, Tensor) else type(v).__name__
            for name, v in given.items()
        }
        raise TypeError(
            "x must hold a dense floating-point tensor to perturb, got "
            f"{_summary(kinds) or repr(x)}; "
            + _way_out(model, any(isinstance(v, Tensor) for v in given.values()))
        )
    sizes = {}
    for name, tensor in zip(features.names, features.tensors, strict=True):
        called = f"feature {name!r}" if name != "" else "x"
        sizes[name] = _batch_size(called, tensor)
        if tensor.is_complex():
            raise TypeError(f"{called} is complex; split it into real and imaginary parts")
        if values and not _all_finite(tensor):
            index = tuple((~torch.isfinite(tensor)).nonzero()[0].tolist())
            raise ValueError(f"{called} has a NaN or infinite entry, the first at {index}")
        _check_against_model(model, called, tensor)
    if any(size != features.tensors[0].shape[0] for size in sizes.values()):
        raise ValueError(f"all features need the same batch size, got {sizes}")
    return features


def _summary(kinds: dict[Any, str]) -> str:
    """What was found by name, shortened where there is a lot of it."""
    found = [kind if name == "" else f"{name!r}: {kind!r}" for name, kind in kinds.items()]
    return ", ".join([*found[:5], *(["..."] if len(found) > 5 else [])])


def _way_out(model: Any, tensors: bool) -> str:
    """How to attack a model that is given integers, or no tensors."""
    if not tensors:
        return "numbers become a tensor by torch.as_tensor(x)"
    cast = getattr(model, "cast_inputs", None)
    if cast:
        return f"this model casts its inputs {sorted(cast)} itself: give x.float(), not divided"
    ports = getattr(getattr(model, "annotation", None), "inputs", ())
    if ports and not any(port.dtype.startswith("float") for port in ports):
        return (
            "this model computes with its inputs as integers, so that no gradient leads to them: "
            "attack what stands behind them, such as an embedding's output"
        )
    return (
        "give images as floating-point numbers in the range that the model takes (x.float() where "
        "it scales pixels itself, x.float() / 255 where it takes [0, 1]); of token ids split the "
        "embedding off and attack its output"
    )


def _all_finite(tensor: Tensor) -> bool:
    """Whether no entry is NaN or infinite, in one pass: NaN is both smallest and largest."""
    smallest, largest = torch.aminmax(tensor.detach())
    return math.isfinite(smallest) and math.isfinite(largest)


def _batch_size(called: str, tensor: Tensor) -> int:
    if tensor.dim() == 0 or tensor.numel() == 0:
        raise ValueError(
            f"{called} must be a non-empty batch (N, ...), got shape {tuple(tensor.shape)}"
        )
    return tensor.shape[0]


def _check_against_model(model: Any, called: str, tensor: Tensor) -> None:
    if not isinstance(model, nn.Module):
        return
    parameters = list(model.parameters())
    _refuse_inference(model, parameters)
    _refuse_other_dtype(model, parameters, called, tensor)
    devices = {parameter.device for parameter in parameters}
    if len(devices) == 1 and devices != {tensor.device}:
        raise ValueError(
            f"{called} is on {tensor.device} and the model on {devices.pop()}; move one of them"
        )


def _refuse_inference(model: nn.Module, parameters: list[nn.Parameter]) -> None:
    """Refuses parameters that autograd cannot save."""
    if torch.compiler.is_compiling() or not any(p.is_inference() for p in parameters):
        return
    names = [name for name, p in model.named_parameters() if p.is_inference()]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    raise ValueError(
        f"the model's parameters {names[:3]}{more} were made inside of torch.inference_mode(), and "
        "no gradient flows through them: make or load the model outside of it, or give "
        "copy.deepcopy(model), taken outside of it"
    )


def refuse_other_dtype(model: Any, called: str, tensor: Tensor) -> None:
    """Refuses float64 input to a model of another precision, and the reverse.

    Raises:
        ValueError: Naming both dtypes; parameters that were made in inference mode.
    """
    if isinstance(model, nn.Module):
        parameters = list(model.parameters())
        _refuse_inference(model, parameters)
        _refuse_other_dtype(model, parameters, called, tensor)


def _refuse_other_dtype(
    model: nn.Module, parameters: Iterable[Tensor], called: str, tensor: Tensor
) -> None:
    dtypes = {p.dtype for p in parameters if p.is_floating_point()}
    if not dtypes or tensor.dtype in dtypes or torch.float64 not in dtypes | {tensor.dtype}:
        return
    (dtype, *_) = sorted(dtypes, key=str)
    # Keras' layers cast to their own dtype, whatever that of their parameters is.
    one = "cast it: x.to({})"
    ways = one if is_keras(model) else "cast one of them: x.to({}) or model.to({})"
    raise ValueError(
        f"{called} is {tensor.dtype} and the model's parameters are {dtype}; "
        + ways.format(dtype, tensor.dtype)
    )


def check_gradient(features: Features, grad: Any) -> list[Tensor | None]:
    """The gradient of each feature.

    Raises:
        TypeError: A gradient that is not a tensor.
        ValueError: A missing gradient, or another shape, dtype or device than its feature's.
    """
    found: list[Tensor | None] = []
    for name, tensor, entry in zip(
        features.names, features.tensors, features.select(grad), strict=True
    ):
        called = f"the gradient of feature {name!r}" if name != "" else "grad"
        if not isinstance(entry, Tensor):
            raise TypeError(
                f"{called} must be a tensor, got {type(entry).__name__}; use torch.as_tensor"
            )
        for what in ("shape", "dtype", "device"):
            expected, came = getattr(tensor, what), getattr(entry, what)
            if expected != came:
                raise ValueError(f"{called} must have its feature's {what}: {expected}, not {came}")
        found.append(entry)
    return found
