"""The modules of a model: those of an nn.Module, and those that any other callable can reach."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

_FARTHEST = 4  # callables and containers between a model and its modules
_LARGEST = 64  # a longer container holds data, not models
_MOST = 1000  # objects that are looked into


def modules_of(model: Any) -> list[nn.Module]:
    """Every module of a model once, a parent before its children.

    A bound method, a `functools.partial`, a function or an object is looked into: its object and
    arguments, what it closes over and the globals that it names, its attributes.

    Args:
        model: A module or any other callable.
    """
    if torch.compiler.is_compiling():
        return list(model.modules()) if isinstance(model, nn.Module) else []
    found = [model] if isinstance(model, nn.Module) else list(_reached(model))
    seen = {id(module) for module in found}
    for module in found:  # which grows meanwhile; several times as quick as modules()
        for child in module._modules.values():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                found.append(child)
    return found


def is_training(model: Any) -> bool:
    """Whether any module of a model is in training mode; a frozen TorchScript module has none."""
    return any(getattr(module, "training", False) for module in modules_of(model))


def _reached(start: Any) -> Iterator[nn.Module]:
    """The outermost modules that a callable can reach."""
    left, seen = [(start, 0)], {id(start)}
    while left:
        value, distance = left.pop()
        if isinstance(value, nn.Module):
            yield value
        elif distance < _FARTHEST and len(seen) < _MOST:
            for part in _parts(value):
                if id(part) not in seen and not isinstance(part, _NO_MODELS):
                    seen.add(id(part))
                    left.append((part, distance + 1))


_NO_MODELS = (Tensor, type, types.ModuleType, str, bytes, int, float, type(None))


def _parts(value: Any) -> Iterable[Any]:
    """What a callable or a container is made of."""
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, types.MethodType):
        own = value.__self__
        return [own] if isinstance(own, nn.Module) else [own, value.__func__]
    if isinstance(value, types.FunctionType):
        return _parts_of_function(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return value if len(value) <= _LARGEST else ()
    if isinstance(value, dict):
        return value.values() if len(value) <= _LARGEST else ()
    return list(getattr(value, "__dict__", {}).values())


def _parts_of_function(function: types.FunctionType) -> list[Any]:
    found = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    found += vars(function).values()  # what it wraps
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            continue
    for name in _names(function.__code__):
        value = function.__globals__.get(name)
        # Of other functions those of its own file: what lies behind an import is a library's.
        elsewhere = getattr(value, "__globals__", function.__globals__) is not function.__globals__
        if not elsewhere:
            found.append(value)
    return found


def _names(code: types.CodeType) -> Iterator[str]:
    """Names of globals and attributes in a function and in the functions inside of it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)
