"""The demo's data and models: scikit-learn's handwritten digits and small Keras models of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from torchfgsm import originals
from torchfgsm.originals.process import Worker, WorkerError
from torchfgsm.parity.data import Array, Data
from torchfgsm.parity.run import Converted
from torchfgsm.system import extras

if TYPE_CHECKING:
    from torchfgsm import converters

MODELS = ("digits", "digits-reshaped", "digits-batchnorm", "digits-two-inputs")
COUNT = 48  # images that are attacked
_TRAINING = 1400
_CLASSES = 10


def load_digits() -> tuple[Array, Array]:
    """The 1797 images (N, 8, 8, 1) with values in [0, 1], float32, and their classes (N,).

    Raises:
        ImportError: scikit-learn, which holds the images, is not installed.
    """
    extras.require("the demo, whose images are inside scikit-learn,", "sklearn")
    from sklearn import datasets

    digits = datasets.load_digits()
    images = (digits.images[..., None] / 16).astype(np.float32)
    return images, digits.target.astype(np.int64)


def batch(model: str, count: int) -> Data:
    """The first `count` images that the models were not trained on, as a model takes them."""
    images, classes = load_digits()
    x, y = images[_TRAINING : _TRAINING + count], classes[_TRAINING : _TRAINING + count]
    return as_inputs(model, x, y)


def in_folder(
    folder: Path, count: int, load: Callable[[Path], converters.ConvertedModel]
) -> Converted:
    """The models that `train_models` saved in a folder, with batches of `count` images.

    Args:
        folder: The folder.
        count: As of `batch`.
        load: As of `Converted`.
    """
    paths = {model: folder / f"{model}.keras" for model in MODELS}
    return Converted(paths, {model: batch(model, count) for model in MODELS}, load)


def as_inputs(model: str, x: Array, y: Array) -> Data:
    """Images as the inputs of one of the demo's models."""
    if model == "digits-two-inputs":
        return Data({"top": x[:, :4], "bottom": x[:, 4:]}, y, _CLASSES)
    return Data({"image": x}, y, _CLASSES)


def train_models(folder: Path, *, epochs: int = 6, seed: int = 0) -> dict[str, float]:
    """Trains the demo's Keras models and saves each as `<name>.keras`.

    Args:
        folder: Where they are saved.
        epochs: Passes over the 1400 training images.
        seed: Seed of the initial weights.

    Returns:
        Model -> accuracy on the training images.

    Raises:
        EnvironmentUnavailable: TensorFlow's environment cannot be had.
        OSError: The system refuses to save them.
    """
    images, classes = load_digits()
    with Worker(originals.KERAS_2, originals.WORKERS / "demo.py") as worker:
        try:
            reply = worker.call(
                "train",
                {"x": images[:_TRAINING], "y": classes[:_TRAINING]},
                folder=str(folder),
                epochs=epochs,
                seed=seed,
            )
        except WorkerError as error:
            if error.kind != "OSError":
                raise
            text = f"{folder}: the models could not be saved: {error.message}"
            raise OSError(text) from error
    return dict(reply.values)
