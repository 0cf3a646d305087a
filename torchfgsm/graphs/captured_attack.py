"""The whole attack as one CUDA graph: labels, forward, input gradient and steps in one launch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

from torchfgsm.core import checks
from torchfgsm.core.attacks import attack
from torchfgsm.core.call_checks import check_recipe
from torchfgsm.core.limits import Length
from torchfgsm.core.model_gradient import LossFn
from torchfgsm.core.recipe import Recipe
from torchfgsm.graphs.cuda_graph import CudaGraph
from torchfgsm.models.modules import is_training, modules_of

_MOST_GRAPHS = 4  # a training batch, its last short one, and the same of a validation set


def capture(
    model: Any,
    example_x: Any,
    example_y: Any = None,
    *,
    recipe: Recipe,
    loss_fn: LossFn | None = None,
    step: Length | None = None,
    epsilon: Length | None = None,
    clip_min: Any = None,
    clip_max: Any = None,
    mask: Any = None,
) -> CapturedAttack:
    """An attack that replays labels, forward, input gradient and steps as one CUDA graph.

    It gives what `attack` gives, without the host's time for each operation. A replay runs no
    Python: the model's hooks and branches, the recipe's numbers and torch's settings (TF32, cuDNN)
    are those of the capture. Parameters and buffers that change in place, as an optimizer changes
    them, are seen; where one is replaced, moved or cast, the next call captures again. Other
    tensors that the model reads must stay where they are.

    Args:
        model: As in `attack`, on a CUDA device.
        example_x: Input of the structure, shapes and dtypes to capture first.
        example_y: Labels or targets likewise; None: the model's own prediction, in the graph.
        recipe: Every choice. A random start is drawn anew in each call, as in `attack`.
        loss_fn: As in `attack`.
        step: As in `attack`; a tensor must be on x's device and is read in each call.
        epsilon: Likewise.
        clip_min: Likewise.
        clip_max: Likewise.
        mask: Likewise.

    Returns:
        A callable (x, y=None) -> adversarial examples.

    Raises:
        TypeError: As `attack`; an entry of x or y that cannot be captured.
        ValueError: As `attack`; tensors that are not on a CUDA device; a recipe that looks at
            values; a model in training mode where the recipe keeps its mode.
        RuntimeError: The model waits for the device, or does something else that no graph can.
    """
    given = {
        "step": step,
        "epsilon": epsilon,
        "clip_min": clip_min,
        "clip_max": clip_max,
        "mask": mask,
    }
    captured = CapturedAttack(model, recipe, loss_fn, given)
    captured.prepare(example_x, example_y)
    return captured


class CapturedAttack:
    """Replays an attack for each kind of input that it has met; made by `capture`.

    Input of another structure, shape, stride, dtype or device, or another state of autocast, is
    captured when it first comes. The four graphs used last are kept, each with memory of its own.

    Args:
        model: The model.
        recipe: The choices.
        loss_fn: The loss, or None.
        given: What `attack` takes besides, by name.
        backend: What records and replays.
    """

    def __init__(
        self,
        model: Any,
        recipe: Recipe,
        loss_fn: LossFn | None = None,
        given: Mapping[str, Any] | None = None,
        *,
        backend: type[CudaGraph] = CudaGraph,
    ) -> None:
        check_recipe(recipe)
        if recipe.zero_gradient == "refuse":
            raise ValueError(
                "zero_gradient='refuse' looks at values, which a captured attack cannot: give "
                "dataclasses.replace(recipe, zero_gradient='stay'), or use torchfgsm.attack"
            )
        self._model = model
        self._recipe = recipe
        self._loss_fn = loss_fn
        self._given = dict(given or {})
        self._backend = backend
        self._graphs: OrderedDict[Hashable, _Recorded] = OrderedDict()

    def __call__(self, x: Any, y: Any = None) -> Any:
        """Adversarial examples of `x`.

        Args:
            x: The input, as in `attack`, on a CUDA device. Values are not checked.
            y: Labels or targets; None: the model's own prediction.

        Returns:
            Adversarial examples as of `attack`, in memory of their own.

        Raises:
            TypeError: As `capture`, for input of a new kind.
            ValueError: Likewise; the model was put in training mode and the recipe keeps its mode.
            RuntimeError: As `capture`.
        """
        with torch.inference_mode(False), torch.no_grad():
            return self.prepare(x, y).replay(x, y)

    def prepare(self, x: Any, y: Any = None) -> _Recorded:
        """The graph for inputs like these, captured unless there is one."""
        kind = self._backend.device_type
        autocast = (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
        key = (_signature(x), _signature(y), autocast)
        if self._recipe.model_mode != "eval" and is_training(self._model):
            raise ValueError(
                f"model_mode={self._recipe.model_mode!r} keeps the model in training mode, whose "
                "dropout and BatchNorm statistics a captured attack cannot put back: call "
                "model.eval(), give dataclasses.replace(recipe, model_mode='eval'), or use "
                "torchfgsm.attack"
            )
        addresses = _addresses(self._model)
        found = self._graphs.pop(key, None)
        if found is None or found.addresses != addresses:
            found = None  # frees the old graph's memory before the new one takes its own
            found = self._record(x, y, addresses, autocast)
        self._graphs[key] = found
        while len(self._graphs) > _MOST_GRAPHS:
            self._graphs.popitem(last=False)
        return found

    def _record(
        self, x: Any, y: Any, addresses: list[int], autocast: tuple[bool, torch.dtype]
    ) -> _Recorded:
        device = self._checked_device(x)
        enabled, dtype = autocast

        def run(x: Any, y: Any, generator: torch.Generator | None) -> Any:
            # Weights cast for an earlier call are no part of the graph: they are cast in it.
            with torch.autocast(device.type, dtype, enabled, cache_enabled=False):
                return attack(
                    self._model,
                    x,
                    y,
                    recipe=self._recipe,
                    loss_fn=self._loss_fn,
                    generator=generator,
                    validate=False,  # looking at values waits for the device
                    **self._given,
                )

        generator = torch.Generator(device) if self._recipe.random_start != "none" else None
        with torch.inference_mode(False), torch.no_grad():
            return _Recorded(run, x, y, generator, self._backend(device), addresses)

    def _checked_device(self, x: Any) -> torch.device:
        """Where the attack runs; refuses what can be refused before `attack` does the rest."""
        features = checks.check_input(self._model, x, values=False)
        device = features.tensors[0].device
        reason = self._backend.why_not(device)
        if reason is not None:
            raise ValueError(
                f"an attack is captured as a CUDA graph, but {reason}: move x and the model to a "
                "CUDA device, or use torchfgsm.attack, which runs on every device"
            )
        for name, value in self._given.items():
            for tensor in _tensors(value):
                if tensor.device != device:
                    raise ValueError(
                        f"{name} is on {tensor.device} and x on {device}; move one of them"
                    )
        return device


class _Recorded:
    """One graph, the buffers that it reads and the results that it writes."""

    def __init__(
        self,
        run: Callable[[Any, Any, torch.Generator | None], Any],
        x: Any,
        y: Any,
        generator: torch.Generator | None,
        graph: CudaGraph,
        addresses: list[int],
    ) -> None:
        self.addresses = addresses
        static_x, static_y = _copied(x), _copied(y)
        self._buffers = [*_tensors(static_x), *_tensors(static_y)]
        self._generator = generator
        self._graph = graph
        self._results = graph.record(lambda: run(static_x, static_y, generator), generator)

    def replay(self, x: Any, y: Any) -> Any:
        """The results for inputs of the kind that was recorded, copied."""
        with self._graph.in_turn():
            for buffer, value in zip(self._buffers, [*_tensors(x), *_tensors(y)], strict=True):
                buffer.copy_(value)
            if self._generator is not None:
                # Seeded as `attack` seeds its own, so that both draw the same start.
                self._generator.manual_seed(int(torch.randint(2**62, (1,))))
            self._graph.replay()
            return _copied(self._results)


def _addresses(model: Any) -> list[int]:
    """Where parameters and buffers lie, which a graph reads there and nowhere else."""
    return [
        tensor.data_ptr()
        for module in modules_of(model)
        for tensors in (module._parameters, module._buffers)
        for tensor in tensors.values()
        if tensor is not None
    ]


def _signature(value: Any) -> Hashable:
    """What a graph is bound to: structure, shapes, strides, dtypes, devices, and other values."""
    if isinstance(value, Tensor) and value.layout == torch.strided:
        return value.shape, value.stride(), value.dtype, value.device
    if isinstance(value, Mapping):
        return ("dict", *((name, _signature(entry)) for name, entry in value.items()))
    if type(value) in (list, tuple):
        return (type(value), *map(_signature, value))
    if value is None or isinstance(value, (bool, int, float, str)):
        return type(value), value
    came = f"a {value.layout} tensor" if isinstance(value, Tensor) else type(value).__name__
    raise TypeError(
        f"a captured attack takes dense tensors, numbers, strings, and dicts, lists and tuples of "
        f"these, got {came}; convert it, or use torchfgsm.attack"
    )


def _copied(value: Any) -> Any:
    """A structure with copies of its tensors."""
    if isinstance(value, Mapping):
        return {name: _copied(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_copied(entry) for entry in value)
    return value.clone() if isinstance(value, Tensor) else value


def _tensors(value: Any) -> list[Tensor]:
    """The tensors of a structure."""
    if isinstance(value, (Mapping, list, tuple)):
        entries = value.values() if isinstance(value, Mapping) else value
        return [tensor for entry in entries for tensor in _tensors(entry)]
    return [value] if isinstance(value, Tensor) else []
