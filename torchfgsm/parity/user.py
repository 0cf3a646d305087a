"""Comparing on a user's own model and data: reading them, and the cases that fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from torchfgsm.libraries.configuration import LIBRARIES
from torchfgsm.parity.cases import NSL_WORDS, NUMPY_ORDERS, Case
from torchfgsm.parity.data import Array, Data
from torchfgsm.system import arrays as array_file

if TYPE_CHECKING:
    from torchfgsm.converters.torch_side.heads import Head

NAME = "model"
_LABELS = ("y", "label", "labels")


class Classifier(Protocol):
    """What a converted model must offer to be compared."""

    input_names: tuple[str, ...]
    output_names: tuple[str, ...]

    def __call__(self, *inputs: torch.Tensor) -> Any:
        """The model's output."""


def libraries(text: str) -> list[str]:
    """The libraries of a comma-separated list.

    Raises:
        ValueError: An unknown name, or none.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in LIBRARIES]
    if unknown or not names:
        raise ValueError(f"--against takes {', '.join(LIBRARIES)}; got {text!r}")
    return names


def check_model_file(path: Path) -> None:
    """Refuses models that no TensorFlow original can run on.

    Raises:
        ValueError: An ONNX file.
        FileNotFoundError: No such file or folder.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if path.suffix == ".onnx":
        raise ValueError(
            f"{path}: the TensorFlow originals cannot run an ONNX file; give the Keras model that "
            "it came from"
        )


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an .npz file, read without pickle.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not an .npz file of plain arrays, or one without labels.
    """
    arrays = array_file.read_arrays(path)
    if not any(name in arrays for name in _LABELS):
        raise ValueError(f"{path}: expected class numbers as array 'y', found {sorted(arrays)}")
    return arrays


def inputs_of(arrays: Mapping[str, Array]) -> Any:
    """The arrays that are inputs: one array, or a dict of several."""
    inputs = {name: value for name, value in arrays.items() if name not in _LABELS}
    return next(iter(inputs.values())) if len(inputs) == 1 else inputs


def data_for(model: Classifier, arrays: Mapping[str, Array]) -> Data:
    """The batch for a converted model.

    Raises:
        ValueError: Missing inputs, labels that do not fit, a model with several outputs or without
            classes.
    """
    given = {name: value for name, value in arrays.items() if name not in _LABELS}
    names = list(model.input_names)
    if len(names) == 1 and len(given) == 1:
        given = {names[0]: next(iter(given.values()))}
    missing = [name for name in names if name not in given]
    if missing:
        raise ValueError(f"the data lack the inputs {missing}; the model's are {names}")
    x = {name: np.asarray(given[name], np.float32) for name in names}
    y = next(arrays[name] for name in _LABELS if name in arrays).reshape(-1)
    if not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"labels must be class numbers, got {y.dtype}")
    sizes = {name: len(value) for name, value in {**x, "y": y}.items()}
    if len(set(sizes.values())) > 1 or len(y) == 0:
        raise ValueError(f"inputs and labels need one batch size of at least 1, got {sizes}")
    infinite = [name for name, value in x.items() if not np.isfinite(value).all()]
    if infinite:
        raise ValueError(f"the inputs {infinite} have NaN or infinite entries")
    with torch.no_grad():
        output = model(*[torch.from_numpy(value[:1]) for value in x.values()])
    if not isinstance(output, torch.Tensor) or output.dim() != 2 or output.shape[1] < 2:
        raise ValueError("compare takes models with one output (N, classes) of 2 classes or more")
    classes = output.shape[1]
    if y.min() < 0 or y.max() >= classes:
        raise ValueError(f"labels run from {y.min()} to {y.max()}, the model has {classes} classes")
    return Data(x, y.astype(np.int64), classes)


def cases(
    names: Sequence[str], data: Data, eps: float | None = None, head: Head | None = None
) -> list[Case]:
    """Each library at its defaults, in three norms, and its training loss.

    Each is given the model's output as it would have got it of the model itself: logits where it
    finds them, else what the model gives.

    Args:
        names: Libraries.
        data: The batch.
        eps: Step in the data's units; default a tenth of the first input's range.
        head: What stands at the model's end; None: nothing.

    Raises:
        ValueError: A CleverHans library for a model with several inputs; a bad eps.
    """
    first = next(iter(data.x.values()))
    step = 0.1 * float(first.max() - first.min()) if eps is None else eps
    if not np.isfinite(step) or step <= 0:
        raise ValueError(f"--eps must be positive and finite, got {step}")
    if len(data.x) > 1 and any(name != "nsl" for name in names):
        raise ValueError(
            f"CleverHans attacks models with one input, this one has {list(data.x)}; use "
            "--against nsl"
        )
    return [case for name in names for case in _cases_of(name, step, _given(name, head))]


def what_is_compared(cases: Sequence[Case], head: Head) -> Iterator[str]:
    """Which output each library is given, one line for each, where the model ends in a head."""
    if head.kind is None and not head.probabilities:
        return
    yield head.text
    kind = "" if head.kind is None else f" of its {head.kind.lower()}"
    for library, output in {case.library: case.output for case in cases}.items():
        if output == "logits":
            yield f"{library} is given the model's logits, which it finds behind the softmax"
        elif library == "nsl":
            yield f"nsl is given the probabilities{kind}, behind which Keras' loss finds no logits"
        else:
            yield f"{library} is given the output{kind} and takes it for logits"


def _given(library: str, head: Head | None) -> dict[str, Any]:
    """What a library gets of a model: the fields of a case that say so."""
    if head is None or (head.kind is None and not head.probabilities):
        return {}
    found = head.kind == "Softmax" and not head.hidden_from_keras
    if found and library in ("nsl", "cleverhans3"):
        return {}
    given: dict[str, Any] = {"output": "probabilities"}
    if library == "nsl":
        given["loss"] = {"class": "SparseCategoricalCrossentropy", "from_logits": False}
    return given


def _cases_of(library: str, step: float, given: Mapping[str, Any]) -> Iterator[Case]:
    shared: dict[str, Any] = {"library": library, "model": NAME, **given}
    fgm = {"attack": "FastGradientMethod" if library == "cleverhans3" else "fast_gradient_method"}
    if library == "nsl":
        yield Case(name="nsl / defaults", params={}, **shared)
    elif library == "cleverhans3":
        yield Case(name="cleverhans3 / defaults", params=fgm, labels="predicted", **shared)
    for norm in ("linf", "l2", "l1"):
        name = f"{library} / {norm}, eps {step:g}"
        if library == "nsl":
            params = {"adv_grad_norm": NSL_WORDS[norm], "adv_step_size": step}
            yield Case(name=name, params=params, **shared)
            continue
        order = "ord" if library == "cleverhans3" else "norm"
        params = {**fgm, order: NUMPY_ORDERS[norm], "eps": step}
        yield Case(name=f"{name}, true labels", params=params, **shared)
        yield Case(name=f"{name}, predicted labels", params=params, labels="predicted", **shared)
    if library == "nsl":
        yield Case(name="nsl / training loss, defaults", kind="train", params={}, **shared)
    if library == "cleverhans3":
        attack = {**fgm, "attack_params": {"eps": step}, "pass_y": True}
        name = f"cleverhans3 / training loss, linf, eps {step:g}"
        yield Case(name=name, kind="train", params=attack, **shared)
