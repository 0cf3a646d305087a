"""What tests share: a fixed seed, and the recorded originals with their models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from torchfgsm.parity.recorded import Recording
    from torchfgsm.parity.run import Converted


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def recording() -> Recording:
    from torchfgsm.parity import recorded

    return recorded.load()


@pytest.fixture(scope="module")
def models(recording: Recording) -> Converted:
    """The models of the recording, converted."""
    from torchfgsm import converters
    from torchfgsm.parity.run import Converted

    def load(path: Path, *, keep_head: bool) -> torch.nn.Module:
        return converters.load(path, keep_head=keep_head, verify=False)

    return Converted(recording.paths, recording.data(), load)
