"""The mode that a model runs in during an attack; afterwards it is as it was before."""

from __future__ import annotations

import contextlib
import threading
import warnings
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import nn

from torchfgsm.models import traces
from torchfgsm.models.modules import modules_of

Mode = Literal["eval", "keep", "keep_and_update"]

_RECURRENT = ("RNN", "LSTM", "GRU")
_ran_unseen: weakref.WeakSet[nn.Module] = weakref.WeakSet()


@contextlib.contextmanager
def attack_mode(
    model: Any, mode: Mode, *, keep_graph: bool = False, one_attack: bool = True
) -> Iterator[None]:
    """Runs a block with the model in the recipe's mode and leaves no trace on it.

    Args:
        model: A module, or a callable around modules; see `model_modules.modules_of`. A module
            that runs in a callable and cannot be found is warned about once.
        mode: "eval": every submodule in eval mode, its own mode put back afterwards. "keep": modes
            as they are. In both, buffers (BatchNorm statistics), frozen parameters that may hold
            what a forward pass writes, and torch's random states are as before afterwards. What
            the model writes in eval mode is warned about once. "keep_and_update": nothing is put
            back.
        keep_graph: Whether the graph is backpropagated after the block, when buffers may have
            changed in place.
        one_attack: Whether the block is one attack, in which recurrent layers in eval mode run
            without cuDNN, that gives no gradient there. If not, random states are the block's own.
    """
    modules = modules_of(model)
    with _without_cudnn(modules, mode) if one_attack else contextlib.nullcontext():
        if mode == "keep_and_update":
            yield
            return
        training = [module for module in modules if getattr(module, "training", False)]
        if torch.compiler.is_compiling():
            with _compiled_mode(modules, training, mode, keep_graph):
                yield
            return
        with (
            watched(model) if one_attack and not modules else contextlib.nullcontext(),
            _in_eval_mode(training if mode == "eval" else [], modules),
            traces.put_back(
                modules,
                evaluated=modules if mode == "eval" else (),
                every_buffer=keep_graph,
                random_states=one_attack,
            ),
        ):
            yield


@contextlib.contextmanager
def _compiled_mode(
    modules: Sequence[nn.Module], training: Sequence[nn.Module], mode: Mode, keep_graph: bool
) -> Iterator[None]:
    """In a graph that torch.compile traces: what it can trace of modes and buffers."""
    if mode == "eval":
        copied = modules if keep_graph else ()
        with _attributes_false(training), traces.copied_buffers(copied):
            yield
    elif training:
        devices = {p.device for m in training for p in m.parameters() if p.device.type == "cuda"}
        with (
            traces.copied_buffers(training),
            torch.random.fork_rng(devices=sorted(devices, key=str)),
        ):
            yield
    else:
        yield


@contextlib.contextmanager
def _attributes_false(training: Sequence[nn.Module]) -> Iterator[None]:
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


@contextlib.contextmanager
def _in_eval_mode(training: Sequence[nn.Module], modules: Sequence[nn.Module]) -> Iterator[None]:
    """Sets modes by the attribute, and calls `train` where a class makes something of its own."""
    own = [module for module in training if _has_own_mode(module)]
    if not own:
        with _attributes_false(training):
            yield
        return
    before = [(module, module.training) for module in modules if hasattr(module, "training")]
    with traces.kept_parameters(own):  # such as weights that it merges for eval mode
        try:
            for module in own:
                if module.training:  # not by its parent's call
                    _train(module, False)
            for module, _ in before:
                module.training = False
            yield
        finally:
            for module in own:
                _train(module, True)
            for module, was in before:
                if not was and module.training and _has_own_mode(module):
                    _train(module, False)
            for module, was in before:
                module.training = was


def _has_own_mode(module: nn.Module) -> bool:
    kind = type(module)
    plain = kind.train is nn.Module.train and kind.eval is nn.Module.eval
    return not plain or "train" in vars(module)


def _train(module: nn.Module, mode: bool) -> None:
    # Exported programs refuse: their graph has its mode, and `traces` says so where that shows.
    with contextlib.suppress(NotImplementedError):
        module.train(mode) if mode else module.eval()


def _without_cudnn(modules: Sequence[nn.Module], mode: Mode) -> Any:
    """Recurrent layers on CUDA by torch's own kernels: cuDNN's backward needs training mode."""
    if not torch.compiler.is_compiling() and _has_cuda():
        for module in modules:
            stays = mode != "eval" and getattr(module, "training", False)
            if not stays and _is_recurrent(module) and _is_on_cuda(module):
                return torch.backends.cudnn.flags(enabled=False)
    return contextlib.nullcontext()


def _has_cuda() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _is_recurrent(module: nn.Module) -> bool:
    return isinstance(module, nn.RNNBase) or getattr(module, "original_name", "") in _RECURRENT


def _is_on_cuda(module: nn.Module) -> bool:
    return any(parameter.is_cuda for parameter in module.parameters())


@contextlib.contextmanager
def watched(model: Any) -> Iterator[None]:
    """Warns, once, of modules in training mode that run inside of a callable that shows none."""
    if torch.compiler.is_compiling() or isinstance(model, nn.Module) or modules_of(model):
        yield
        return
    thread = threading.get_ident()

    def look(module: nn.Module, inputs: Any) -> None:
        unseen = getattr(module, "training", False) and module not in _ran_unseen
        if unseen and threading.get_ident() == thread:
            _ran_unseen.update(modules_of(module))
            warnings.warn(
                f"a callable ({type(model).__name__}) has no mode, and a {type(module).__name__} "
                "in training mode runs inside of it: its dropout acts, and what it writes into its "
                "buffers stays. Give the module itself, or call its eval() before the attack",
                UserWarning,
                stacklevel=2,
            )

    handle = nn.modules.module.register_module_forward_pre_hook(look)
    try:
        yield
    finally:
        handle.remove()
