"""Calls a model on features of any structure; it may write into what it is given."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import weakref
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

from torchfgsm.models.features import items

# Models that have written into their input. By reference: an attack leaves no trace on a model.
_WRITERS: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def call_model(model: Any, x: Any, **kwargs: Any) -> Any:
    """The model's output on a tensor, a dict or a list of features, which stay as they are.

    A model may write into its input (`x.sub_(mean)`, `ReLU(inplace=True)`): a leaf that requires
    grad is protected by torch, and is copied for those models alone that would write into it; any
    other tensor is copied. Gradients reach the originals.

    Args:
        model: A module or callable.
        x: A tensor; a list, whose features are positional arguments; or a dict. A dict's features
            are given in the order of `input_names` where the model has these (every converted
            model), by keyword where they are named like the parameters of a module's `forward`,
            and otherwise as the dict itself.
        **kwargs: Further keyword arguments.
    """
    if torch.compiler.is_compiling():  # copies cost a compiled graph nothing that is not needed
        return _called(model, _copied(x), kwargs)
    known = isinstance(model, nn.Module)
    if not (known and model in _WRITERS):
        try:
            return _called(model, _protected(x), kwargs)
        except RuntimeError as error:
            # Raised before the first write, so that the data are as they were.
            if "leaf Variable that requires grad" not in str(error):
                raise
        if known:
            _WRITERS.add(model)
    return _called(model, _copied(x), kwargs)


def _called(model: Any, x: Any, kwargs: dict[str, Any]) -> Any:
    if isinstance(x, Tensor):  # the usual case first: asking for a Mapping takes longer
        return model(x, **kwargs)
    if isinstance(x, Mapping):
        names = getattr(model, "input_names", None)
        if names is not None:
            return model(*[x[name] for name in names], **kwargs)
        return model(**x, **kwargs) if takes_by_name(model, x) else model(x, **kwargs)
    return model(*x, **kwargs) if isinstance(x, (list, tuple)) else model(x, **kwargs)


def _protected(value: Any) -> Any:
    """The input with copies of the tensors into which a model could write unnoticed."""
    if isinstance(value, Tensor):
        safe = value.requires_grad and value.is_leaf and torch.is_grad_enabled()
        return value if safe else _copied(value)
    if isinstance(value, (Mapping, list, tuple)):
        found = {name: _protected(entry) for name, entry in items(value).items()}
        return found if isinstance(value, Mapping) else list(found.values())
    return value


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, (Mapping, list, tuple)):
        found = {name: _copied(entry) for name, entry in items(value).items()}
        return found if isinstance(value, Mapping) else list(found.values())
    return value


def takes_by_name(model: Any, features: Mapping[Any, Any]) -> bool:
    """Whether a module's `forward` has all of the features among its parameters, by their names."""
    if not isinstance(model, nn.Module) or not all(isinstance(name, str) for name in features):
        return False
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):  # not to be read, such as of a scripted module
        return False
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    if any(p.default is p.empty and p.name not in features for p in named.values()):
        return False
    if set(features) <= set(named):
        return True
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        return False
    inner = getattr(model, "_orig_mod", None) or getattr(model, "module", None)
    if not named and inner is not None:  # DataParallel and other wrappers hand on what they get
        return takes_by_name(inner, features)
    positional = any(p.kind in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL) for p in parameters)
    return bool(set(features) & set(named)) or not (named or positional)


def detached(output: Any) -> Any:
    """An output of any structure without its graph, in its own types."""
    return mapped(output, Tensor.detach)


def mapped(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """An output of any structure with each of its tensors changed, in its own types.

    Named tuples, dataclasses and kinds of dicts (Hugging Face's `ModelOutput`) stay what they are.
    """
    if isinstance(output, Tensor):
        return change(output)
    if isinstance(output, Mapping):
        values = {name: mapped(value, change) for name, value in output.items()}
        if type(output) is dict or not isinstance(output, MutableMapping):
            return values
        like = copy.copy(output)
        for name, value in values.items():
            like[name] = value
        return like
    if isinstance(output, (list, tuple)):
        entries = [mapped(value, change) for value in output]
        return type(output)(*entries) if hasattr(output, "_fields") else type(output)(entries)
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        same: Any = copy.copy(output)
        for field in dataclasses.fields(output):
            object.__setattr__(same, field.name, mapped(getattr(output, field.name), change))
        return same
    return output
