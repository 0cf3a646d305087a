"""Valid files with some of their bytes changed: they work, or are refused in one line."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from processes import SUPPORT

pytest.importorskip("onnx")
pytest.importorskip("onnx2torch")

import hostile_files as files

from torchfgsm import cli
from torchfgsm.converters import ConversionError, export_onnx
from torchfgsm.originals.environment import EnvironmentUnavailable
from torchfgsm.originals.process import Worker
from torchfgsm.parity import recorded
from torchfgsm.system import arrays as array_file

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore"),  # of onnx, torch and numpy, about what they read
]
WORKER = SUPPORT / "hostile_models_worker.py"
SUFFIXES = (".keras", ".h5", ".pb", ".tflite")
FROZEN: dict[str, Any] = {"input_names": ["x:0"], "output_names": ["Identity:0"]}
Change = tuple[str, float, int]
# Where in the file, as a share of it, and what is done there.
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["byte", "byte", "byte", "cut", "double", "zeros"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=4,
)


def bounded(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def changed(content: bytes, changes: list[Change]) -> bytes:
    found = bytearray(content)
    for kind, share, value in changes:
        place = int(share * len(found))
        if kind == "byte" and found:
            found[place] = value
        elif kind == "cut":
            del found[place : place + 1 + value]
        elif kind == "double":
            found[place:place] = found[place : place + 1 + value]
        elif kind == "zeros":
            found[place : place + 8] = bytes(8)
    return bytes(found)


def told(call: Callable[[], Any], folder: Path, out: Path) -> str | None:
    """Runs a call; returns the one line that it is refused with, None where it works."""
    before, said = set(folder.iterdir()), None
    try:
        call()
    except ConversionError as error:
        said = str(error)
    else:
        out.unlink()
    first, *rest = (said or "").splitlines() or [""]
    assert not rest or "does not agree" in first  # a table follows
    assert set(folder.iterdir()) == before
    return said


@pytest.mark.parametrize("name", ["digits", "digits-batchnorm", "digits-two-inputs"])
@bounded(150)
@given(changes=CHANGES)
def test_onnx_files(name: str, tmp_path_factory: Any, changes: list[Change]) -> None:
    folder = tmp_path_factory.mktemp("onnx", numbered=True)
    path, out = folder / "model.onnx", folder / "out.onnx"
    path.write_bytes(changed((recorded.FOLDER / f"{name}.onnx").read_bytes(), changes))
    told(lambda: export_onnx(path, out), folder, out)


@bounded(400)
@given(changes=CHANGES, compressed=st.booleans())
def test_data_files(tmp_path_factory: Any, changes: list[Change], compressed: bool) -> None:
    folder = tmp_path_factory.mktemp("data", numbered=True)
    arrays: dict[str, Any] = {"x": np.ones((5, 4), np.float32), "y": np.arange(5) % 3}
    stream = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(stream, **arrays)
    path, out = folder / "in.npz", folder / "out.npy"
    path.write_bytes(changed(stream.getvalue(), changes))
    with contextlib.suppress(ValueError):
        array_file.read_arrays(path)
    model = files.save(files.onnx_model(), folder / "model.onnx")
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        arguments = [str(model), "--no-verify", "--data", str(path), "-o", str(out), "--eps", "0.1"]
        code = cli.main(["attack", *arguments])
    assert code in (0, 2)
    assert "Traceback" not in said.getvalue()
    assert out.exists() == (code == 0)


class TensorFlow:
    """A TensorFlow process, and a new one where that has ended."""

    def __init__(self, environment: str, folder: Path) -> None:
        self._environment = environment
        self._worker = self._started()
        self.models = {suffix: self._model(folder, suffix) for suffix in SUFFIXES}

    def export(self, path: Path, content: bytes) -> None:
        """Exports a file with these contents; it works, or is refused in one line."""
        path.write_bytes(content)
        out = path.with_name("out.onnx")
        names = FROZEN if path.suffix == ".pb" else {}
        worker = self._worker
        said = told(lambda: export_onnx(path, out, worker=worker, **names), path.parent, out) or ""
        assert "took too long" not in said
        assert "Closed" not in said
        if "process ended" in said:
            self._worker.close()
            self._worker = self._started()

    def close(self) -> None:
        """Ends the process."""
        self._worker.close()

    def _started(self) -> Worker:
        return Worker(self._environment, WORKER, timeout=60)

    def _model(self, folder: Path, suffix: str) -> bytes:
        kind = "plain" if suffix in (".keras", ".h5") else "plain of functions"
        path = folder / f"model{suffix}"
        canary = str(folder / "canary")
        self._worker.call("build", kind=kind, canary=canary, path=str(path))
        return path.read_bytes()


@pytest.fixture(scope="module", params=["keras-2", "keras-3"])
def tensorflow(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[TensorFlow]:
    try:
        found = TensorFlow(request.param, tmp_path_factory.mktemp("models"))
    except EnvironmentUnavailable as error:
        pytest.skip(str(error))
    yield found
    found.close()


@pytest.mark.live
@pytest.mark.parametrize("suffix", SUFFIXES)
@bounded(50)
@given(changes=CHANGES)
def test_tensorflow_files(
    suffix: str, tensorflow: TensorFlow, tmp_path_factory: Any, changes: list[Change]
) -> None:
    path = tmp_path_factory.mktemp("tensorflow", numbered=True) / f"model{suffix}"
    tensorflow.export(path, changed(tensorflow.models[suffix], changes))


@pytest.mark.live
@bounded(50)
@given(changes=CHANGES, member=st.sampled_from(["config.json", "model.weights.h5"]))
def test_members_of_keras_files(
    tensorflow: TensorFlow, tmp_path_factory: Any, changes: list[Change], member: str
) -> None:
    """Behind the archive's own checksums."""
    path = tmp_path_factory.mktemp("members", numbered=True) / "model.keras"
    with zipfile.ZipFile(io.BytesIO(tensorflow.models[".keras"])) as archive:
        members = {m.filename: archive.read(m) for m in archive.infolist()}
    files.archive(path, {**members, member: changed(members[member], changes)})
    tensorflow.export(path, path.read_bytes())
