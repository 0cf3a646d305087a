"""What a caller may ask of a conversion."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import torch

from torchfgsm.converters.errors import ConversionError
from torchfgsm.converters.verification.batches import Data

if TYPE_CHECKING:
    from torchfgsm.originals.process import Worker

PathLike = str | os.PathLike[str]
Progress = Callable[[str], None]
"""Is called with each step's name when the step begins."""

_GRAPHS = {"frozen_graph": "a frozen graph", "saved_model": "a SavedModel", "tflite": "TFLite"}


class Keywords(TypedDict, total=False):
    """The keywords of :func:`torchfgsm.converters.load` that suit every form of model."""

    keep_head: bool
    dtype: torch.dtype | None
    data: Data | None
    verify: bool
    verify_training: bool
    custom_objects: PathLike | None
    allow_unsafe: bool
    timeout: float
    progress: Progress | None
    worker: Worker | None


class AllKeywords(Keywords, total=False):
    """Those and the names that a frozen graph needs."""

    input_names: Sequence[str] | None
    output_names: Sequence[str] | None


@dataclass(frozen=True)
class Options:
    """The same as values; :func:`torchfgsm.converters.load` says what each means."""

    keep_head: bool = False
    dtype: torch.dtype | None = None
    data: Data | None = None
    verify: bool = True
    verify_training: bool = False
    custom_objects: PathLike | None = None
    allow_unsafe: bool = False
    input_names: Sequence[str] | None = None
    output_names: Sequence[str] | None = None
    timeout: float = 600.0
    progress: Progress | None = None
    worker: Worker | None = None

    @property
    def precision(self) -> str:
        """The dtype in which Keras models are exported, by name."""
        return "float64" if self.dtype is torch.float64 else "float32"

    def report(self, step: str) -> None:
        """Tells the caller which step begins."""
        if self.progress is not None:
            self.progress(step)

    def refuse_unfit(self, form: str) -> None:
        """Refuses options that a model of this form cannot follow, before anything runs.

        Raises:
            ConversionError: saying what was expected.
        """
        if self.dtype not in (None, torch.float32, torch.float64):
            raise ConversionError(
                f"expected dtype torch.float32 or torch.float64, got {self.dtype}"
            )
        if not self.timeout > 0:
            raise ConversionError(f"expected a timeout of more than 0 seconds, got {self.timeout}")
        if self.verify_training and form != "keras":
            raise ConversionError(
                "verify_training compares training steps, for which the Keras model is needed: "
                f"give a .keras or .h5 file, not {_GRAPHS.get(form, 'an ONNX file')}"
            )
        if form in _GRAPHS and self.dtype is torch.float64:
            raise ConversionError(
                f"only Keras models are exported in float64, {_GRAPHS[form]} computes in its own "
                "precision: leave dtype out and call .double() on the result"
            )
        if form != "frozen_graph" and (self.input_names or self.output_names):
            raise ConversionError("input_names and output_names are for frozen graphs (.pb) alone")
        if self.custom_objects is not None and not os.path.isfile(self.custom_objects):
            raise ConversionError(
                f"custom_objects: expected a Python file, found no file {self.custom_objects}"
            )
