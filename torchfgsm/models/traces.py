"""What forward passes leave behind: written buffers and parameters, moved random states."""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from torchfgsm.models.modules import modules_of

# Statistics and counters are small. Larger ones hold tables, caches and weights that are no
# parameters, whose copies would cost more than the attack.
_LARGEST_BUFFER = 2**20
_LARGEST_PARAMETER = 2**14
_SHOWN = 3

_Buffer = tuple[nn.Module, str, Tensor]
_looked_at: weakref.WeakSet[nn.Module] = weakref.WeakSet()


@contextlib.contextmanager
def put_back(
    modules: Sequence[nn.Module],
    *,
    evaluated: Sequence[nn.Module] = (),
    every_buffer: bool = False,
    random_states: bool = True,
) -> Iterator[None]:
    """Runs a block after which buffers, frozen parameters and random states are as before.

    Args:
        modules: The modules of a model.
        evaluated: Those that run in eval mode, in which nothing should be written: the first time,
            what is written all the same is warned about.
        every_buffer: Copy large buffers of modules in eval mode too.
        random_states: Put the states of random generators back.
    """
    small = None if every_buffer else _LARGEST_BUFFER
    looks = bool(evaluated) and evaluated[0] not in _looked_at
    with (
        copied_buffers(modules, largest=small) as copied,
        kept_parameters(modules, largest=_LARGEST_PARAMETER, frozen=True),
        _kept_random_states(modules, random_states) as drew,
    ):
        yield
        if looks:
            _looked_at.add(evaluated[0])
            _warn_of_training_in_graph(modules, copied, drew)


def statistics(model: Any) -> dict[str, Tensor]:
    """Copies of what may hold statistics, by name: small buffers and frozen parameters."""
    return {
        f"{name} of module {number}": tensor.detach().clone()
        for number, module in enumerate(modules_of(model))
        for name, tensor in [*module._buffers.items(), *module._parameters.items()]
        if tensor is not None
        and not is_lazy(tensor)
        and not tensor.requires_grad
        and tensor.is_floating_point()
        and 1 < tensor.numel() <= _LARGEST_PARAMETER
    }


@contextlib.contextmanager
def copied_buffers(
    modules: Sequence[nn.Module], largest: int | None = None
) -> Iterator[list[tuple[_Buffer, Tensor]]]:
    """Lets modules work on copies of their buffers, as `torch.func.functional_call` does.

    Args:
        modules: The modules.
        largest: Number of entries above which a buffer of a module in eval mode is not copied.

    Yields:
        Each buffer, with its module and name, and its copy.
    """
    own = [
        (module, name, buffer)
        for module in modules
        if module._buffers
        for name, buffer in module._buffers.items()
        if buffer is not None
        and not is_lazy(buffer)
        and (largest is None or buffer.numel() <= largest or module.training)
    ]
    copied = list(zip(own, _copies([buffer for _, _, buffer in own]), strict=True))
    try:
        for (module, name, _), copy in copied:
            module._buffers[name] = copy
        yield copied
    finally:
        for module, name, buffer in own:
            module._buffers[name] = buffer


def _copies(tensors: list[Tensor]) -> list[Tensor]:
    """Copies of tensors, made by one kernel where they are on a GPU."""
    plain = all(type(t) is Tensor and t.layout is torch.strided for t in tensors)
    if torch.compiler.is_compiling() or not plain or not tensors:
        return [tensor.clone() for tensor in tensors]
    with torch.no_grad():
        copies = [torch.empty_like(tensor) for tensor in tensors]
        torch._foreach_copy_(copies, tensors)
    return copies


@contextlib.contextmanager
def kept_parameters(
    modules: Sequence[nn.Module], largest: int | None = None, *, frozen: bool = False
) -> Iterator[None]:
    """Puts the values of the modules' own parameters back, in place, without autograd's notice.

    Keras 3 on the torch backend keeps statistics and seed states as parameters that are frozen.

    Args:
        modules: The modules.
        largest: Number of entries above which a parameter is left alone.
        frozen: Those alone that do not require grad.
    """
    kept = [
        parameter.data
        for module in modules
        for parameter in module._parameters.values()
        if type(parameter) is nn.Parameter  # no shards and nothing lazy
        and not (frozen and parameter.requires_grad)
        and (largest is None or parameter.numel() <= largest)
    ]
    if not kept:
        yield
        return
    saved = _copies(kept)
    try:
        yield
    finally:
        torch._foreach_copy_(kept, saved)


@contextlib.contextmanager
def _kept_random_states(modules: Sequence[nn.Module], kept: bool) -> Iterator[Any]:
    """Puts the states of torch's generators back; yields what tells whether they have moved."""
    if not kept:
        yield lambda: False
        return
    generators = [torch.default_generator]
    if _has_cuda() and not torch.cuda.is_current_stream_capturing():
        devices = {p.device for m in modules for p in m._parameters.values() if p is not None}
        places = {d.index for d in devices if d.type == "cuda"} or {torch.cuda.current_device()}
        generators += [torch.cuda.default_generators[place] for place in places]
    states = [generator.get_state() for generator in generators]

    def drew() -> bool:
        return any(
            not torch.equal(generator.get_state(), state)
            for generator, state in zip(generators, states, strict=True)
        )

    try:
        yield drew
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _has_cuda() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _warn_of_training_in_graph(modules: Sequence[nn.Module], copied: Any, drew: Any) -> None:
    written = [name for (module, name, own), copy in copied
               if _is_written(name, own, copy, getattr(module, name, None))]  # fmt: skip
    what = ""
    if written:
        more = f" and {len(written) - _SHOWN} more" if len(written) > _SHOWN else ""
        what = f"writes its buffers {written[:_SHOWN]}{more}"
    elif any(_has_graph(module) for module in modules) and drew():
        what = "draws random numbers"
    if what:
        warnings.warn(
            f"the model {what} in eval mode, as in training: a graph that was exported or traced "
            "in training mode keeps it, as do functions that are told training=True. What is "
            "written and drawn is put back, but the attack sees the model so. If that is not "
            "meant, make the graph after model.eval()",
            UserWarning,
            stacklevel=2,
        )


def _is_written(name: str, own: Tensor, copy: Tensor, now: Any) -> bool:
    """Whether a pass has written to a copy; a lone counter is no statistic."""
    if copy.numel() == 1 and "running" not in name and "tracked" not in name:
        return False
    if now is not copy:
        return True
    # BatchNorm's functions write statistics without notice. A device is not waited for: there the
    # count of batches tells, whose copy is its first version.
    return not torch.equal(copy, own) if copy.device.type == "cpu" else copy._version > 1


def _has_graph(module: nn.Module) -> bool:
    """Whether a module's code is a graph, whose mode nobody can set."""
    return isinstance(module, (torch.jit.ScriptModule, torch.fx.GraphModule))
