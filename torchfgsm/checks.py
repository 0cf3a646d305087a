"""Refusals of bad input to the native attacks, before any model call."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from torchfgsm.argument_types import refuse_arrays
from torchfgsm.features import Features, items
from torchfgsm.presets import Norm, known_norm
from torchfgsm.recipe import Recipe


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


def check_length(
    name: str, value: object, features: Features | None = None, *, values: bool = True
) -> None:
    """Refuses a step or radius that is not finite and at least 0; None is let pass.

    Args:
        name: The argument's name, for the message.
        value: A number or a tensor.
        features: Features whose batch size a tensor with one axis must have, and to which all
            others must broadcast.
        values: Whether the entries of a tensor are looked at.

    Raises:
        TypeError: Not a number or a floating-point tensor.
        ValueError: Negative, not finite, or of the wrong shape.
    """
    if value is None:
        return
    if isinstance(value, Tensor):
        if not value.is_floating_point():
            raise TypeError(f"{name} must be a floating-point tensor, got {value.dtype}")
        if values and not bool((torch.isfinite(value) & (value >= 0)).all()):
            raise ValueError(f"{name} must be finite and at least 0 in every entry")
        for tensor in features.tensors if features else ():
            _check_length_shape(name, value, tensor)
    elif isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number or a tensor, got {type(value).__name__}")
    elif not 0 <= float(value) < math.inf:
        raise ValueError(f"{name} must be finite and at least 0, got {value!r}")


def _check_length_shape(name: str, value: Tensor, tensor: Tensor) -> None:
    """One axis is that of the examples, so that no batch size changes what a shape means."""
    if value.dim() != 1 or value.numel() == 1:
        check_broadcast(name, value, tensor)
    elif value.shape != tensor.shape[:1]:
        along = tensor.dim() > 1 and value.shape == tensor.shape[-1:]
        raise ValueError(
            f"{name} with one axis is one number per example: expected shape "
            f"{tuple(tensor.shape[:1])}, got {tuple(value.shape)} for a feature of shape "
            f"{tuple(tensor.shape)}"
            + (f"; for one along the last axis give {name}[None]" if along else "")
        )


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
    _refuse_other_dtype(parameters, called, tensor)
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
        _refuse_other_dtype(parameters, called, tensor)


def _refuse_other_dtype(parameters: Iterable[Tensor], called: str, tensor: Tensor) -> None:
    dtypes = {p.dtype for p in parameters if p.is_floating_point()}
    if not dtypes or tensor.dtype in dtypes or torch.float64 not in dtypes | {tensor.dtype}:
        return
    (dtype, *_) = sorted(dtypes, key=str)
    raise ValueError(
        f"{called} is {tensor.dtype} and the model's parameters are {dtype}; cast one of them: "
        f"x.to({dtype}) or model.to({tensor.dtype})"
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


def check_mask(features: Features, mask: Any, *, values: bool) -> None:
    """Refuses masks for unknown features, of the wrong shape, or outside of [0, 1].

    Raises:
        ValueError: A bad mask.
    """
    if mask is None:
        return
    unknown = [name for name in items(mask) if name not in items(features.structure)]
    if unknown:
        raise ValueError(f"mask names features {unknown} that the input has not")
    for name, tensor, factor in zip(
        features.names, features.tensors, features.select(mask), strict=True
    ):
        called = f"mask of feature {name!r}" if name != "" else "mask"
        check_broadcast(called, factor, tensor)
        if factor is None or not values:
            continue
        entries = torch.as_tensor(factor)
        if not bool(((entries >= 0) & (entries <= 1)).all()):
            raise ValueError(
                f"{called} must lie in [0, 1], got values from {float(entries.min())} to "
                f"{float(entries.max())}"
            )


def check_bounds(recipe: Recipe, features: Features, low: Any, high: Any, *, values: bool) -> None:
    """Refuses ranges that are one-sided where the recipe does not take them, crossed or misshapen.

    Args:
        recipe: The recipe with its rules for ranges.
        features: The input's features.
        low: Lower bounds: a number, a tensor, or a structure like the input's.
        high: Upper bounds, likewise.
        values: Whether entries of tensors are looked at.

    Raises:
        ValueError: A bad range.
    """
    known = set(items(features.structure))
    for side, bound in (("clip_min", low), ("clip_max", high)):
        unknown = [name for name in items(bound) if name not in known and name != ""]
        if unknown:
            raise ValueError(f"{side} names features {unknown} that the input has not")
    lows, highs = features.spread(low), features.spread(high)
    for name, tensor, a, b in zip(features.names, features.tensors, lows, highs, strict=True):
        called = f" of feature {name!r}" if name != "" else ""
        if recipe.one_sided_clip == "refused" and (a is None) != (b is None):
            raise ValueError(
                f"this recipe clips to clip_min and clip_max{called} or to neither, got "
                f"clip_min={a!r} and clip_max={b!r}"
            )
        for side, bound in (("clip_min", a), ("clip_max", b)):
            _check_bound(f"{side}{called}", bound, tensor, values=values)
        if recipe.clip_grad and (a is None or b is None):
            raise ValueError(f"clip_grad needs both clip_min and clip_max{called}")
        looked_at = recipe.crossed_clip == "refuse" and values and None not in (a, b)
        if looked_at and _any(a > b):
            raise ValueError(f"clip_min{called} is above clip_max: {a!r} > {b!r}")


def _any(found: Tensor | bool) -> bool:
    return bool(found.any()) if isinstance(found, Tensor) else found


def _check_bound(called: str, bound: Any, tensor: Tensor, *, values: bool) -> None:
    if bound is None:
        return
    if isinstance(bound, bool) or not isinstance(bound, (numbers.Real, Tensor)):
        raise TypeError(f"{called} must be a number or a tensor, got {type(bound).__name__}")
    check_broadcast(called, bound, tensor)
    if values and _any(bound != bound):  # NaN alone is not itself
        raise ValueError(f"{called} has a NaN entry")


def check_radius(recipe: Recipe, epsilon: Any, features: Features) -> None:
    """Refuses radii per element where the norm joins the elements of an example.

    Raises:
        ValueError: Naming the shape that is expected.
    """
    if not isinstance(epsilon, Tensor) or recipe.norm == "linf":
        return
    for tensor in features.tensors:
        one_each = (tensor.shape[0], *[1] * (tensor.dim() - 1))
        if epsilon.numel() != 1 and epsilon.shape not in (one_each, one_each[:1]):
            raise ValueError(
                f"the radius of an {recipe.norm} ball is one number per example: expected shape "
                f"{one_each[:1]}, got {tuple(epsilon.shape)}"
            )


def check_broadcast(called: str, value: Any, tensor: Tensor) -> None:
    """Refuses a tensor argument that does not broadcast to a feature's shape.

    Raises:
        ValueError: Naming both shapes.
    """
    if not isinstance(value, Tensor):
        return
    try:
        shape = torch.broadcast_shapes(value.shape, tensor.shape)  # type: ignore[no-untyped-call]
    except RuntimeError:
        shape = None
    if shape != tensor.shape:
        raise ValueError(
            f"{called} of shape {tuple(value.shape)} does not broadcast to the feature's shape "
            f"{tuple(tensor.shape)}"
        )
