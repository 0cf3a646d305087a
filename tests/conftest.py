"""What tests share: a fixed seed, and the recorded originals with their models."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from torchfgsm.originals import KERAS_2

if TYPE_CHECKING:
    from torchfgsm.parity.recorded import Recording
    from torchfgsm.parity.run import Converted


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "keras_3_suffices: shows what hangs on neither Keras; with Keras 2 it is slow",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Makes the tests that Keras 3 suffices for slow with Keras 2."""
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        # A parameter may be an array, which is no truth value when compared.
        with_keras_2 = any(isinstance(v, str) and v == KERAS_2 for v in parameters.values())
        if with_keras_2 and item.get_closest_marker("keras_3_suffices"):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """One thread for torch.

    Models of a few numbers gain nothing from a second one, and each operation waits for it, up to
    20 ms, where TensorFlow's process or another program has its core.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def default_signals() -> Iterator[None]:
    """Signals end this process and those it starts, also where a shell lets it ignore them."""
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, signal.SIG_DFL),
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ONNX model, for commands that take a file."""
    from attack_files import write_model

    return write_model(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    """Data that fit it, inputs and labels."""
    from attack_files import classes, inputs

    path = tmp_path / "in.npz"
    np.savez(path, x=inputs(), y=classes())
    return path


@pytest.fixture(scope="module")
def recording() -> Recording:
    from torchfgsm.parity import recorded

    return recorded.load()


@pytest.fixture(scope="module")
def models(recording: Recording) -> Converted:
    """The models of the recording, converted."""
    from torchfgsm import converters
    from torchfgsm.parity.run import Converted

    def load(path: Path) -> converters.ConvertedModel:
        return converters.load(path, verify=False)

    return Converted(recording.paths, recording.data(), load)
