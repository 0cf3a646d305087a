"""What an ONNX file cannot say about a Keras model: order, names, weights and training settings.

It is kept as JSON in the file's ``metadata_props``, so that the exported file alone gives the same
trainable module again, without TensorFlow.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from torchfgsm.converters.errors import ConversionError

KEY = "torchfgsm"
FORMAT = 2
# What format 1 did not say yet.
_ADDED: dict[str, list[Any]] = {
    "penalties": [],
    "lost": [],
    "weight_order": [],
    "other_weights": [],
}

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Port:
    """An input or output.

    Attributes:
        name: the model's name of it.
        tensor: the ONNX value.
        dtype: numpy's name of its type.
        shape: its shape without the batch.
        batch: the only batch size that the graph takes, None where it takes any.
        scalar: whether it is one number for the whole batch.
    """

    name: str
    tensor: str
    dtype: str = "float32"
    shape: tuple[int | None, ...] = ()
    batch: int | None = None
    scalar: bool = False


@dataclass(frozen=True)
class Weight:
    """A weight of the Keras model.

    Attributes:
        name: the Keras name.
        tensor: the ONNX initializer.
        shape: shape in Keras.
        layout: steps from Keras' array to the initializer: ("transpose", perm) or
            ("reshape", shape).
        trainable: whether Keras trains it.
        statistic: whether it is a moving statistic, which training updates without a gradient.
        batch_norm: for a moving mean, the arguments of ``KerasBatchNorm`` beyond epsilon.
    """

    name: str
    tensor: str
    shape: tuple[int, ...]
    layout: tuple[tuple[str, tuple[int, ...]], ...] = ()
    trainable: bool = True
    statistic: bool = False
    batch_norm: Mapping[str, Any] | None = None

    def to_onnx(self, array: Array) -> Array:
        """Returns an array in Keras layout in the initializer's."""
        for step, argument in self.layout:
            array = array.transpose(argument) if step == "transpose" else array.reshape(argument)
        return array

    def to_keras(self, array: Array) -> Array:
        """Returns an array in the initializer's layout in Keras'."""
        places = self.to_onnx(np.arange(int(np.prod(self.shape))).reshape(self.shape))
        result = np.empty(places.size, array.dtype)
        result[places.ravel()] = array.ravel()
        return result.reshape(self.shape)


@dataclass(frozen=True)
class Penalty:
    """A layer loss: l1 * sum(abs(w)) + l2 * sum(w * w) of one weight, as Keras adds it to the loss.

    Attributes:
        weight: the ONNX initializer of the weight.
        l1: factor of the sum of absolute values.
        l2: factor of the sum of squares.
    """

    weight: str
    l1: float = 0.0
    l2: float = 0.0


@dataclass(frozen=True)
class OtherWeight:
    """A weight on which no output depends: counters, seeds, unused statistics.

    Attributes:
        name: the Keras name.
        dtype: numpy's name of the type of its values.
        shape: shape in Keras.
        data: the values, as base64 of their bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: str

    @classmethod
    def of(cls, name: str, array: Array) -> OtherWeight:
        """Returns the weight that holds an array."""
        data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
        return cls(name, array.dtype.name, array.shape, data)

    def array(self) -> Array:
        """Returns the values, in Keras' shape."""
        values: Array = np.frombuffer(base64.b64decode(self.data), self.dtype)
        return np.array(values.reshape(self.shape))


@dataclass(frozen=True)
class Annotation:
    """All that is written beside the graph.

    Attributes:
        source: what the model came from, for people.
        inputs: the inputs in the model's own order.
        outputs: the outputs in the model's own order.
        structure: how the model returns its outputs: "single", "list" or "dict".
        weights: every weight that an output depends on.
        only_inference: layers whose training behaviour has no counterpart here.
        penalties: the layer losses that travelled.
        lost: parts of the model's training that did not, each in words: losses of another form,
            constraints of weights.
        weight_order: the names of all weights in the order of Keras' ``get_weights``.
        other_weights: those of them on which no output depends.
    """

    source: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    structure: str
    weights: tuple[Weight, ...]
    only_inference: tuple[str, ...] = ()
    penalties: tuple[Penalty, ...] = ()
    lost: tuple[str, ...] = ()
    weight_order: tuple[str, ...] = ()
    other_weights: tuple[OtherWeight, ...] = ()

    @property
    def from_keras(self) -> bool:
        """Whether TensorFlow or Keras made the model, whose layout it has then."""
        return re.search(r"\(Keras .*, TensorFlow .*\)$", self.source) is not None

    def for_batches_of(self, size: int) -> Annotation:
        """Returns the annotation of a model that takes batches of one size alone."""
        sides = (self.inputs, self.outputs)
        inputs, outputs = (tuple(replace(port, batch=size) for port in ports) for ports in sides)
        return replace(self, inputs=inputs, outputs=outputs)

    def unverified_beyond(self, size: int) -> Annotation:
        """Returns the same, of a file that was not asked whether it depends on that size."""
        told = (
            f"the file was written for batches of {size}; others are refused, since whether they "
            "are right was not verified: load it with verify=True"
        )
        return replace(self.for_batches_of(size), lost=(*self.lost, told))

    def write(self, model: Any) -> None:
        """Puts the annotation into an ONNX model, in place of an older one."""
        kept = [(p.key, p.value) for p in model.metadata_props if p.key != KEY]
        del model.metadata_props[:]
        values = {"format": FORMAT, **asdict(self)}
        for port in [*values["inputs"], *values["outputs"]]:
            for key in ("batch", "scalar"):
                if not port[key]:  # as files had it before
                    del port[key]
        for key, value in [*kept, (KEY, json.dumps(values))]:
            model.metadata_props.add(key=key, value=value)

    @classmethod
    def read(cls, model: Any) -> Annotation | None:
        """Returns the annotation of an ONNX model, None where there is none.

        Raises:
            ConversionError: the annotation is damaged or of another format.
        """
        text = next((p.value for p in model.metadata_props if p.key == KEY), None)
        if text is None:
            return None
        try:
            values = json.loads(text)
            found = values.pop("format")
            if found == 1:
                values = {**_ADDED, **values}
            elif found != FORMAT:
                raise ConversionError(
                    f"expected an annotation of format {FORMAT}, got {found}: "
                    "convert the model again with this version"
                )
            return cls(
                source=values["source"],
                inputs=tuple(_port(value) for value in values["inputs"]),
                outputs=tuple(_port(value) for value in values["outputs"]),
                structure=values["structure"],
                weights=tuple(_weight(value) for value in values["weights"]),
                only_inference=tuple(values["only_inference"]),
                penalties=tuple(Penalty(**value) for value in values["penalties"]),
                lost=tuple(values["lost"]),
                weight_order=tuple(values["weight_order"]),
                other_weights=tuple(_other_weight(value) for value in values["other_weights"]),
            )
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ConversionError(f"the file's {KEY} annotation is damaged: {error!r}") from error


def _port(value: dict[str, Any]) -> Port:
    return Port(**{**value, "shape": tuple(value["shape"])})


def _other_weight(value: dict[str, Any]) -> OtherWeight:
    return OtherWeight(**{**value, "shape": tuple(value["shape"])})


def _weight(value: dict[str, Any]) -> Weight:
    layout: Sequence[Any] = value["layout"]
    steps = tuple((str(step), tuple(argument)) for step, argument in layout)
    return Weight(**{**value, "shape": tuple(value["shape"]), "layout": steps})
