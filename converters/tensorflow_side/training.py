"""Finds what the layers of a Keras model do in training, inside a TensorFlow environment.

An inference trace has lost it. Under :class:`TrainingMarks` BatchNormalization and noise layers
leave a mark there; :func:`only_inference` finds the layers that act in training beyond the marks.
"""

from __future__ import annotations

import contextlib
import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from . import marks
from .differences import differing, in_layer
from .keras_model import KERAS_MAJOR, UnsupportedModelError, leaves, sublayers, variable_of

Call = Callable[..., Any]

_NOISE = {
    "AlphaDropout": "AlphaDropout",
    "Dropout": "Dropout",
    "GaussianDropout": "GaussianDropout",
    "GaussianNoise": "GaussianNoise",
    "SpatialDropout1D": "Dropout",
    "SpatialDropout2D": "Dropout",
    "SpatialDropout3D": "Dropout",
}


def is_noise(layer: Any) -> bool:
    """Whether a layer is one of Keras' own noise layers, which act in training alone."""
    return any(type(layer) is getattr(tf.keras.layers, name) for name in _NOISE)


def batch_norms(model: Any) -> dict[int, dict[str, Any]]:
    """Returns the training settings of each BatchNormalization, by id of its moving mean."""
    return {
        id(variable_of(layer.moving_mean)): {
            "momentum": float(layer.momentum),
            "epsilon": float(layer.epsilon),
            # The fused kernel of Keras 2 keeps the variance with Bessel's correction.
            "unbiased": KERAS_MAJOR < 3 and bool(getattr(layer, "fused", False)),
            "frozen": not layer.trainable,
        }
        for layer in leaves(model)
        if _is_plain_batch_norm(layer)
    }


class TrainingMarks:
    """Lets layers leave marks in the traces of one model.

    The first trace under :meth:`applied` must be the one for training: a model can pin a layer to
    inference, as ``base(x, training=False)`` does, and such a call gets no mark in any trace.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._pinned: dict[int, list[bool]] = defaultdict(list)
        self._always: list[str] = []

    @contextlib.contextmanager
    def applied(self, *, training: bool) -> Iterator[None]:
        """Marks the layers of a trace in the mode that ``training`` tells."""
        layers = sublayers(self._model)
        # A cell and what a wrapper holds are parts of a layer, and count as that.
        parts = {id(part) for layer in leaves(self._model) for part in sublayers(layer).values()}
        if training:
            self._pinned.clear()
        with contextlib.ExitStack() as stack:
            for key, layer in layers.items():
                marked, original = _marked(layer), layer.call
                call = original if marked is None else self._unless_pinned(layer, marked, training)
                call = call if id(layer) in parts else in_layer(key, call)
                stack.enter_context(calling(layer, _with_signature_of(original, call)))
            yield
        if self._always:
            raise UnsupportedModelError(
                f"{self._always[0]} is called with training=True, in inference too: its outputs "
                "are random or depend on the batch; build the model without that"
            )

    def _unless_pinned(self, layer: Any, marked: Call, training: bool) -> Call:
        original, pinned, count = layer.call, self._pinned[id(layer)], iter(range(10**9))

        def call(inputs: Any, *arguments: Any, **settings: Any) -> Any:
            mode = arguments[0] if arguments else settings.get("training")
            number = next(count)
            if training:
                pinned.append(not mode)
            elif mode:
                self._always.append(_named(layer))
            if settings.get("mask") is not None and not is_noise(layer):
                return original(inputs, *arguments, **settings)
            if number < len(pinned) and pinned[number]:
                return inputs if is_noise(layer) else _plain_batch_norm(layer, inputs)
            return marked(inputs)

        unconverted: Call = tf.autograph.experimental.do_not_convert(call)
        return unconverted


@contextlib.contextmanager
def calling(layer: Any, call: Call) -> Iterator[None]:
    """Lets a layer call something else for a time."""
    # A layer made of a TensorFlow function, as Keras 2 makes them, has its call in itself alone.
    own = vars(layer).get("call")
    layer.call = call
    try:
        yield
    finally:
        del layer.call
        if own is not None:
            layer.call = own


def only_inference(model: Any, training: Any, inference: Any) -> list[str]:
    """Names the layers whose training behaviour does not travel into torch.

    Args:
        model: the Keras model.
        training: the graph of its trace in training mode, under :class:`TrainingMarks`.
        inference: the same in inference mode.
    """
    layers = sublayers(model)
    return [_named(layers.get(key, model)) for key in differing(training, inference)]


def _named(layer: Any) -> str:
    return f"{type(layer).__name__} {layer.name!r}"


def _marked(layer: Any) -> Call | None:
    """Returns the call that leaves a mark, None for a layer that has none."""
    if _is_plain_batch_norm(layer):
        return lambda inputs: _mark_batch_norm(layer, inputs)
    settings = _noise_settings(layer) if is_noise(layer) else None
    return None if settings is None else lambda inputs: marks.noise(inputs, settings)


def _mark_batch_norm(layer: Any, inputs: Any) -> Any:
    rank = inputs.shape.rank
    axis = _axes(layer)[0] % rank
    order = [0, axis, *(i for i in range(1, rank) if i != axis)]
    moved = order != sorted(order)
    x = tf.transpose(inputs, order) if moved else inputs
    y = marks.batch_norm(x, _arguments(layer, inputs), float(layer.epsilon))
    return tf.transpose(y, np.argsort(order)) if moved else y


def _plain_batch_norm(layer: Any, inputs: Any) -> Any:
    """Normalises in single steps, which no ONNX node for training can stand for."""
    shape = [1] * inputs.shape.rank
    shape[_axes(layer)[0]] = -1
    gamma, beta, mean, variance = (tf.reshape(a, shape) for a in _arguments(layer, inputs))
    return tf.nn.batch_normalization(inputs, mean, variance, beta, gamma, layer.epsilon)


def _arguments(layer: Any, inputs: Any) -> list[Any]:
    """Returns gamma, beta, mean and variance."""
    channels = inputs.shape[_axes(layer)[0]]
    return [
        _read(layer.gamma) if layer.scale else tf.ones(channels, inputs.dtype),
        _read(layer.beta) if layer.center else tf.zeros(channels, inputs.dtype),
        _read(layer.moving_mean),
        _read(layer.moving_variance),
    ]


def _is_plain_batch_norm(layer: Any) -> bool:
    if type(layer) is not tf.keras.layers.BatchNormalization:
        return False
    special = any(
        getattr(layer, key, None) for key in ("renorm", "virtual_batch_size", "synchronized")
    )
    return len(_axes(layer)) == 1 and not special


def _axes(layer: Any) -> list[int]:
    return list(layer.axis) if isinstance(layer.axis, (list, tuple)) else [layer.axis]


def _noise_settings(layer: Any) -> dict[str, Any] | None:
    """Returns what the torch side needs of a noise layer, None where nothing can be marked."""
    kind = _NOISE[type(layer).__name__]
    amount = "stddev" if kind == "GaussianNoise" else "rate"
    value, axes = getattr(layer, amount), _shared_axes(layer)
    # Other rates than numbers, and shapes with a fixed batch, act in a way of their own.
    if axes is None or not isinstance(value, (int, float)) or not value > 0:
        return None
    return {"kind": kind, "layer": layer.name, amount: float(value), "axes": axes}


def _shared_axes(layer: Any) -> list[int] | None:
    """Returns the axes along which all entries get the same noise, None if it is not that."""
    kind = type(layer).__name__
    if kind.startswith("Spatial"):
        count = int(kind[-2])
        first = 2 if getattr(layer, "data_format", "") == "channels_first" else 1
        return list(range(first, first + count))
    shape = getattr(layer, "noise_shape", None)
    if shape is None:
        return []
    if not all(n is None or n == 1 for n in shape):
        return None
    return [i for i, n in enumerate(shape) if n == 1]


def _with_signature_of(original: Call, call: Call) -> Call:
    """Gives ``call`` the signature that Keras looks at before it passes training or a mask."""
    if call != original:
        call.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]
    return call


def _read(weight: Any) -> Any:
    return tf.convert_to_tensor(variable_of(weight))
